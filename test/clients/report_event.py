"""Reports an event of v1 with Debian's python3-stripe, and then the same event again.

Usage: report_event.py BASE KEY EVENT_NAME IDENTIFIER
Prints the event and the message that the second report is refused with, as JSON.
"""

import json
import sys

import stripe
from stripe.api_resources.abstract import CreateableAPIResource


class MeterEvent(CreateableAPIResource):
    """Debian's version is older than meters, so the resource is declared here as the SDK declares its own."""

    OBJECT_NAME = "billing.meter_event"


stripe.api_base, stripe.api_key, event_name, identifier = sys.argv[1:]
report = {
    "event_name": event_name,
    "identifier": identifier,
    "payload": {"stripe_customer_id": "cus_1", "value": 25},
}

event = MeterEvent.create(**report)
try:
    MeterEvent.create(**report)
    refusal = None
except stripe.error.InvalidRequestError as error:
    refusal = error.user_message

print(json.dumps({"event": event, "refusal": refusal}))
