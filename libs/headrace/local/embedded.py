"""The whole system in one process: a nats-server child and the five services, over one data directory.

Each service is hosted as in a process of its own: its own connection, its own supervisor. One that fails more often
than its restarts allow is made afresh, within the bounds of the supervisor above it.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from headrace.contracts import names
from headrace.contracts.errors import ConfigError, UnavailableError
from headrace.local.datadir import Endpoint, endpoint_file, lock, preferred_port, remember_port
from headrace.local.nats_server import SYNC_ALWAYS, SYNC_D0, NatsServer
from headrace.local.restarts import keep_server
from headrace.pipeline.builtin_tools import builtin_tools
from headrace.runtime.clock import Clock, SystemClock
from headrace.runtime.config import Settings, load
from headrace.runtime.entropy import Entropy, SystemEntropy
from headrace.runtime.eventlog import Broker
from headrace.runtime.harness import Hosted, Service
from headrace.runtime.jetstream import JetStreamBroker, connect
from headrace.runtime.streams import QUEUE_CAP, migrate
from headrace.runtime.supervisor import Child, Supervisor
from headrace_monitor.config import Config as MonitorConfig
from headrace_monitor.service import Monitor
from headrace_scheduler.config import Config as SchedulerConfig
from headrace_scheduler.service import Scheduler
from headrace_session_store.config import Config as SessionStoreConfig
from headrace_session_store.service import SessionStore
from headrace_step_executor.config import Config as ExecutorConfig
from headrace_step_executor.parts import Surroundings, build_executor
from headrace_tool_registry.config import Config as ToolRegistryConfig
from headrace_tool_registry.service import ToolRegistry

log = logging.getLogger("headrace.local")

READY_WITHIN_S: Final = 120.0
"""A long history is read again where its snapshot is missing: two million messages in that time."""
LOOK_PAUSE_S: Final = 0.01
STOP_S: Final = 15.0
"""Beyond the drain: what stopping five services may take before their tasks are cancelled."""
NOT_HERE: Final = frozenset(
    {
        "HEADRACE_NATS_URL",
        "HEADRACE_NATS_CREDS",
        "HEADRACE_NATS_CREDS_FILE",
        "HEADRACE_METRICS_PORT",
        "HEADRACE_HTTP_PORT",
    }
)
"""Of services in processes of their own: the broker is our child, and five services cannot listen on one port."""
C = TypeVar("C", bound=Settings)


@dataclass(slots=True, frozen=True)
class Options:
    """How local mode runs."""

    data_dir: Path
    read_roots: tuple[Path, ...] = ()
    """Directories that tools may read, besides those of HEADRACE_READ_ROOTS."""
    environ: Mapping[str, str] = field(default_factory=dict)
    nats_server: str = ""
    """Path of the executable; empty: the installed one."""
    tell: Callable[[str], None] | None = None
    """Gets a line for people when the broker dies, is started again, or has no room to write."""
    stays: bool = False
    """It is there for others: `headrace up`."""
    drain_s: float = 2.0
    """`headrace run` ends with its run; what a detached one had in hand is handed back to the next call."""


@dataclass(slots=True, frozen=True)
class Local:
    """A running system. `broker` is a connection of the caller's own."""

    broker: JetStreamBroker
    clock: Clock
    entropy: Entropy
    endpoint: Endpoint
    hosts: "Hosts"


def service_environ(options: Options, endpoint: Endpoint) -> dict[str, str]:
    """The environment that services of this system are configured from."""
    kept = {name: text for name, text in options.environ.items() if name not in NOT_HERE}
    roots = [*kept.get("HEADRACE_READ_ROOTS", "").split(os.pathsep), *map(str, options.read_roots)]
    return kept | {
        "HEADRACE_NATS_URL": endpoint.url,
        "HEADRACE_DATA_DIR": str(options.data_dir),
        "HEADRACE_READ_ROOTS": os.pathsep.join(dict.fromkeys(root for root in roots if root)),
        "HEADRACE_DURABILITY": endpoint.durability,
    }


def local_settings(environ: Mapping[str, str]) -> Settings:
    """The shared settings, as every service reads them; what belongs to the services is checked by them.

    Raises:
        ConfigError: a name or value is wrong, or asks for what one machine cannot give.
    """
    settings = load(Settings, environ, service="local")
    if settings.durability == "D2":
        msg = "HEADRACE_DURABILITY: D2 needs three nodes; local mode gives D0 (default) or D1"
        raise ConfigError(msg)
    return settings


def labelled_queues(environ: Mapping[str, str]) -> dict[str, int]:
    """The queues with a label that the executor is to serve, and their caps: local mode makes them.

    Raises:
        ConfigError: its configuration is wrong.
    """
    queues = load(ExecutorConfig, environ, service="step-executor").queues
    return {queue: QUEUE_CAP for queue in queues if queue not in names.QUEUES}


@asynccontextmanager
async def local_server(options: Options, clock: Clock) -> AsyncIterator[tuple[NatsServer, Endpoint]]:
    """The data directory, locked, and a nats-server child over it. `endpoint` lets a second terminal attach.

    Raises:
        ConfigError, InUseError, UnavailableError: see `lock` and `NatsServer.start`.
    """
    durability = local_settings(options.environ).durability or "D0"
    held = await lock(options.data_dir, clock=clock)
    try:
        server = NatsServer(
            options.data_dir / "nats",
            clock=clock,
            sync_interval=SYNC_ALWAYS if durability == "D1" else SYNC_D0,
            port=await preferred_port(options.data_dir, clock=clock),
            binary=options.nats_server or None,
            keep_fds=(held,),
        )
        await server.start()
        try:
            remember_port(options.data_dir, server.port)
            endpoint = Endpoint(
                url=server.url,
                http_url=server.http_url,
                pid=os.getpid(),
                durability=durability,
                stays=options.stays,
            )
            with endpoint_file(options.data_dir, endpoint):
                yield server, endpoint
        finally:
            await server.stop()
    finally:
        os.close(held)


@asynccontextmanager
async def embedded(options: Options) -> AsyncIterator[Local]:
    """The whole system, ready. It stops in order when the block is left.

    Raises:
        ConfigError: the configuration is wrong, or the directory holds streams of another one. InUseError: another
        process uses the data directory. UnavailableError: a part did not come up. SupervisionError: a part failed for
        good.
    """
    clock, entropy = SystemClock(), SystemEntropy()
    async with local_server(options, clock) as (server, endpoint):
        environ = service_environ(options, endpoint)
        broker = await connect(endpoint.url, name="local", clock=clock)
        try:
            await migrate(broker, run_streams=local_settings(environ).run_streams, caps=labelled_queues(environ))
            async with Supervisor(clock) as supervisor:
                tell = partial(_tell, options)
                supervisor.start("watch.nats-server", partial(keep_server, server, clock, tell), "transient")
                hosts = Hosts(environ, clock=clock, entropy=entropy, drain_s=options.drain_s)
                hosts.start(supervisor)
                try:
                    await hosts.until_ready(within_s=READY_WITHIN_S)
                    yield Local(broker=broker, clock=clock, entropy=entropy, endpoint=endpoint, hosts=hosts)
                finally:
                    await hosts.stop()
        finally:
            await broker.close()


def _tell(options: Options, text: str) -> None:
    log.error(text)
    if options.tell is not None:
        options.tell(text)


class Hosts:
    """The five services of one process, each under a supervisor of its own."""

    def __init__(self, environ: Mapping[str, str], *, clock: Clock, entropy: Entropy, drain_s: float) -> None:
        self._environ, self._clock, self._entropy, self._drain_s = environ, clock, entropy, drain_s
        self._builders = _builders(environ, clock, entropy)
        self._stopping = asyncio.Event()
        self._hosted: dict[str, Hosted] = {}
        self._children: list[Child] = []

    @property
    def names(self) -> tuple[str, ...]:
        """Of the services."""
        return tuple(self._builders)

    def start(self, supervisor: Supervisor) -> None:
        """Start all; they come up side by side."""
        for name in self._builders:
            self._children.append(supervisor.start(f"host.{name}", partial(self._host, name), "transient"))

    async def until_ready(self, *, within_s: float) -> None:
        """Return when every service is ready.

        Raises:
            UnavailableError: one is not after `within_s`; the text says which, and why.
        """
        until_s = self._clock.monotonic_s() + within_s
        while True:
            waiting = [name for name in self._builders if name not in self._hosted or not self._hosted[name].ready]
            if not waiting:
                return
            if self._clock.monotonic_s() > until_s:
                known = [self._hosted[name].describe() if name in self._hosted else name for name in waiting]
                msg = f"not ready within {within_s:g} s: {known}"
                raise UnavailableError(msg)
            await self._clock.sleep(LOOK_PAUSE_S)

    async def stop(self) -> None:
        """Drain and stop all, side by side; what does not obey is cancelled by the supervisor."""
        self._stopping.set()
        tasks = [child.task for child in self._children if child.task is not None and not child.task.done()]
        if tasks:
            await asyncio.wait(tasks, timeout=self._drain_s + STOP_S)

    async def _host(self, name: str) -> None:
        """One life of one service."""
        broker = await connect(self._environ["HEADRACE_NATS_URL"], name=name, clock=self._clock)
        try:
            async with Supervisor(self._clock) as supervisor:
                service = self._builders[name](broker, supervisor)
                hosted = Hosted(service, supervisor=supervisor, broker=broker, clock=self._clock, drain_s=self._drain_s)
                self._hosted[name] = hosted
                try:
                    await hosted.start()
                    await self._stopping.wait()
                    await hosted.shut_down()
                finally:
                    await hosted.abandon()
        finally:
            self._hosted.pop(name, None)
            await broker.close()


Builder = Callable[[Broker, Supervisor], Service]


def _builders(environ: Mapping[str, str], clock: Clock, entropy: Entropy) -> dict[str, Builder]:
    """How each service is made: as its own composition root makes it. All configurations are read at once."""

    def config(kind: type[C], service: str) -> C:
        return load(kind, environ, service=service)

    def instance(service: str) -> str:  # every life is a new instance: what an earlier one held is a dead one's
        return f"{service}-{entropy.bits(40):010x}"

    scheduler = config(SchedulerConfig, "scheduler")
    executor = config(ExecutorConfig, "step-executor")
    registry = config(ToolRegistryConfig, "tool-registry")
    sessions = config(SessionStoreConfig, "session-store")
    monitor = config(MonitorConfig, "monitor")

    def make_scheduler(broker: Broker, supervisor: Supervisor) -> Service:
        made = instance("scheduler")
        return Scheduler(broker, supervisor, clock=clock, entropy=entropy, instance=made, config=scheduler)

    def make_executor(broker: Broker, supervisor: Supervisor) -> Service:
        made, around = instance("step-executor"), Surroundings(environ=environ)
        return build_executor(
            broker, supervisor, clock=clock, entropy=entropy, instance=made, config=executor, around=around
        )

    def make_registry(broker: Broker, supervisor: Supervisor) -> Service:
        return ToolRegistry(
            broker,
            supervisor,
            clock=clock,
            entropy=entropy,
            instance=instance("tool-registry"),
            config=registry,
            builtin=builtin_tools(),
        )

    def make_sessions(broker: Broker, supervisor: Supervisor) -> Service:
        made = instance("session-store")
        return SessionStore(broker, supervisor, clock=clock, entropy=entropy, instance=made, config=sessions)

    def make_monitor(broker: Broker, supervisor: Supervisor) -> Service:
        made = instance("monitor")
        return Monitor(broker, supervisor, clock=clock, entropy=entropy, instance=made, config=monitor)

    return {
        "scheduler": make_scheduler,
        "step-executor": make_executor,
        "tool-registry": make_registry,
        "session-store": make_sessions,
        "monitor": make_monitor,
    }
