"""An event loop with virtual time and no selector: the same seed runs the same callbacks in the same order.

Every callback belongs to the process whose context it was scheduled in. A process that is held (frozen, or dead until
the end of the world) runs nothing: its callbacks are put aside, timers when they are due.
"""

import asyncio
import contextvars
import random
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from heapq import heapify, heappop, heappush
from typing import Any, Final

STEPS_MAX: Final = 3_000_000
"""Callbacks of one simulation; a busy seed takes 100,000."""
CANCELLED_TIMERS_MAX: Final = 512
SHUFFLED_MAX: Final = 6
"""How many callbacks that are ready compete to be next when the order is shuffled."""


class Process:
    """What a callback belongs to: one start of a host, until it dies."""

    __slots__ = ("held", "holding", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.holding = False
        self.held: deque[SimHandle] = deque()


PROCESS: Final[contextvars.ContextVar[Process | None]] = contextvars.ContextVar("process", default=None)


class DeadlockError(Exception):
    """Nothing is ready and no timer is set: what is awaited never comes."""


class RunawayError(Exception):
    """More callbacks than any sound simulation needs."""


class SimHandle:
    """As asyncio.Handle and asyncio.TimerHandle, without what only debugging needs: half the cost."""

    __slots__ = ("_loop", "_when", "args", "callback", "cancelled_", "context", "scheduled")

    def __init__(
        self, loop: "SimLoop", callback: Callable[..., Any], args: tuple[Any, ...], context: contextvars.Context | None
    ) -> None:
        self._loop, self.callback, self.args = loop, callback, args
        self.context = contextvars.copy_context() if context is None else context
        self.cancelled_ = self.scheduled = False
        self._when = 0.0

    def cancel(self) -> None:
        """See asyncio."""
        if not self.cancelled_:
            self.cancelled_ = True
            self.callback, self.args = _nothing, ()
            if self.scheduled:
                self._loop.timer_cancelled()

    def cancelled(self) -> bool:
        """See asyncio."""
        return self.cancelled_

    def when(self) -> float:
        """See asyncio."""
        return self._when


def _nothing() -> None:
    """What a cancelled callback does."""


class SimTask(asyncio.Task[Any]):
    """A task whose place in a set does not depend on its address."""

    def __init__(self, coro: Coroutine[Any, Any, Any], *, number: int, loop: "SimLoop", **given: Any) -> None:
        self.number = number
        super().__init__(coro, loop=loop, **given)

    def __hash__(self) -> int:
        return self.number


class SimLoop(asyncio.BaseEventLoop):
    """Runs until told to stop; time passes only when nothing is ready.

    Args:
        shuffle: Draws which of the ready callbacks is next; None keeps their order.
    """

    def __init__(self, *, shuffle: random.Random | None = None) -> None:
        super().__init__()
        self._now_s = 0.0
        self._queue: deque[SimHandle] = deque()
        self._timers: list[tuple[float, int, SimHandle]] = []
        self._count = self._tasks_made = self._cancelled = 0
        self.shuffle = shuffle
        self.steps = 0

    def time(self) -> float:
        """Virtual seconds since the beginning."""
        return self._now_s

    def call_soon(  # type: ignore[override]  # what asyncio asks of a handle, it has
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> SimHandle:
        """See asyncio."""
        handle = SimHandle(self, callback, args, context)
        self._queue.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]  # there are no threads

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> SimHandle:
        """See asyncio. Timers of one instant fire in the order in which they were set."""
        timer = SimHandle(self, callback, args, context)
        timer._when, timer.scheduled = when, True
        self._count += 1
        heappush(self._timers, (when, self._count, timer))
        return timer

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> SimHandle:
        """See asyncio."""
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def create_task(  # type: ignore[override]  # generators are no coroutines any more
        self, coro: Coroutine[Any, Any, Any], *, name: object = None, context: contextvars.Context | None = None
    ) -> SimTask:
        """See asyncio."""
        self._tasks_made += 1
        return SimTask(coro, number=self._tasks_made, loop=self, name=name, context=context)

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Threads are a source of chance: the work is done here and now."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it belongs to whoever awaits the future
            future.set_exception(error)
        return future

    def release(self, process: Process) -> None:
        """What a process had put aside is ready, in its order."""
        process.holding = False
        self._queue.extend(process.held)
        process.held.clear()

    def run_forever(self) -> None:
        """Turn until `stop`.

        Raises: DeadlockError, RunawayError.
        """
        self._check_closed()  # type: ignore[attr-defined]  # as BaseEventLoop.run_forever does
        self._check_running()  # type: ignore[attr-defined]
        self._thread_id = threading.get_ident()
        asyncio._set_running_loop(self)
        try:
            while not self._stopping:  # type: ignore[has-type]
                self._turn()
        finally:
            self._stopping = False
            self._thread_id = None  # type: ignore[assignment]
            asyncio._set_running_loop(None)

    def _turn(self) -> None:
        queue = self._queue
        if not queue:
            self._advance()
        if self.shuffle is not None and len(queue) > 1:
            queue.rotate(-self.shuffle.randrange(min(len(queue), SHUFFLED_MAX)))
        while queue:
            handle = queue.popleft()
            if handle.cancelled_:
                continue
            process = handle.context.get(PROCESS)
            if process is not None and process.holding:
                process.held.append(handle)
                continue
            self.steps += 1
            if self.steps > STEPS_MAX:
                queue.appendleft(handle)
                msg = f"{STEPS_MAX} callbacks by {self._now_s:.3f} s; next is {handle.callback!r}"
                raise RunawayError(msg)
            self._run(handle)
            return

    def _run(self, handle: SimHandle) -> None:
        try:
            handle.context.run(handle.callback, *handle.args)
        except Exception as error:  # noqa: BLE001 - as asyncio: it is reported, the loop goes on
            message = f"Exception in callback {handle.callback!r}"
            self.call_exception_handler({"message": message, "exception": error})

    def _advance(self) -> None:
        """Go to the next instant at which a timer is due, and make all of that instant ready."""
        timers = self._timers
        while timers and timers[0][2].cancelled_:
            heappop(timers)
            self._cancelled -= 1
        if not timers:
            msg = f"at {self._now_s:.3f} s nothing is ready and no timer is set"
            raise DeadlockError(msg)
        now_s = self._now_s = max(self._now_s, timers[0][0])
        while timers and timers[0][0] <= now_s:
            timer = heappop(timers)[2]
            if timer.cancelled_:
                self._cancelled -= 1
            else:
                timer.scheduled = False
                self._queue.append(timer)

    def timer_cancelled(self) -> None:
        """Called by timers. Most are deadlines that are cancelled long before they are due."""
        self._cancelled += 1
        if self._cancelled > CANCELLED_TIMERS_MAX and self._cancelled * 2 > len(self._timers):
            self._timers = [entry for entry in self._timers if not entry[2].cancelled_]
            heapify(self._timers)
            self._cancelled = 0

    def close(self) -> None:
        """Nothing runs any more."""
        self._queue.clear()
        self._timers.clear()
        super().close()
