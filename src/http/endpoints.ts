import { archiveAuditEndpoints } from "./admin/archive-audit.ts";
import { auditEndpoints } from "./admin/audit.ts";
import { deadLetterEndpoints } from "./admin/dead-letters.ts";
import { erasureEndpoints } from "./admin/erasures.ts";
import { exportEndpoints } from "./admin/events.ts";
import { pipelineEndpoints } from "./admin/pipeline.ts";
import { resendEndpoints } from "./admin/resend.ts";
import { restoreEndpoints } from "./admin/restore.ts";
import { usageEndpoints } from "./admin/usage.ts";
import type { Endpoint } from "./endpoint.ts";
import { eventSummaryEndpoints } from "./v1/event-summaries.ts";
import { adjustmentEndpoints as v1AdjustmentEndpoints } from "./v1/meter-event-adjustments.ts";
import { meterEventEndpoints as v1MeterEventEndpoints } from "./v1/meter-events.ts";
import { meterUsageEndpoints } from "./v1/meter-usage.ts";
import { meterEndpoints } from "./v1/meters.ts";
import { coreEventEndpoints } from "./v2/core-events.ts";
import { adjustmentEndpoints } from "./v2/meter-event-adjustments.ts";
import { meterEventSessionEndpoints } from "./v2/meter-event-session.ts";
import { meterEventStreamEndpoints } from "./v2/meter-event-stream.ts";
import { meterEventEndpoints } from "./v2/meter-events.ts";

/** Every endpoint, in the order of the API's description. */
export const ENDPOINTS: readonly Endpoint[] = [
  ...meterEventEndpoints,
  ...v1MeterEventEndpoints,
  ...meterEventSessionEndpoints,
  ...meterEventStreamEndpoints,
  ...coreEventEndpoints,
  ...adjustmentEndpoints,
  ...v1AdjustmentEndpoints,
  ...meterEndpoints,
  ...eventSummaryEndpoints,
  ...meterUsageEndpoints,
  ...usageEndpoints,
  ...pipelineEndpoints,
  ...deadLetterEndpoints,
  ...auditEndpoints,
  ...archiveAuditEndpoints,
  ...resendEndpoints,
  ...erasureEndpoints,
  ...exportEndpoints,
  ...restoreEndpoints,
];
