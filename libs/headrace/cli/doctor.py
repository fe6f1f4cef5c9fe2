"""`headrace doctor`: what works here and what does not, each with its remedy. Changes nothing."""

import asyncio
import importlib.util
import os
import platform
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final, Literal, NamedTuple

from headrace.cli.connection import Connection, broker_url, cli_settings, connected
from headrace.cli.inspect import nothing_left
from headrace.cli.interrupt import run_interruptible
from headrace.cli.output import emit, say
from headrace.contracts import codec, names, subjects
from headrace.contracts.errors import HeadraceError, MalformedMessageError
from headrace.contracts.live import Beat
from headrace.local.datadir import read_endpoint
from headrace.local.nats_server import find_binary, monitoring
from headrace.runtime.config import SERVICES
from headrace.runtime.eventlog import BusMessage
from headrace.runtime.streams import consumer_specs, stream_specs
from headrace_step_executor.providers.keys import KEYS, OFFLINE
from headrace_step_executor.tools.beneath import DIRECTORY, open_beneath

CONNECT_WITHIN_S: Final = 5.0
LISTEN_S: Final = 1.6
"""The slowest service beats once a second."""
CLOCK_ERROR_MS_MAX: Final = 1_000
"""More than this and what people read in logs no longer lines up; decisions take the broker's time in any case."""

SDKS: Final = {"anthropic": "anthropic", "google": "google.genai", "openai": "openai"}
"""Module of each provider's SDK."""

Verdict = Literal["ok", "warning", "failed"]


class Finding(NamedTuple):
    """One thing that was looked at. `code` is the exit code it asks for."""

    what: str
    verdict: Verdict
    text: str
    code: int = names.EXIT_OK


def doctor_command(data_dir: Path | None, *, as_json: bool) -> int:
    """The worst finding's exit code."""

    async def work() -> int:
        worst = names.EXIT_OK
        async for finding in _look(data_dir):
            worst = max(worst, finding.code)
            if as_json:
                emit({"check": finding.what, "verdict": finding.verdict, "text": finding.text})
            else:
                say(f"{finding.verdict:8}{finding.what}: {finding.text}")
        return worst

    return run_interruptible(work(), detached=nothing_left)


async def _look(data_dir: Path | None) -> AsyncIterator[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield _nats_binary()
    yield _openat2()
    yield _model_keys()
    try:
        settings = cli_settings(data_dir)
    except HeadraceError as error:
        yield Finding("configuration", "failed", str(error), error.exit_code)
        return
    yield Finding("configuration", "ok", f"tenant {settings.tenant}, data in {settings.data_dir}")
    try:
        url = broker_url(settings)
        async with connected(data_dir, within_s=CONNECT_WITHIN_S) as link:
            yield Finding("connection", "ok", url)
            async for finding in _look_at(link):
                yield finding
    except HeadraceError as error:
        yield Finding("connection", "failed", str(error), error.exit_code)


async def _look_at(link: Connection) -> AsyncIterator[Finding]:
    different = await _differences(link)
    for text in different:
        yield Finding("streams", "failed", text, names.EXIT_CONFIG)
    if not different:
        yield Finding("streams", "ok", "every stream and durable is as it must be")
        yield await look_at_clock(link)
    yield await _services(link)
    yield await asyncio.to_thread(_durability, link)


async def _differences(link: Connection) -> list[str]:
    count = link.settings.run_streams
    streams = [await link.broker.difference(spec) for spec in stream_specs(run_streams=count)]
    durables = [await link.broker.difference(spec) for spec in consumer_specs({}, run_streams=count)]
    return [text for text in (*streams, *durables) if text]


async def look_at_clock(link: Connection) -> Finding:
    """How far this machine's clock is from the broker's."""
    before = link.clock.now_ms()
    server_ms = await link.broker.server_time_ms(subjects.SYSTEM)
    error_ms = server_ms - (before + link.clock.now_ms()) // 2
    text = f"{error_ms:+d} ms between this machine and the broker"
    if abs(error_ms) <= CLOCK_ERROR_MS_MAX:
        return Finding("clock", "ok", text)
    return Finding("clock", "warning", f"{text}; set one of them right. Headrace goes by the broker's")


async def _services(link: Connection) -> Finding:
    heard: dict[str, Beat] = {}

    async def hear(message: BusMessage) -> None:
        try:
            beat = codec.decode_as(Beat, message.body)
        except MalformedMessageError:
            return  # whoever sends that is no service of this release
        heard[beat.instance] = beat

    subscription = await link.broker.subscribe(subjects.PRESENCE_ALL, hear)
    await link.clock.sleep(LISTEN_S)
    await subscription.stop()
    counts = {name: sum(beat.service == name and beat.ready for beat in heard.values()) for name in SERVICES}
    text = ", ".join(f"{name} {count}" for name, count in counts.items())
    if all(counts.values()):
        return Finding("services", "ok", text)
    return Finding("services", "failed", f"{text}; start what is missing", names.EXIT_UNAVAILABLE)


def _durability(link: Connection) -> Finding:
    """By the local server's own word; a remote one is asked by the services, which refuse a weaker class."""
    endpoint = read_endpoint(link.settings.data_dir)
    if endpoint is None or endpoint.url != link.url:
        named = link.settings.durability or "not named (HEADRACE_DURABILITY)"
        return Finding("durability", "ok" if link.settings.durability else "warning", f"{named}; not a local server")
    config = monitoring(f"{endpoint.http_url}/varz", timeout_s=CONNECT_WITHIN_S)["jetstream"]["config"]
    always, interval_ns = config.get("sync_always", False), config.get("sync_interval", 0)
    text = "D1: synced always" if always else f"D0: synced every {interval_ns / 1e6:g} ms"
    return Finding("durability", "ok", text)


def _nats_binary() -> Finding:
    try:
        return Finding("nats-server", "ok", str(find_binary()))
    except HeadraceError as error:
        return Finding("nats-server", "warning", f"{error}; only `run` and `up` need it")


def _openat2() -> Finding:
    root = os.open("/", DIRECTORY)
    try:
        os.close(open_beneath(root, ".", DIRECTORY))
    except HeadraceError as error:
        return Finding("openat2", "failed", str(error), names.EXIT_CONFIG)
    finally:
        os.close(root)
    return Finding("openat2", "ok", "file tools are confined by the operating system")


def _model_keys() -> Finding:
    """Where keys are, and whether the SDK that would use one is installed."""
    texts = []
    for name, named in KEYS.items():
        has_key = any(os.environ.get(variable) for variable in (named.key, f"{named.key}_FILE"))
        base_url = os.environ.get(named.base_url, "")
        text = f"{name}: " + ("key given" if has_key else f"no {named.key}") + (f", {base_url}" if base_url else "")
        if not _is_installed(SDKS[name]):
            text += f", and the SDK is not installed (pip install 'headrace[{name}]')"
        texts.append(text)
    return Finding("models", "ok", f"{', '.join(OFFLINE)} need no key; {'; '.join(texts)}")


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a package whose parent is missing
        return False
