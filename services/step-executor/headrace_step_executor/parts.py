"""The executor put together from its parts: the same way in its own process, in local mode and in tests."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

from headrace.pipeline.builtin_tools import BUILTIN_TOOLS
from headrace.pipeline.price_files import table_of
from headrace.runtime.blobs import BlobCache
from headrace.runtime.clock import Clock
from headrace.runtime.entropy import Entropy
from headrace.runtime.eventlog import Broker
from headrace.runtime.supervisor import Supervisor
from headrace.runtime.threads import DaemonThreads
from headrace_step_executor.attempt import WORKSPACES, Attempts, Places
from headrace_step_executor.breaker_news import BreakerNews
from headrace_step_executor.broker_time import BrokerTime
from headrace_step_executor.config import Config
from headrace_step_executor.guards import Guards
from headrace_step_executor.keeping import Keeping
from headrace_step_executor.providers.protocol import Provider
from headrace_step_executor.providers.registry import Cassettes, Providers
from headrace_step_executor.rendering import Rendering
from headrace_step_executor.secrets import Secrets
from headrace_step_executor.service import Parts, StepExecutor
from headrace_step_executor.state import Catalogue
from headrace_step_executor.tool_calls import ToolCalls
from headrace_step_executor.tools.addresses import allow_list
from headrace_step_executor.tools.call import ToolFunction
from headrace_step_executor.tools.catalogue import builtin_functions
from headrace_step_executor.tools.http import HttpTool


@dataclass(slots=True, frozen=True)
class Surroundings:
    """What differs between a process of its own, local mode, and a test."""

    environ: Mapping[str, str] = field(default_factory=dict)
    """Where provider keys are."""
    tools: Mapping[str, ToolFunction] = field(default_factory=dict)
    """Further tools of this process by name; they come before built-in ones."""
    providers: Mapping[str, Provider] = field(default_factory=dict)
    """Further providers by name."""


def build_executor(
    broker: Broker,
    supervisor: Supervisor,
    *,
    clock: Clock,
    entropy: Entropy,
    instance: str,
    config: Config,
    around: Surroundings | None = None,
) -> StepExecutor:
    """A step executor that is ready to be started.

    Raises:
        ConfigError: its secrets cannot be read.
    """
    around = around or Surroundings()
    threads = DaemonThreads(config.threads, name="executor")
    read_roots = tuple(path.absolute() for path in config.read_roots)
    directory = config.cassette_dir
    cassettes = Cassettes(config.cassette_mode, None if directory is None else directory.absolute())
    providers = Providers(clock, environ=around.environ, read_roots=read_roots, cassettes=cassettes)
    for name, provider in around.providers.items():
        providers.add(name, provider)
    guards = Guards(providers, clock, entropy, places=config.model_in_flight_max)
    catalogue = Catalogue(BUILTIN_TOOLS)
    http = HttpTool(clock, allowed=allow_list(config.http_allow))
    functions = {**builtin_functions(http), **around.tools}
    tools = ToolCalls(broker, catalogue, functions, threads=threads)
    secrets = Secrets(config.secrets_dir, tenant=config.tenant)
    secrets.load()
    rendering = Rendering(BlobCache(broker), threads, workers_max=config.render_workers, secrets=secrets)
    time = BrokerTime(clock)
    attempts = Attempts(
        broker,
        rendering=rendering,
        tools=tools,
        guards=guards,
        clock=clock,
        entropy=entropy,
        instance=instance,
        places=Places(config.absolute_data_dir(), read_roots, time, table_of(config.prices_file)),
    )

    async def close() -> None:
        await rendering.close()
        await providers.close()
        threads.shutdown(wait=False, cancel_futures=True)  # a thread that hangs must not hold the process

    keeping = Keeping(
        broker,
        config.absolute_data_dir() / WORKSPACES,
        clock=clock,
        time=time,
        threads=threads,
        run_streams=config.run_streams,
    )
    parts = Parts(
        attempts=attempts,
        keeping=keeping,
        catalogue=catalogue,
        breakers=BreakerNews(broker, guards, clock, instance=instance, tenant=config.tenant),
        time=time,
        secrets=secrets,
        threads=threads,
        providers=lambda: providers.names,
        close=close,
        version=version("headrace"),
    )
    return StepExecutor(broker, supervisor, clock=clock, entropy=entropy, instance=instance, config=config, parts=parts)
