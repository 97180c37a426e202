"""Reports usage events over a stream: one JSON event a line on standard input, as POST /v2/billing/meter_events takes it."""

import json
import os
import queue
import random
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from datetime import datetime, timezone
from http.client import HTTPException

BATCH_EVENTS = 100
BATCH_S = 1
RENEW_S = 60  # a session is renewed this long before it expires

URL = os.environ.get("EDGEMETER_URL", "http://127.0.0.1:8787")
API_KEY = os.environ.get("EDGEMETER_API_KEY", "sk_test_edgemeter_local")

lines = queue.Queue(maxsize=BATCH_EVENTS)  # the reader waits while it is full, so an outage fills no memory
stopping = False
refused = 0
token, token_expires = None, 0.0


def read_lines():
    for line in sys.stdin:
        lines.put(line)
    lines.put(None)


def stop(number, _):
    """The first signal ends the input, so that what was read is still sent; the second one ends the program."""
    global stopping
    stopping = True
    signal.signal(number, signal.SIG_DFL)


def batches():
    """Groups of up to 100 events, each gathered for at most a second; ends with the input or a signal."""
    more = True
    while more:
        batch, due = [], time.monotonic() + BATCH_S
        while more and len(batch) < BATCH_EVENTS:
            try:
                line = lines.get(timeout=0 if stopping else max(0, due - time.monotonic()))
            except queue.Empty:
                more = not stopping
                break
            more = line is not None
            if more and (event := read_event(line)):
                batch.append(event)
        if batch:
            yield batch


def read_event(line):
    """An event with its identifier and time. Both are chosen once, so that every retry says the same."""
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    try:
        return {"identifier": str(uuid.uuid4()), "timestamp": now, **json.loads(line)}
    except (TypeError, ValueError) as error:
        refuse(line.strip(), error)


def send(events):
    """Sends a batch until it is accepted. A malformed event is found by halving, so that it holds up no other."""
    global token
    key, delay = str(uuid.uuid4()), 0.2
    while True:
        try:
            return post("/v2/billing/meter_event_stream", {"events": events}, session_token(), key)
        except urllib.error.HTTPError as error:
            message = error.read().decode(errors="replace")
            if error.code == 401 and token is not None:
                token = None
            elif error.code in (400, 413) and len(events) == 1:
                return refuse(json.dumps(events[0]), message)
            elif error.code in (400, 413):
                middle = (len(events) + 1) // 2
                return send(events[:middle]), send(events[middle:])
            elif error.headers.get("stripe-should-retry") == "false" or error.code not in (409, 429, *range(500, 600)):
                sys.exit(f"the server takes no events from this key: {message}")
        except (OSError, HTTPException) as error:
            message = error
        print(f"a batch of {len(events)} is sent again: {message}", file=sys.stderr)
        time.sleep(delay * random.uniform(0.5, 1))
        delay = min(2 * delay, 30)


def session_token():
    global token, token_expires
    if token is None or token_expires < time.time() + RENEW_S:
        token = None
        session = post("/v2/billing/meter_event_session", {}, API_KEY, str(uuid.uuid4()))
        expires = datetime.strptime(session["expires_at"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
        token, token_expires = session["authentication_token"], expires.timestamp()
    return token


def post(path, body, bearer, idempotency_key):
    headers = {
        "Authorization": f"Bearer {bearer}",
        "Content-Type": "application/json",
        "Idempotency-Key": idempotency_key,
    }
    request = urllib.request.Request(URL + path, json.dumps(body).encode(), headers, method="POST")
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def refuse(text, error):
    """What can never be accepted is said, and makes the exit code 1."""
    global refused
    refused += 1
    print(f"refused: {error} {text}", file=sys.stderr)


for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, stop)
threading.Thread(target=read_lines, daemon=True).start()
for batch in batches():
    send(batch)
sys.exit(1 if refused else 0)
