"""Names, defaults and bounds, each once. Numbers come from the design's table of names unless a line says otherwise."""

from typing import Final

# --- identity ---------------------------------------------------------------------------------------------------------
TENANT_DEFAULT: Final = "default"
PARTITIONS: Final = 32
"""Fixed for ever: the partition is part of every subject. 32 is more than the replicas anybody runs."""
QUEUES: Final = ("llm", "llm-ws", "tool", "tool-ws", "transform", "transform-ws")
"""`-ws` queues go only to executors that mount the workspaces."""

# --- sizes ------------------------------------------------------------------------------------------------------------
INLINE_BYTES_MAX: Final = 64 * 1024
"""A larger value travels by reference."""
VALUE_BYTES_MAX: Final = 64 * 1024 * 1024
BLOB_CHUNK_BYTES: Final = 1_000_000
"""Just below the broker's default max_payload of 1 MiB, headers included."""
ORDER_BYTES_MAX: Final = 256 * 1024
DECISION_BYTES_MAX: Final = 256 * 1024
DECISION_EVENTS_MAX: Final = 10_000
COMMAND_BYTES_MAX: Final = 512 * 1024
HEADER_BYTES_MAX: Final = 4 * 1024
"""Our own messages carry under 400 bytes of headers; more is a mistake or an attack, and is parked."""
SCHEDULER_ITEMS_MAX: Final = 1_000
"""A transform that reads a longer list is evaluated by an executor."""
FOREACH_ITEMS_MAX: Final = 100_000
ITEMS_PART_MAX: Final = 1_000
"""Results of a longer `foreach` are stored in parts of this many as they finish. As many inline results of 64 KiB are
a blob of 62.6 MiB, which a value may have."""
STEPS_MAX: Final = 10_000
NESTING_MAX: Final = 10

# --- a run's limits ---------------------------------------------------------------------------------------------------
DURATION_MS_MIN: Final = 1
DURATION_MS_MAX: Final = 30 * 24 * 3600 * 1000
ATTEMPT_TIMEOUT_MS: Final = 120_000
STEP_DEADLINE_MS: Final = 3_600_000
RUN_DEADLINE_MS: Final = 24 * 3_600_000
WORKSPACE_RETAIN_MS: Final = DURATION_MS_MAX
"""How long the directory of a run is kept after its end where the pipeline does not say: as long as it may say."""
UNDO_MS: Final = 3_600_000
"""What a run that fails or is cancelled has for undoing what it did; as long as a step has."""
SCHEDULE_TO_START_MS: Final = 600_000
RUN_MAX_PARALLEL: Final = 16
FOREACH_MAX_PARALLEL: Final = 8
RETRY_ATTEMPTS: Final = 5
RETRY_ATTEMPTS_MAX: Final = 100
RETRY_INITIAL_MS: Final = 1_000
RETRY_MAX_MS: Final = 60_000
RETRY_AFTER_MS_MAX: Final = 600_000
"""A provider's Retry-After is a floor up to ten minutes; beyond that it is not believed."""
OUTPUT_TOKENS: Final = 4_096
"""Longest answer of a step under a budget that gives no `max_tokens`: what every model in use can say."""
CONTEXT_TOKENS: Final = 200_000
"""What a call is counted as reading where neither its length nor the model's window is known."""
SIGNALS_MAX: Final = 1_000
"""Signals that one run is sent: each is kept until a step takes it."""
EVENT_HOPS_MAX: Final = 10
"""Events that lead one to another through runs, as deep as child runs nest. A pipeline that triggers itself ends here,
and one that does so twice a run has started a thousand runs by then."""
HOLDERS_LOST_MAX: Final = 3
"""An order whose holder died this often fails the attempt as `executor_lost`: it probably kills its holders."""
OFFERS_OUT_MAX: Final = 512
"""Orders a scheduler keeps offered for one tenant and queue; the rest wait their turn, dealt round robin over runs."""

# --- time on the wire -------------------------------------------------------------------------------------------------
ACK_WAIT_S: Final = 30.0
IN_PROGRESS_S: Final = 10.0
"""A third of ack_wait, so that two lost beats in a row cause no redelivery."""
PUBLISH_DEADLINE_S: Final = 10.0
"""A leader change was measured at 6.1 s; a publish without answer after 10 s is unknown, not failed."""
REQUEST_DEADLINE_S: Final = 5.0
UNKNOWN_RESOLVE_S: Final = 60.0
"""How long an unknown outcome is read back before the run's memory is dropped and reloaded."""
DUPLICATE_WINDOW_S: Final = 120.0
ORDER_FRESH_S: Final = 2.0
RECONNECT_CAUTION_S: Final = 60.0
PRESENCE_BEAT_S: Final = 0.3
PRESENCE_FULL_EVERY: Final = 10
PRESENCE_SILENT_S: Final = 1.2
LEASE_RENEW_S: Final = 0.5
LEASE_SILENT_S: Final = 1.5
SWEEP_S: Final = 30.0
SNAPSHOT_EVERY_S: Final = 10.0
SNAPSHOT_EVERY_EVENTS: Final = 50_000
CONNECT_DEADLINE_S: Final = 30.0

# --- supervision ------------------------------------------------------------------------------------------------------
RESTARTS_MAX: Final = 3
RESTARTS_WINDOW_S: Final = 60.0
DRAIN_S: Final = 30.0
EXECUTOR_DRAIN_S: Final = 300.0
LIVENESS_S: Final = 30.0

# --- exit codes (sysexits) --------------------------------------------------------------------------------------------
EXIT_OK: Final = 0
EXIT_RUN_FAILED: Final = 1
EXIT_USAGE: Final = 64
EXIT_DATA: Final = 65
EXIT_NO_INPUT: Final = 66
EXIT_UNAVAILABLE: Final = 69
EXIT_BUG: Final = 70
EXIT_TRY_LATER: Final = 75
EXIT_DENIED: Final = 77
EXIT_CONFIG: Final = 78
EXIT_DETACHED: Final = 130
EXIT_PIPE: Final = 141
