"""Who is alive: a fold of presence beats. Pure: instants are arguments.

Beats are not stored, so this is about now and begins empty. A process that says goodbye is forgotten; one
that falls silent stays in the list, and in an alert, until it beats again or ten minutes have passed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from headrace.contracts.live import Beat, ServiceRow

FORGET_S: Final = 600.0
PROCESSES_MAX: Final = 1_000


@dataclass(slots=True)
class Process:
    """A process as last heard."""

    beat: Beat
    heard_s: float
    held: int = 0
    silent: bool = False
    """An alert about it stands."""


@dataclass(slots=True)
class Presences:
    """All processes heard of, by instance."""

    processes: dict[str, Process] = field(default_factory=dict)
    refused: int = 0
    """Beats of further processes than PROCESSES_MAX."""


def hear(presences: Presences, beat: Beat, *, now_s: float) -> Process | None:
    """Take one beat. Gives the process whose silence it ends, if there was an alert about it."""
    known = presences.processes.get(beat.instance)
    if beat.leaving:
        presences.processes.pop(beat.instance, None)
        return known if known is not None and known.silent else None
    if known is None and len(presences.processes) >= PROCESSES_MAX:
        presences.refused += 1
        return None
    held = len(beat.full) if beat.full is not None else max(0, (known.held if known else 0) + _change(beat))
    presences.processes[beat.instance] = Process(beat=beat, heard_s=now_s, held=held)
    return known if known is not None and known.silent else None


def _change(beat: Beat) -> int:
    return len(beat.taken) - len(beat.finished)


def fallen_silent(presences: Presences, *, now_s: float, silent_s: float) -> Iterator[Process]:
    """Processes that have been silent too long, each once. The caller raises the alert and sets `silent`."""
    return (
        process
        for process in presences.processes.values()
        if not process.silent and now_s - process.heard_s >= silent_s
    )


def forget(presences: Presences, *, now_s: float) -> list[Process]:
    """Drop and give the processes not heard of for ten minutes."""
    gone = [process for process in presences.processes.values() if now_s - process.heard_s >= FORGET_S]
    for process in gone:
        del presences.processes[process.beat.instance]
    return gone


def service_rows(presences: Presences, *, now_s: float, silent_s: float) -> tuple[ServiceRow, ...]:
    """Every process, by service and instance. One that is silent is not ready, whatever it said last."""
    rows = (
        ServiceRow(
            service=process.beat.service,
            instance=process.beat.instance,
            ready=process.beat.ready and now_s - process.heard_s < silent_s,
            silent_ms=int((now_s - process.heard_s) * 1000),
            version=process.beat.version,
            lag=process.beat.lag,
            held=process.held,
            partitions=process.beat.partitions,
            queues=process.beat.queues,
        )
        for process in presences.processes.values()
    )
    return tuple(sorted(rows, key=lambda row: (row.service, row.instance)))
