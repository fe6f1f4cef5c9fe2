"""The system that a command works with here: the one that `headrace up` keeps, else one of its own while it lasts."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from headrace.cli.connection import client_of, connected
from headrace.cli.output import UsageError, note
from headrace.client.client import Client
from headrace.contracts.errors import ConfigError
from headrace.local.datadir import read_endpoint
from headrace.local.embedded import Options, embedded
from headrace.local.files import local_logging
from headrace.runtime.config import Settings
from headrace.runtime.eventlog import Broker
from headrace_step_executor.providers.keys import missing as missing_provider


@dataclass(slots=True, frozen=True)
class Here:
    """A system that runs in a data directory."""

    broker: Broker
    client: Client
    attached: bool
    """`headrace up` keeps it: it goes on when the command has ended."""


@asynccontextmanager
async def system_here(
    settings: Settings, *, granted: tuple[Path, ...], models: set[str], more: bool = False, nats_server: str = ""
) -> AsyncIterator[Here]:
    """Bring the system up, or attach to what runs in `settings.data_dir`; ended or left at the end.

    Args:
        granted: What tools may read in a system of the command's own.
        models: What will be asked. A system of the command's own must be able to; one that runs has its own keys.
        more: Whether somebody asked for more than the usual, which a system that runs cannot be given any more.
        nats_server: The program, where the one that is installed shall not be used.

    Raises:
        ConfigError: a model's provider cannot be asked from here. UsageError: `more`, and a system runs.
        UnavailableError, InUseError, StorageFullError: it does not come up.
    """
    running = read_endpoint(settings.data_dir)
    async with AsyncExitStack() as stack:
        if running is not None and running.stays:
            if more:
                msg = "--read-root: `headrace up` runs here and decides what tools may read; give it that option"
                raise UsageError(msg)
            note(f"attached to {running.url}")
            there = await stack.enter_async_context(connected(settings.data_dir))
            yield Here(there.broker, there.client, attached=True)
            return
        require_providers(models, os.environ)
        stack.enter_context(local_logging(settings.data_dir, settings.log_level))
        options = Options(
            data_dir=settings.data_dir,
            read_roots=granted,
            environ=os.environ,
            nats_server=nats_server,
            tell=note,
        )
        local = await stack.enter_async_context(embedded(options))
        yield Here(local.broker, client_of(local.broker, settings, local.clock), attached=False)


def require_providers(models: set[str], environ: Mapping[str, str]) -> None:
    """Return when every model's provider can be asked from here: nobody else answers in its place.

    Raises:
        ConfigError: with each that cannot, and what is missing.
    """
    missing = [
        f"model {model}: {why}"
        for model in sorted(models)
        if "/" in model and (why := missing_provider(model.partition("/")[0], environ))
    ]
    if missing:
        raise ConfigError("\n".join(missing))
