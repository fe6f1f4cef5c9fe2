"""The only place that starts tasks: named children of one group, restarted within bounds, never lost.

`start` is for what must go on: a child has a name and a policy, and is restarted at most `restarts_max`
times in `window_s`; one time more and the supervisor fails with the cause, everything it supervises is
cancelled, and the process ends so that its own supervisor can begin afresh. `spawn` is for work that comes
and goes by the thousand: a strong reference and a report of how it ended, nothing else.

No task may vanish. A child that ends by a cancellation nobody asked for (it awaited something that was
cancelled) has crashed like any other.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Collection, Coroutine
from types import TracebackType
from typing import Any, Final, Literal, Self

from headrace.contracts import names
from headrace.contracts.errors import HeadraceError
from headrace.runtime.clock import Clock

log = logging.getLogger("headrace.supervisor")

Policy = Literal["permanent", "transient", "temporary"]
"""`permanent`: restarted however it ends. `transient`: restarted when it fails. `temporary`: never
restarted, its
failure is reported and concerns nobody else."""
Factory = Callable[[], Coroutine[Any, Any, None]]

RESTART_DELAY_S: Final = 0.05
"""First pause before a restart; doubles with each restart in the window, so that three restarts outlast a
hiccup of a
third of a second and a broken child still ends the process within one."""
STOP_CHILD_S: Final = 5.0
"""How long one child may take to obey its cancellation before stopping goes on without it."""

CANCELS_MAX: Final = 5
"""Times a task is cancelled within STOP_CHILD_S. A clean-up that takes up to a second is not disturbed."""


class SupervisionError(HeadraceError):
    """A child failed more often than its restarts allow. `__cause__` is its last error; exit code 70."""

    code = "supervision"

    def __init__(self, child: str, restarts: int) -> None:
        self.child = child
        super().__init__(f"{child} failed again after {restarts} restarts")


class ChildEndedError(HeadraceError):
    """A child ended without an error although it must not: it returned, or was cancelled by nobody."""

    code = "child_ended"


class Child:
    """A running child. Keep it to stop it alone; the supervisor keeps it anyway."""

    def __init__(self, name: str, factory: Factory, policy: Policy) -> None:
        self.name, self.factory, self.policy = name, factory, policy
        self.restarted_at_s: deque[float] = deque()
        self.task: asyncio.Task[None] | None = None

    @property
    def done(self) -> bool:
        """True when it has ended and will not be restarted."""
        return self.task is not None and self.task.done()

    def cancel(self) -> None:
        """Ask it to end for good; returns at once. Idempotent."""
        if self.task is not None:
            self.task.cancel()


class Supervisor:
    """Use as `async with Supervisor(clock) as supervisor:`; children may be started at any time inside.

    Leaving the block stops all children, the last started first. Where a child has used up its restarts,
    the block's body is cancelled and the block raises SupervisionError.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        restarts_max: int = names.RESTARTS_MAX,
        window_s: float = names.RESTARTS_WINDOW_S,
    ) -> None:
        self._clock, self._restarts_max, self._window_s = clock, restarts_max, window_s
        self._group: asyncio.TaskGroup | None = None
        self._children: dict[str, Child] = {}
        self._spawned: set[asyncio.Task[Any]] = set()
        self.crashes: Counter[str] = Counter()
        """Failures by name of child or spawned work, restarts included. Metrics read it."""

    @property
    def running(self) -> bool:
        """True inside the block."""
        return self._group is not None

    @property
    def children(self) -> tuple[Child, ...]:
        """Living children in the order they were started."""
        return tuple(child for child in self._children.values() if not child.done)

    @property
    def spawned(self) -> int:
        """Number of spawned tasks that have not ended."""
        return len(self._spawned)

    async def __aenter__(self) -> Self:
        assert self._group is None, "a supervisor is entered once"
        self._group = await asyncio.TaskGroup().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._group is not None
        group = self._group
        try:
            await self._stop_all()
        finally:
            self._group = None
            try:
                await group.__aexit__(kind, error, trace)
            except BaseExceptionGroup as failures:
                raise _first(failures) from _first(failures).__cause__

    def start(self, name: str, factory: Factory, policy: Policy = "permanent") -> Child:
        """The child, running from the next turn of the loop on. `factory` is called again for every restart.

        Raises:
            ValueError: a child of this name is alive.
            RuntimeError: outside the block.
        """
        if self._group is None:
            msg = f"{name}: the supervisor is not running"
            raise RuntimeError(msg)
        old = self._children.get(name)
        if old is not None and not old.done:
            msg = f"a child named {name!r} is alive"
            raise ValueError(msg)
        child = Child(name, factory, policy)
        child.task = self._group.create_task(self._keep(child), name=name)
        self._children[name] = child
        child.task.add_done_callback(lambda _: self._forget(child))
        return child

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """The task of temporary work. Its failure is logged and counted under `name` and concerns nobody
        else.

        The caller may cancel the task. It may be called outside the block as well, e.g. while stopping.
        """
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._spawned.add(task)
        task.add_done_callback(self._spawn_ended)
        return task

    async def stop_child(self, child: Child) -> None:
        """Cancel one child and wait until it has ended, at most STOP_CHILD_S."""
        if child.task is not None:
            await _cancel((child.task,))

    async def _stop_all(self) -> None:
        for child in reversed(self.children):
            await self.stop_child(child)
        await _cancel([task for task in self._spawned if task is not asyncio.current_task()])

    def _forget(self, child: Child) -> None:
        if self._children.get(child.name) is child:
            del self._children[child.name]

    async def _keep(self, child: Child) -> None:
        """Run the child, again and again as its policy says."""
        me = asyncio.current_task()
        assert me is not None
        while True:
            error: Exception | None = None
            try:
                await child.factory()
            except asyncio.CancelledError as cancelled:
                if me.cancelling():
                    raise
                error = ChildEndedError(f"{child.name} was cancelled by nobody")
                error.__cause__ = cancelled
            except Exception as failure:  # noqa: BLE001 - each failure counts, and all are reported below
                error = failure
            if me.cancelling() or (error is None and child.policy != "permanent"):
                if error is not None:
                    self._count(child.name, error)
                return
            error = error or ChildEndedError(f"{child.name} returned")
            if child.policy == "temporary":
                self._count(child.name, error)
                return
            await self._pause_before_restart(child, error)

    async def _pause_before_restart(self, child: Child, error: Exception) -> None:
        """Count and report the failure; raise when the restarts are used up."""
        self.crashes[child.name] += 1
        now = self._clock.monotonic_s()
        while child.restarted_at_s and child.restarted_at_s[0] <= now - self._window_s:
            child.restarted_at_s.popleft()
        restarts = len(child.restarted_at_s)
        if restarts >= self._restarts_max:
            raise SupervisionError(child.name, restarts) from error
        child.restarted_at_s.append(now)
        log.error("task.restarts", extra={"task": child.name, "restart": restarts + 1}, exc_info=error)
        await self._clock.sleep(RESTART_DELAY_S * 2**restarts)

    def _spawn_ended(self, task: asyncio.Task[Any]) -> None:
        self._spawned.discard(task)
        if task.cancelled():
            if not task.cancelling():
                self._count(task.get_name(), ChildEndedError(f"{task.get_name()} was cancelled by nobody"))
            return
        error = task.exception()
        if error is not None:
            self._count(task.get_name(), error)

    def _count(self, name: str, error: BaseException) -> None:
        self.crashes[name] += 1
        log.error("task.failed", extra={"task": name}, exc_info=error)


async def _cancel(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel, again and again, and wait at most STOP_CHILD_S.

    Once is not enough: `asyncio.wait_for` of Python 3.11 forgets a cancellation that arrives together with its result.
    """
    left = {task for task in tasks if not task.done()}
    for _ in range(CANCELS_MAX):
        for task in left:
            task.cancel()
        if not left:
            return
        _, left = await asyncio.wait(left, timeout=STOP_CHILD_S / CANCELS_MAX)
    for task in left:
        log.error("task.ignores_cancel", extra={"task": task.get_name(), "waited_s": STOP_CHILD_S})


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure that began it: a supervision error if there is one, else the first leaf."""
    leaves: list[BaseException] = []
    pending: list[BaseException] = [failures]
    while pending:
        error = pending.pop(0)
        if isinstance(error, BaseExceptionGroup):
            pending.extend(error.exceptions)
        else:
            leaves.append(error)
    return next((leaf for leaf in leaves if isinstance(leaf, SupervisionError)), leaves[0])
