"""How many orders may still be offered, over all runs of this scheduler: at most OFFERS_OUT_MAX a tenant and queue.

Orders queue first-in first-out in the broker, so fairness has to be made here: while runs stand in line for a queue,
nobody takes from it except in turn, and a turn is an equal share of what is free.
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
        self.offers_out_max = offers_out_max
        self._out: dict[Key, int] = {}
        self._waiting: dict[Key, OrderedDict[str, Serve]] = {}
        self._turn: tuple[Key, str, int] | None = None
        """At which queue whose turn it is, and how many have to share what is free now."""

    def left(self, tenant: str, run: str) -> dict[str, int]:
        """What a run may still offer, by queue. A queue that is not named has all of it left.

        A run that has just had orders come back does not take their places before those who stand in line.
        """
        left = {queue: self.offers_out_max - out for (owner, queue), out in self._out.items() if owner == tenant}
        for (owner, queue), line in self._waiting.items():
            if owner != tenant:
                continue
            if self._turn is not None and self._turn[:2] == ((owner, queue), run):
                left[queue] = -(-left.get(queue, self.offers_out_max) // self._turn[2])
            elif line:
                left[queue] = 0
        return left

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
        """Call those who wait for queues that have room, each at most once, the longest first."""
        if self._turn is not None:
            return  # another partition is serving
        for key, line in list(self._waiting.items()):
            for sharers in range(len(line), 0, -1):
                if not line or self._out.get(key, 0) >= self.offers_out_max:
                    break
                await self._serve_first(key, line, sharers)
            if not line:
                self._waiting.pop(key, None)

    async def _serve_first(self, key: Key, line: "OrderedDict[str, Serve]", sharers: int) -> None:
        run, serve = line.popitem(last=False)
        self._turn = (key, run, sharers)
        try:
            await serve()
        except BaseException:
            line[run] = serve  # it keeps its place: nothing was offered
            line.move_to_end(run, last=False)
            raise
        finally:
            self._turn = None
