"""`headrace up --procs`: nats-server and one process a service, each restarted when it dies.

A unit that dies is started again after a pause that doubles; one that dies five times within a minute is set
aside with an error, and the others go on. Children die with this process, whatever ends it.
"""

import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from headrace.local.child import spawn
from headrace.local.embedded import Options, labelled_queues, local_server, local_settings, service_environ
from headrace.local.files import log_file
from headrace.local.nats_server import NatsServer
from headrace.local.restarts import Restarts, SetAsideError, Tell, keep_server
from headrace.runtime.clock import Clock, SystemClock
from headrace.runtime.config import SERVICES
from headrace.runtime.jetstream import connect
from headrace.runtime.streams import migrate
from headrace.runtime.supervisor import Supervisor

LOOK_PAUSE_S: Final = 0.05
STOP_S: Final = 40.0
"""A service drains for at most 30 s by default (an executor for longer, but here its work is handed back)."""


class Unit:
    """One service's process."""

    def __init__(self, name: str, environ: Mapping[str, str], output: Path) -> None:
        self.name, self.output = name, output
        self._environ = environ
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """0 when it does not run."""
        return self._child.pid if self._child is not None and self._child.poll() is None else 0

    @property
    def ended_as(self) -> str:
        """How it ended."""
        code = None if self._child is None else self._child.poll()
        if code is None:
            return "not started"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def start(self) -> None:
        """Start it; it comes up by itself."""
        command = [sys.executable, "-m", "headrace.cli.app", "service", self.name]
        self._child = spawn(command, output=self.output, environ=self._environ)

    def ask_to_stop(self) -> None:
        """SIGTERM: drain and end."""
        if self._child is not None and self.pid:
            self._child.send_signal(signal.SIGCONT)
            self._child.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, and wait: it takes no time."""
        if self._child is not None and self.pid:
            self._child.kill()
            self._child.wait(STOP_S)


@asynccontextmanager
async def processes(options: Options, *, tell: Tell) -> AsyncIterator[list[Unit]]:
    """nats-server and the five services, supervised while the block runs; it stops them in order.

    Args:
        tell: Gets a line for people about every start, death and restart.

    Raises:
        ConfigError, InUseError, UnavailableError: as for `embedded`.
    """
    clock = SystemClock()
    async with local_server(options, clock) as (server, endpoint):
        environ = {"HEADRACE_DRAIN_S": f"{options.drain_s:g}"} | service_environ(options, endpoint)
        await _migrated(endpoint.url, clock, local_settings(environ).run_streams, labelled_queues(environ))
        tell(f"nats-server: {endpoint.url} (pid {server.pid})")
        units = [Unit(name, environ, log_file(options.data_dir, name)) for name in SERVICES]
        async with Supervisor(clock) as supervisor:
            watches = [supervisor.start("watch.nats-server", partial(_watch_server, server, clock, tell), "transient")]
            for unit in units:
                watches.append(supervisor.start(f"watch.{unit.name}", partial(_watch, unit, clock, tell), "transient"))
            try:
                yield units
            finally:
                for watch in watches:
                    await supervisor.stop_child(watch)
                await _stop(units, clock)


async def _migrated(url: str, clock: Clock, run_streams: int, caps: Mapping[str, int]) -> None:
    broker = await connect(url, name="migrate", clock=clock)
    try:
        await migrate(broker, run_streams=run_streams, caps=caps)
    finally:
        await broker.close()


async def _watch(unit: Unit, clock: Clock, tell: Tell) -> None:
    """Keep one service running."""
    restarts = Restarts()
    while True:
        unit.start()
        tell(f"{unit.name}: started (pid {unit.pid})")
        while unit.pid:
            await clock.sleep(LOOK_PAUSE_S)
        pause_s = restarts.pause_s(clock.monotonic_s())
        if pause_s is None:
            tell(f"error: {SetAsideError(unit.name, ended_as=unit.ended_as)}; see {unit.output}")
            return
        tell(f"{unit.name}: ended with {unit.ended_as}; starts again in {pause_s:g} s")
        await clock.sleep(pause_s)


async def _watch_server(server: NatsServer, clock: Clock, tell: Tell) -> None:
    try:
        await keep_server(server, clock, tell)
    except SetAsideError as error:
        tell(f"error: {error}")


async def _stop(units: list[Unit], clock: Clock) -> None:
    for unit in units:
        unit.ask_to_stop()
    until_s = clock.monotonic_s() + STOP_S
    while any(unit.pid for unit in units) and clock.monotonic_s() < until_s:
        await clock.sleep(LOOK_PAUSE_S)
    for unit in units:
        unit.kill()
