"""When to start a dead child again, and when to give up; and the one child that everybody needs, kept running."""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from headrace.contracts.errors import HeadraceError, UnavailableError
from headrace.local.nats_server import NatsServer
from headrace.runtime.clock import Clock

log = logging.getLogger("headrace.local")

NATS_SERVER: Final = "nats-server"
LOOK_PAUSE_S: Final = 0.05
RESTART_FIRST_S: Final = 0.1
RESTART_MAX_S: Final = 5.0
HEALTH_EVERY_S: Final = 2.0
WRITE_ERROR: Final = "write error"
"""In a sick server's own words: a stream that could not be written, e.g. because the disk was full, stays so until the
server starts again, however much room there is by then."""
ROOM_BYTES_MIN: Final = 16 * 1024 * 1024
"""Free before a start makes sense; less would be full again at once."""
CRASHES_MAX: Final = 5
CRASH_WINDOW_S: Final = 60.0

Tell = Callable[[str], None]
"""Takes a line for people."""


class SetAsideError(UnavailableError):
    """A child died too often to be started again."""

    def __init__(self, name: str, *, ended_as: str) -> None:
        super().__init__(
            f"{name}: {CRASHES_MAX} deaths within {CRASH_WINDOW_S:g} s, the last with {ended_as}; it is set aside"
        )


@dataclass(slots=True)
class Restarts:
    """When a unit died. Pure: instants come from outside."""

    at_s: deque[float] = field(default_factory=deque)

    def pause_s(self, now_s: float) -> float | None:
        """How long to wait before starting it again after a death now; None when it is set aside."""
        while self.at_s and self.at_s[0] <= now_s - CRASH_WINDOW_S:
            self.at_s.popleft()
        self.at_s.append(now_s)
        if len(self.at_s) >= CRASHES_MAX:
            return None
        return min(RESTART_MAX_S, RESTART_FIRST_S * float(2 ** (len(self.at_s) - 1)))


async def keep_server(server: NatsServer, clock: Clock, tell: Tell) -> None:
    """Start nats-server again whenever it has died, or may write again; clients reconnect, because it keeps its port.

    Raises:
        SetAsideError: it died too often.
    """
    restarts = Restarts()
    while True:
        await _until_ended(server, clock, tell)
        pause_s = restarts.pause_s(clock.monotonic_s())
        if pause_s is None:
            raise SetAsideError(NATS_SERVER, ended_as="an error")
        tell(f"nats-server: ended; starts again in {pause_s:g} s")
        await clock.sleep(pause_s)
        try:
            await server.start()
            tell(f"nats-server: started (pid {server.pid})")
        except HeadraceError as error:
            log.error("nats_server.not_started", exc_info=error)
            tell(f"nats-server: {error}")


async def _until_ended(server: NatsServer, clock: Clock, tell: Tell) -> None:
    """Return when it does not run: it has died, or could not write and was stopped once there was room."""
    looked_s, told = clock.monotonic_s(), False
    while server.pid:
        await clock.sleep(LOOK_PAUSE_S)
        if clock.monotonic_s() - looked_s < HEALTH_EVERY_S:
            continue
        looked_s, why = clock.monotonic_s(), await server.health()
        if WRITE_ERROR not in why:
            continue
        if not told:
            tell(f"nats-server: cannot write; all goes on when there is room on the disk: {why}")
            told = True
        if server.free_bytes() >= ROOM_BYTES_MIN:
            await server.stop()
