"""From start to stop, the same for every service: start → caught up → ready → drain → stop.

`Hosted` is one service in its life cycle, wherever it runs; local mode has five of them in one process.
`serve` adds what a process of its own needs: signals, health over HTTP, an exit code. The process's
supervisor restarts it; nothing in here repairs a service that failed more often than its restarts allow.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from headrace.contracts import names
from headrace.contracts.errors import ConfigError, HeadraceError, UnavailableError
from headrace.runtime.clock import Clock
from headrace.runtime.eventlog import Broker
from headrace.runtime.loop import run as run_loop
from headrace.runtime.supervisor import SupervisionError, Supervisor

log = logging.getLogger("headrace.harness")

Phase = Literal["starting", "catching-up", "serving", "draining", "stopped"]

HEARTBEAT_S: Final = 0.25
"""How often the event loop shows that it turns, and readiness is looked at."""
READY_STEADY_S: Final = 1.0
"""Readiness changes only after the new answer has stood this long, so that a hiccup does not make it flap."""
START_DEADLINE_S: Final = 60.0
"""For connecting subscriptions and the like. Catching up may take longer; the startup probe bounds that."""
STOP_DEADLINE_S: Final = 10.0
"""What a pod's grace period leaves after the drain."""


class Service(Protocol):
    """What the harness asks of a service. Its long-running parts are children of the supervisor it was
    given."""

    @property
    def name(self) -> str:
        """E.g. `tool-registry`."""
        ...

    @property
    def caught_up(self) -> bool:
        """True once the fold has read what was stored when it began."""
        ...

    @property
    def ready(self) -> bool:
        """False while it should not be given work for reasons of its own, e.g. its lag is over the bound."""
        ...

    async def start(self) -> None:
        """Start the parts; returns without waiting for the fold."""
        ...

    async def drain(self) -> None:
        """Take no more work and finish, or hand back, what is in hand. Cut short after `drain_s`."""
        ...

    async def stop(self) -> None:
        """Let go of everything. Idempotent; also called when `start` or `drain` failed."""
        ...


class Hosted:
    """One service in its life cycle. Its supervisor is running while this is used."""

    def __init__(
        self,
        service: Service,
        *,
        supervisor: Supervisor,
        broker: Broker,
        clock: Clock,
        drain_s: float = names.DRAIN_S,
    ) -> None:
        self.service, self._supervisor, self._broker, self._clock = service, supervisor, broker, clock
        self._drain_s = drain_s
        self.phase: Phase = "starting"
        self._beat_s = clock.monotonic_s()
        self._steady = self._was_ready = False
        self._changing_since_s: float | None = None
        self.loop_lag_s = 0.0

    @property
    def live(self) -> bool:
        """The event loop's heartbeat is younger than LIVENESS_S. Asks nothing else."""
        return self._clock.monotonic_s() - self._beat_s < names.LIVENESS_S

    @property
    def started(self) -> bool:
        """It has caught up at least once."""
        return self.phase in ("serving", "draining")

    @property
    def ready(self) -> bool:
        """Caught up, connected, not draining; steady, so that a hiccup of a second is not seen."""
        return self.phase == "serving" and self._steady

    def describe(self) -> dict[str, Any]:
        """The same, with reasons."""
        return {
            "service": self.service.name,
            "phase": self.phase,
            "connected": self._broker.connected,
            "caught_up": self.service.caught_up,
            "loop_lag_ms": round(self.loop_lag_s * 1000, 1),
            "crashes": dict(self._supervisor.crashes),
        }

    async def start(self) -> None:
        """Start the service; it catches up on its own.

        Raises:
            UnavailableError: it did not start within START_DEADLINE_S.
        """
        self._supervisor.start(f"{self.service.name}.heartbeat", self._beat_for_ever)
        log.info("service.starts", extra={"service": self.service.name})
        try:
            async with asyncio.timeout(START_DEADLINE_S):
                await self.service.start()
        except TimeoutError:
            msg = f"{self.service.name}: not started within {START_DEADLINE_S} s"
            raise UnavailableError(msg) from None
        self.phase = "catching-up"
        self._look()

    async def wait_until_ready(self, *, within_s: float) -> None:
        """Return when it is ready.

        Raises:
            UnavailableError: it is not, after `within_s`.
        """
        until_s = self._clock.monotonic_s() + within_s
        while not self.ready:
            if self._clock.monotonic_s() > until_s:
                msg = f"not ready within {within_s} s: {self.describe()}"
                raise UnavailableError(msg)
            self._look()
            await self._clock.sleep(0.01)

    async def shut_down(self) -> None:
        """Not ready → drain, at most `drain_s` → stop. Idempotent."""
        if self.phase == "stopped":
            return
        self.phase = "draining"
        log.info("service.drains", extra={"service": self.service.name, "at_most_s": self._drain_s})
        try:
            async with asyncio.timeout(self._drain_s):
                await self.service.drain()
        except TimeoutError:
            log.warning("service.drain_cut_short", extra={"service": self.service.name})
        finally:
            await self.abandon()

    async def abandon(self) -> None:
        """Stop without draining, at most STOP_DEADLINE_S. Idempotent."""
        if self.phase == "stopped":
            return
        self.phase = "stopped"
        try:
            async with asyncio.timeout(STOP_DEADLINE_S):
                await self.service.stop()
        except TimeoutError:
            log.error("service.stop_cut_short", extra={"service": self.service.name})
        log.info("service.stopped", extra={"service": self.service.name})

    async def _beat_for_ever(self) -> None:
        while True:
            self._look()
            before_s = self._clock.monotonic_s()
            await self._clock.sleep(HEARTBEAT_S)
            self.loop_lag_s = max(0.0, self._clock.monotonic_s() - before_s - HEARTBEAT_S)

    def _look(self) -> None:
        """Note that the loop turns, and whether the service is fit to be given work."""
        now = self._beat_s = self._clock.monotonic_s()
        if self.phase == "catching-up" and self.service.caught_up:
            self.phase = "serving"
            log.info("service.caught_up", extra={"service": self.service.name})
        fit = self._broker.connected and self.service.caught_up and self.service.ready
        if fit == self._steady:
            self._changing_since_s = None
        elif fit and not self._was_ready:
            self._steady = self._was_ready = True
            log.info("service.ready", extra=self.describe())
        elif self._changing_since_s is None:
            self._changing_since_s = now
        elif now - self._changing_since_s >= READY_STEADY_S:
            self._steady, self._changing_since_s = fit, None
            log.info("service.ready" if fit else "service.not_ready", extra=self.describe())


@dataclass(frozen=True, slots=True)
class Options:
    """How a process serves."""

    drain_s: float = names.DRAIN_S
    health_host: str = "127.0.0.1"
    health_port: int = 0
    """0: no HTTP."""
    is_lost: Callable[[], bool] = field(default=lambda: False)
    """True once the broker connection is closed for ever; only a new process helps then."""


async def serve(service: Service, *, supervisor: Supervisor, broker: Broker, clock: Clock, options: Options) -> int:
    """Run a service until SIGTERM or SIGINT; gives the exit code 0. A second signal ends the process at once.

    Raises:
        SupervisionError: a part failed more often than its restarts allow.
        UnavailableError: the broker connection is closed for ever, or the service did not start.
    """
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for number in numbers:
        loop.add_signal_handler(number, _on_signal, number, asked)
    hosted = Hosted(service, supervisor=supervisor, broker=broker, clock=clock, drain_s=options.drain_s)
    last_resort: asyncio.TimerHandle | None = None
    try:
        async with supervisor:
            if options.health_port:
                from headrace.runtime.health import health_app, serve_http  # a web server: not for a local run

                app = health_app(hosted, supervisor)
                supervisor.start("health", lambda: serve_http(app, host=options.health_host, port=options.health_port))
            try:
                await hosted.start()
                await _until_asked(asked, options, clock)
            except BaseException:  # a part is broken and the others are cancelled: nothing can be drained
                last_resort = loop.call_later(2 * STOP_DEADLINE_S, _give_up)
                await hosted.abandon()
                raise
            last_resort = loop.call_later(options.drain_s + 2 * STOP_DEADLINE_S, _give_up)
            await hosted.shut_down()
    finally:
        if last_resort is not None:
            last_resort.cancel()
        for number in numbers:
            loop.remove_signal_handler(number)
    return names.EXIT_OK


async def _until_asked(asked: asyncio.Event, options: Options, clock: Clock) -> None:
    while not asked.is_set():
        if options.is_lost():
            msg = "the broker connection is closed for ever"
            raise UnavailableError(msg)
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                await asked.wait()
        except TimeoutError:
            continue


def _on_signal(number: signal.Signals, asked: asyncio.Event) -> None:
    if asked.is_set():
        log.warning("service.ends_at_once", extra={"signal": number.name})
        logging.shutdown()
        os._exit(128 + number)
    log.info("service.asked_to_stop", extra={"signal": number.name})
    asked.set()


def _give_up() -> None:
    """Something ignores its cancellation: the process ends all the same, before it is killed."""
    log.critical("service.stuck", extra={"code": names.EXIT_BUG})
    logging.shutdown()
    os._exit(names.EXIT_BUG)


def _exit_code(error: HeadraceError) -> int:
    """A part that fails because of its configuration, e.g. a port that is taken, ends as 78 and not as our bug."""
    if isinstance(error, SupervisionError) and isinstance(error.__cause__, ConfigError):
        return error.__cause__.exit_code
    return error.exit_code


def run_process(main: Callable[[], Awaitable[int]]) -> int:
    """Run a service's `main` to its exit code. Whatever ends it is its last log line.

    Configuration errors end as 78, an unreachable broker as 69, our own failures as 70.
    """

    async def awaited() -> int:
        return await main()

    try:
        return run_loop(awaited())
    except HeadraceError as error:
        code = _exit_code(error)
        log.critical("service.failed", extra={"code": error.code, "exit": code}, exc_info=error)
        return code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        log.critical("service.failed", extra={"code": "internal", "exit": names.EXIT_BUG}, exc_info=error)
        return names.EXIT_BUG
    finally:
        sys.stderr.flush()
