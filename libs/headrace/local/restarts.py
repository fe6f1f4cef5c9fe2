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
    """Start nats-server again whenever it has died; clients reconnect, because it keeps its port.

    Raises:
        SetAsideError: it died too often.
    """
    restarts = Restarts()
    while True:
        while server.pid:
            await clock.sleep(LOOK_PAUSE_S)
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
