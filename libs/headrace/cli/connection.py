"""The broker that a command talks to: HEADRACE_NATS_URL, else what runs in this data directory."""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from headrace.cli.output import note
from headrace.client.client import Client
from headrace.contracts import names
from headrace.contracts.errors import UnavailableError
from headrace.local.datadir import read_endpoint
from headrace.runtime.clock import Clock, SystemClock
from headrace.runtime.config import Settings, load
from headrace.runtime.entropy import SystemEntropy
from headrace.runtime.jetstream import JetStreamBroker, connect


class _ConnectionNotes(logging.Handler):
    """Of all that is logged below a command, people need one thing: why nothing happens just now."""

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        if record.msg == "broker.disconnected":
            note("the connection is lost; waiting for the broker")


@dataclass(slots=True, frozen=True)
class Connection:
    """A command's connection, and the client over it."""

    broker: JetStreamBroker
    client: Client
    clock: SystemClock
    settings: Settings
    url: str


def cli_settings(data_dir: Path | None = None) -> Settings:
    """The shared settings as this command reads them. Raises ConfigError."""
    settings = load(Settings, os.environ, service="cli")
    return settings if data_dir is None else settings.model_copy(update={"data_dir": data_dir})


def broker_url(settings: Settings) -> str:
    """Where to connect.

    Raises:
        UnavailableError: nobody says where.
    """
    if "HEADRACE_NATS_URL" in os.environ or "HEADRACE_NATS_URL_FILE" in os.environ:
        return settings.nats_url
    endpoint = read_endpoint(settings.data_dir)
    if endpoint is None:
        msg = (
            f"HEADRACE_NATS_URL is not set and nothing runs in {settings.data_dir}; "
            "start it with `headrace up`, or name the broker"
        )
        raise UnavailableError(msg)
    return endpoint.url


def client_of(broker: JetStreamBroker, settings: Settings, clock: Clock) -> Client:
    """A client over a connection."""
    return Client(
        broker, tenant=settings.tenant, clock=clock, entropy=SystemEntropy(), run_streams=settings.run_streams
    )


@asynccontextmanager
async def connected(
    data_dir: Path | None = None, *, within_s: float = names.CONNECT_DEADLINE_S
) -> AsyncIterator[Connection]:
    """A connection, closed at the end.

    Raises:
        UnavailableError: no broker; the attempts are in the text. DeniedError, ConfigError: see `connect`.
    """
    settings = cli_settings(data_dir)
    clock = SystemClock()
    url = broker_url(settings)
    logging.getLogger().handlers[:] = [_ConnectionNotes()]
    broker = await connect(url, name="cli", creds=settings.nats_creds or None, clock=clock, deadline_s=within_s)
    try:
        client = client_of(broker, settings, clock)
        yield Connection(broker=broker, client=client, clock=clock, settings=settings, url=url)
    finally:
        await broker.close()
