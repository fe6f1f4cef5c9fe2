"""The manifest: every stream and every durable that must exist, and the one step that makes them.

`admin migrate` and local mode call `migrate`; services only use what is there. Running it again changes nothing; where
the server has something else, it says what and stops.
"""

from collections.abc import Mapping
from typing import Final

from headrace.contracts import names, subjects
from headrace.runtime.eventlog import Admin, ConsumerSpec, StreamSpec

_MIB: Final = 1024 * 1024
RUNS_BYTES_MAX: Final = 1536 * _MIB
"""All run streams together: about two and a half million steps. The server reserves it, so it must fit the disk; an
event log refuses when it is full rather than forget. Production raises it."""
BLOBS_BYTES_MAX: Final = 1536 * _MIB
COMMANDS_BYTES_MAX: Final = 256 * _MIB
DEAD_BYTES_MAX: Final = 256 * _MIB
CACHE_BYTES_MAX: Final = 64 * _MIB
"""Earlier results by key: a thousand of the largest that are inline. The oldest go first, and are computed again."""
_DAY_S: Final = 86_400.0
OUTCOMES_AGE_S: Final = 7 * _DAY_S
TRIGGERS_AGE_S: Final = 3_600.0
"""Long enough for a restart of all schedulers; a trigger that nobody took in an hour is stale."""
SYSTEM_AGE_S: Final = 30 * _DAY_S
INTAKE_IN_FLIGHT_MAX: Final = 1024
QUEUE_CAP: Final = 1000
"""Attempts of one queue under way at a time in the whole cluster, where no cap is configured."""


def stream_specs(*, run_streams: int = 1, replicas: int = 1) -> tuple[StreamSpec, ...]:
    """All streams, in the order in which they are made."""
    runs = tuple(_run_stream(index, run_streams, replicas) for index in range(run_streams))
    return (
        *runs,
        StreamSpec(
            subjects.COMMANDS,
            ("hr.cmd.>",),
            retention="workqueue",
            max_bytes=COMMANDS_BYTES_MAX,
            discard_new=True,
            replicas=replicas,
        ),
        StreamSpec(subjects.OUTCOMES, ("hr.outcome.>",), max_age_s=OUTCOMES_AGE_S, replicas=replicas),
        StreamSpec(
            subjects.TRIGGERS,
            ("hr.trig.>",),
            retention="workqueue",  # so that what its durable skipped is found: the first message that it still holds
            max_age_s=TRIGGERS_AGE_S,
            replicas=replicas,
        ),
        StreamSpec(subjects.DEFINITIONS, ("hr.def.>",), replicas=replicas),
        StreamSpec(subjects.TOOLS, ("hr.tool.>",), replicas=replicas),
        StreamSpec(subjects.SESSIONS, ("hr.ses.>",), compression=True, replicas=replicas),
        StreamSpec(subjects.SYSTEM, ("hr.sys.>",), max_age_s=SYSTEM_AGE_S, max_msgs_per_subject=1, replicas=replicas),
        StreamSpec(subjects.DEAD, ("hr.dead.>",), max_bytes=DEAD_BYTES_MAX, discard_new=True, replicas=replicas),
        StreamSpec(
            subjects.BLOBS,
            ("hr.blob.>",),
            max_bytes=BLOBS_BYTES_MAX,
            max_msgs_per_subject=1,
            discard_new=True,
            discard_new_per_subject=True,
            replicas=replicas,
        ),
        _bucket(subjects.LEASES, replicas),
        _bucket(subjects.SNAPSHOTS, replicas),
        StreamSpec(
            subjects.CACHE,
            (subjects.kv(subjects.CACHE, ">"),),
            max_age_s=names.DURATION_MS_MAX / 1000,
            max_bytes=CACHE_BYTES_MAX,
            max_msgs_per_subject=1,
            deny_delete=False,
            compression=True,
            replicas=replicas,
        ),
    )


def consumer_specs(caps: Mapping[str, int], *, run_streams: int = 1) -> tuple[ConsumerSpec, ...]:
    """All durables.

    Args:
        caps: For each queue how many attempts may be under way at a time in the whole cluster. A cap is divided among
            the run streams, rounded up.
    """
    queues = dict.fromkeys((*names.QUEUES, *caps))
    orders = tuple(
        ConsumerSpec(
            stream,
            subjects.order_consumer(queue),
            subjects.order_filters(queue),
            ack_wait_s=names.ACK_WAIT_S,
            max_ack_pending=-(-caps.get(queue, QUEUE_CAP) // run_streams),
        )
        for stream in subjects.runs_streams(run_streams)
        for queue in queues
    )
    return (
        *orders,
        ConsumerSpec(
            subjects.COMMANDS,
            subjects.INTAKE_CONSUMER,
            ("hr.cmd.>",),
            ack_wait_s=names.ACK_WAIT_S,
            max_ack_pending=INTAKE_IN_FLIGHT_MAX,
        ),
        ConsumerSpec(
            subjects.TRIGGERS,
            subjects.TRIGGER_CONSUMER,
            ("hr.trig.>",),
            ack_wait_s=names.ACK_WAIT_S,
            max_ack_pending=INTAKE_IN_FLIGHT_MAX,
        ),
    )


async def migrate(
    admin: Admin, *, run_streams: int = 1, replicas: int = 1, caps: Mapping[str, int] | None = None
) -> None:
    """Make every stream and durable, or check it. Any number of processes may do so at once.

    Raises: ConfigError: something exists with another configuration; the text has the difference. Nothing after it was
        made, and running again goes on from there. StorageFullError: the server cannot reserve the space.
    """
    for stream in stream_specs(run_streams=run_streams, replicas=replicas):
        await admin.ensure_stream(stream)
    for consumer in consumer_specs(caps or {}, run_streams=run_streams):
        await admin.ensure_consumer(consumer)


def _run_stream(index: int, run_streams: int, replicas: int) -> StreamSpec:
    """One stream takes everything with one subject; of several each lists its partitions."""
    if run_streams == 1:
        taken: tuple[str, ...] = ("hr.evt.>",)
    else:
        parts = [
            part
            for part in range(names.PARTITIONS)
            if subjects.runs_stream(part, streams=run_streams).endswith(f"_{index}")
        ]
        taken = tuple(subjects.partition_filter(part) for part in parts)
    return StreamSpec(
        f"{subjects.RUNS}_{index}",
        taken,
        max_bytes=RUNS_BYTES_MAX // run_streams,
        discard_new=True,
        compression=True,
        replicas=replicas,
    )


def _bucket(stream: str, replicas: int) -> StreamSpec:
    """A key-value bucket: the newest value of each key, deletable, because it is a cache."""
    return StreamSpec(
        stream,
        (subjects.kv(stream, ">"),),
        max_msgs_per_subject=1,
        deny_delete=False,
        compression=True,
        replicas=replicas,
    )
