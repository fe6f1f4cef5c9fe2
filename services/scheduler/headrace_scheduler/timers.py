"""When runs have to be looked at again though nothing arrives: one heap per owned partition. Pure."""

from collections.abc import Iterator
from heapq import heappop, heappush

from headrace_scheduler.entries import Entry


class Timers:
    """Due instants of runs. A run has one; older entries of the heap are skipped when they come up."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, str]] = []

    @property
    def next_ms(self) -> int | None:
        """The earliest instant; None without any. It may be an old one."""
        return self._heap[0][0] if self._heap else None

    def arm(self, entry: Entry, due_ms: int | None) -> None:
        """Look at the run again at this instant, and at none before."""
        entry.due_ms = due_ms
        if due_ms is not None:
            heappush(self._heap, (due_ms, entry.run.run))

    def pop_due(self, entries: dict[str, Entry], now_ms: int) -> Iterator[str]:
        """The runs whose instant has come, each disarmed."""
        while self._heap and self._heap[0][0] <= now_ms:
            due_ms, run = heappop(self._heap)
            entry = entries.get(run)
            if entry is not None and entry.due_ms == due_ms:
                entry.due_ms = None
                yield run
