"""The life of a process: real processes, real signals, a real nats-server."""

import asyncio
import json
import os
import signal
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import until

from headrace.contracts import codec, subjects
from headrace.contracts.live import Beat
from headrace.local.nats_server import NatsServer, free_port
from headrace.runtime.eventlog import Broker, BusMessage, StreamSpec

SCRIPT = """
import asyncio, os, sys
from headrace.runtime.clock import SystemClock
from headrace.runtime.harness import Options, run_process, serve
from headrace.runtime.jetstream import connect
from headrace.runtime.logging import configure
from headrace.runtime.supervisor import Supervisor

class Service:
    name = "example"
    caught_up = ready = True
    def __init__(self, supervisor):
        self.supervisor = supervisor
    async def start(self):
        if "crash" in sys.argv:
            self.supervisor.start("example.part", self.crash)
    async def crash(self):
        raise LookupError("the cause")
    async def drain(self):
        if "hang" in sys.argv:
            await asyncio.Event().wait()
    async def stop(self):
        pass

async def main():
    clock = SystemClock()
    broker = await connect(os.environ["NATS"], name="example", clock=clock)
    parts = Supervisor(clock)
    options = Options(drain_s=0.5 if "short" in sys.argv else 30.0)
    return await serve(
        Service(parts), supervisor=parts, broker=broker, clock=clock, options=options
    )

configure("info", service="example")
sys.exit(run_process(main))
"""


class Running:
    """A child process and the log lines it has written."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process, self._log = process, log

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]

    def said(self, event: str) -> bool:
        return any(line["event"] == event for line in self.lines())

    async def ended(self, within_s: float = 10) -> int:
        return await asyncio.wait_for(self.process.wait(), within_s)


Launch = Callable[..., Awaitable[Running]]


@pytest.fixture
async def launch(tmp_path: Path, nats_server: NatsServer) -> AsyncIterator[Launch]:
    """`await launch("-m", "headrace_monitor", HEADRACE_…="…")` starts a Python child."""
    running: list[Running] = []

    async def one(*args: str, **environ: str) -> Running:
        path = tmp_path / f"log-{len(running)}"
        plain = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        with path.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *args,
                stderr=log,
                env=plain | {"NATS": nats_server.url, "HEADRACE_NATS_URL": nats_server.url} | environ,
            )
        running.append(Running(process, path))
        return running[-1]

    yield one
    for each in running:
        if each.process.returncode is None:
            each.process.kill()
            await each.process.wait()


async def status(port: int, path: str) -> int:
    """HTTP status of a probe; 0 when nobody listens."""

    def ask() -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return 0

    return await asyncio.to_thread(ask)


@pytest.fixture
async def streams(broker: Broker) -> Broker:
    await broker.ensure_stream(StreamSpec(name=subjects.TOOLS, subjects=("hr.tool.>",)))
    return broker


async def test_a_service_comes_up_ready_and_leaves_with_0(streams: Broker, launch: Launch) -> None:
    """Start, caught up, ready; SIGTERM: goodbye, drain, stop, exit 0."""
    port = free_port()
    beats: list[Beat] = []

    async def hear(message: BusMessage) -> None:
        beats.append(codec.decode_as(Beat, message.body))

    await streams.subscribe(subjects.PRESENCE_ALL, hear)
    child = await launch("-m", "headrace_tool_registry", HEADRACE_METRICS_PORT=str(port))

    async def is_ready() -> bool:
        return await status(port, "/readyz") == 200

    await until(is_ready, within_s=15)
    probes = [await status(port, path) for path in ("/livez", "/startupz", "/metrics", "/other")]
    child.process.send_signal(signal.SIGTERM)

    assert await child.ended() == 0
    assert probes == [200, 200, 200, 404]
    assert [line["event"] for line in child.lines() if line["event"].startswith("service.")] == [
        "service.starts",
        "service.caught_up",
        "service.ready",
        "service.asked_to_stop",
        "service.drains",
        "service.stopped",
    ]
    await until(lambda: bool(beats) and beats[-1].leaving)


async def test_it_is_not_ready_until_what_it_needs_exists(broker: Broker, launch: Launch) -> None:
    """Services start in any order: without its stream it waits, alive and not ready, and goes on by
    itself."""
    port = free_port()
    child = await launch("-m", "headrace_tool_registry", HEADRACE_METRICS_PORT=str(port))

    async def answers(path: str, code: int) -> bool:
        return await status(port, path) == code

    await until(lambda: answers("/livez", 200), within_s=15)
    before = [await status(port, path) for path in ("/readyz", "/startupz")]
    await broker.ensure_stream(StreamSpec(name=subjects.TOOLS, subjects=("hr.tool.>",)))

    await until(lambda: answers("/readyz", 200), within_s=10)
    assert before == [503, 503]
    assert child.process.returncode is None


async def test_otp_s10_a_broker_outage_is_no_restart(streams: Broker, launch: Launch, nats_server: NatsServer) -> None:
    """Liveness never asks the broker; readiness goes off and comes back by itself."""
    port = free_port()
    child = await launch("-m", "headrace_tool_registry", HEADRACE_METRICS_PORT=str(port))

    async def answers(path: str, code: int) -> bool:
        return await status(port, path) == code

    await until(lambda: answers("/readyz", 200), within_s=15)
    nats_server.kill()
    await until(lambda: answers("/readyz", 503), within_s=5)
    alive = await status(port, "/livez")
    await nats_server.start()

    await until(lambda: answers("/readyz", 200), within_s=15)
    assert alive == 200
    assert child.process.returncode is None


async def test_a_second_signal_ends_at_once(nats_server: NatsServer, launch: Launch) -> None:
    """Whoever asks twice means it."""
    child = await launch("-c", SCRIPT, "hang")
    await until(lambda: child.said("service.ready"), within_s=15)
    child.process.send_signal(signal.SIGTERM)
    await until(lambda: child.said("service.drains"))

    child.process.send_signal(signal.SIGTERM)

    assert await child.ended(2) == 128 + signal.SIGTERM


async def test_a_drain_that_hangs_is_cut_short(nats_server: NatsServer, launch: Launch) -> None:
    """The drain is bounded by `drain_s`, then the process stops in order all the same."""
    child = await launch("-c", SCRIPT, "hang", "short")
    await until(lambda: child.said("service.ready"), within_s=15)

    child.process.send_signal(signal.SIGINT)

    assert await child.ended(5) == 0
    assert child.said("service.drain_cut_short")


async def test_otp_s10_a_crash_loop_exits_70_with_the_cause_as_its_last_line(
    nats_server: NatsServer, launch: Launch
) -> None:
    """Restarts are bounded; then the process's own supervisor begins afresh."""
    child = await launch("-c", SCRIPT, "crash")

    assert await child.ended(15) == 70
    last = child.lines()[-1]
    assert (last["event"], last["level"]) == ("service.failed", "critical")
    assert "LookupError: the cause" in last["stack"]


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"HEADRACE_TENNANT": "x"}, "did you mean HEADRACE_TENANT?"),
        ({"HEADRACE_METRICS_PORT": "-1"}, "HEADRACE_METRICS_PORT"),
    ],
)
async def test_a_wrong_knob_exits_78_and_is_named(
    nats_server: NatsServer, launch: Launch, environ: dict[str, str], said: str
) -> None:
    """Nothing is started on a configuration that somebody got wrong."""
    child = await launch("-m", "headrace_monitor", **environ)

    assert await child.ended(15) == 78
    assert said in child.lines()[-1]["error"]


async def test_a_port_that_is_taken_exits_78(streams: Broker, launch: Launch) -> None:
    """It is a matter of configuration, and the line says of which."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        child = await launch("-m", "headrace_tool_registry", HEADRACE_METRICS_PORT=str(port))

        assert await child.ended(15) == 78
    assert f"cannot listen on 127.0.0.1:{port}" in child.lines()[-1]["stack"]
