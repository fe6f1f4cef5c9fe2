"""How many orders may still be offered, over all runs of this scheduler: at most OFFERS_OUT_MAX a tenant and
queue.

Orders queue first-in first-out in the broker, so fairness has to be made here: runs that found no room wait in
line, and the line is served round robin.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable

from headrace.contracts import names

Key = tuple[str, str]
"""(tenant, queue)."""
Serve = Callable[[], Awaitable[None]]


class Room:
    """Offers that are out, and who waits for some to come back."""

    def __init__(self, offers_out_max: int = names.OFFERS_OUT_MAX) -> None:
        self._max = offers_out_max
        self._out: dict[Key, int] = {}
        self._waiting: dict[Key, OrderedDict[str, Serve]] = {}

    def left(self, tenant: str) -> dict[str, int]:
        """What may still be offered, by queue. A queue that is not named has all of it left."""
        return {queue: self._max - out for (owner, queue), out in self._out.items() if owner == tenant}

    def count(self, tenant: str, before: dict[str, int], after: dict[str, int]) -> None:
        """A run's orders in flight went from `before` to `after`."""
        for queue in before.keys() | after.keys():  # order does not matter: each queue is counted alone
            change = after.get(queue, 0) - before.get(queue, 0)
            if change:
                self._out[(tenant, queue)] = self._out.get((tenant, queue), 0) + change

    def wait(self, tenant: str, queues: set[str], run: str, serve: Serve) -> None:
        """Stand in line; `serve` is called once there is room. Standing twice is standing once."""
        for queue in queues:
            self._waiting.setdefault((tenant, queue), OrderedDict()).setdefault(run, serve)

    async def serve(self) -> None:
        """Call those who wait for queues that have room, each at most once."""
        for key, line in list(self._waiting.items()):
            for _ in range(min(len(line), self._max - self._out.get(key, 0))):
                if not line:
                    break
                _, serve = line.popitem(last=False)
                await serve()
            if not line:
                self._waiting.pop(key, None)
