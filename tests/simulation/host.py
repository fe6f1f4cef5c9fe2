"""One process of the simulated world: started, crashed, frozen, thawed, started again with nothing in its memory.

A crash cuts the connection first and then holds everything that the process would still do until the world has ended,
so that no `finally` of a dead process reaches the broker. A freeze is the same with an end: the zombie wakes up with
its callbacks, timers and bytes in the socket's buffer, and believes that no time has passed.
"""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from headrace.runtime.entropy import SeededEntropy
from tests.simulation.loop import PROCESS, Process, SimLoop

if TYPE_CHECKING:
    from tests.simulation.broker import SimBroker, SimServer

EPOCH_MS: Final = 1_764_000_000_000
"""The broker's time when the world begins."""
ENDED_S: Final = 0.5
"""How soon a process that ended by itself is started again."""


class SimClock:
    """As clock.SystemClock, on virtual time: a monotonic clock of its own, and an offset that is learnt."""

    def __init__(self, loop: SimLoop, *, base_s: float = 0.0, wall_error_s: float = 0.0) -> None:
        self._loop, self._base_s = loop, base_s
        self._offset_ms = EPOCH_MS + wall_error_s * 1000
        self._last_ms = 0

    def now_ms(self) -> int:
        """See Clock."""
        self._last_ms = max(self._last_ms, int(self._loop.time() * 1000 + self._offset_ms))
        return self._last_ms

    def monotonic_s(self) -> float:
        """See Clock."""
        return self._base_s + self._loop.time()

    async def sleep(self, seconds: float) -> None:
        """See Clock."""
        await asyncio.sleep(seconds)

    def learn(self, broker_ms: int) -> None:
        """See Clock."""
        self._offset_ms = broker_ms - self._loop.time() * 1000


CONNECT_S: Final = 0.1

Main = Callable[["Host"], Coroutine[Any, Any, None]]


class Host:
    """A place where a process runs, at most one at a time.

    Args:
        main: What a process does until it is killed; it finds `broker`, `clock`, `entropy` and `instance` on the host.
    """

    def __init__(self, loop: SimLoop, server: "SimServer", name: str, main: Main, *, seed: int, wall_error_s: float):
        self.loop, self.server, self.name, self._main, self._seed = loop, server, name, main, seed
        self._wall_error_s = wall_error_s
        self.starts = 0
        self.process: Process | None = None
        self.context = contextvars.Context()
        self.broker: SimBroker
        self.clock: SimClock
        self.entropy: SeededEntropy
        self.instance = ""
        self.service: object = None
        """What the process runs, for whoever looks into a failing world."""
        self._dead: list[Process] = []
        self.disturbed: list[tuple[float, float]] = []
        """When it was frozen: from, until."""
        self.ended: list[BaseException | None] = []
        """How processes that were not killed ended."""

    def start(self) -> None:
        """Start a process here, unless one is there."""
        if self.process is not None:
            return
        if self.server.is_down:  # a process without its broker waits for it before it does anything
            self.loop.call_later(CONNECT_S, self.start, context=contextvars.Context())
            return
        self.starts += 1
        self.process = process = Process(f"{self.name}#{self.starts}")
        self.context = contextvars.Context()
        self.context.run(PROCESS.set, process)
        self.context.run(self._boot, process)

    def _boot(self, process: Process) -> None:
        seed = self._seed * 1000 + self.starts
        self.entropy = SeededEntropy(seed)
        self.clock = SimClock(self.loop, base_s=seed % 997, wall_error_s=self._wall_error_s)
        self.instance = f"{self.name}-{self.entropy.bits(32):08x}"
        self.broker = self.server.connection(self, self.context)
        task = self.loop.create_task(self._main(self), name=self.name, context=self.context)
        task.add_done_callback(lambda done: self._end(process, done), context=contextvars.Context())

    def crash(self, *, restart_s: float) -> None:
        """kill -9, and a new process after a while."""
        process = self.process
        if process is None:
            return
        self.process = None
        self.broker.die()
        process.holding = True
        self._dead.append(process)
        self.loop.call_later(restart_s, self.start, context=contextvars.Context())

    def freeze(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after a while."""
        process = self.process
        if process is None or process.holding:
            return
        process.holding = True
        now_s = self.loop.time()
        self.disturbed.append((now_s, now_s + seconds))
        self.loop.call_later(seconds, self._thaw, process, context=contextvars.Context())

    def heal(self) -> None:
        """It runs, now."""
        if self.process is None:
            self.start()
        elif self.process.holding:
            self._thaw(self.process)

    def bury(self) -> None:
        """The world has ended: whatever was held may clean up. Nothing of it reaches anybody."""
        processes = [*self._dead, *([] if self.process is None else [self.process])]
        if self.process is not None:
            self.broker.die()
        for process in processes:
            self.loop.release(process)
        self._dead.clear()
        self.process = None

    def _thaw(self, process: Process) -> None:
        if process is self.process and process.holding:
            self.loop.release(process)
            began_s, until_s = self.disturbed[-1]
            self.disturbed[-1] = (began_s, min(until_s, self.loop.time()))

    def _end(self, process: Process, task: "asyncio.Task[None]") -> None:
        """A process ended by itself: whatever supervises processes starts another."""
        if process is not self.process:
            if not task.cancelled():
                task.exception()
            return
        self.ended.append(None if task.cancelled() else task.exception())
        self.crash(restart_s=ENDED_S)
