"""SIGKILL at named instants of a real executor process: what is in the log afterwards, and what the next one does."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from headrace.contracts import names, subjects
from headrace.local.nats_server import NatsServer
from headrace.runtime.streams import migrate
from tests.conftest import Connect, until
from tests.integration.executor.rig import STREAM, Rig, rig_without_executor


@asynccontextmanager
async def executor_process(
    server: NatsServer, tmp_path: Path, *, crash: str = ""
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m headrace_step_executor`, perhaps armed to kill itself."""
    environ = {
        "PATH": os.environ["PATH"], "HEADRACE_NATS_URL": server.url, "HEADRACE_DATA_DIR": str(tmp_path / "data"),
        "HEADRACE_CRASH": crash, "HEADRACE_CRASH_FILE": str(tmp_path / "crashed"), "HEADRACE_LOG_LEVEL": "warning",
        "HEADRACE_DRAIN_S": "5",
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "headrace_step_executor", env=environ)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(15):
                await process.wait()


@pytest.fixture
async def rig(connect_broker: Connect, tmp_path: Path) -> Rig:
    broker = await connect_broker("scheduler")
    await migrate(broker)
    return await rig_without_executor(broker, tmp_path)


async def killed(process: asyncio.subprocess.Process, tmp_path: Path, point: str) -> None:
    """Return when the process has died at the point."""
    async with asyncio.timeout(10):
        await process.wait()
    assert process.returncode == -signal.SIGKILL
    assert (tmp_path / "crashed").read_text() == f"{point}\n"


ONCE: dict[str, Any] = {
    "tool": "fs.append", "queue": "tool-ws", "workspace": True, "effect": "at_most_once",
    "input": {"path": "log", "text": "x"},
}  # fmt: skip


async def test_fault_kill_in_the_middle_of_an_attempt(nats_server: NatsServer, rig: Rig, tmp_path: Path) -> None:
    """Nothing is reported; the next offer of the attempt runs in the next process."""
    async with executor_process(nats_server, tmp_path, crash="attempt_running:1") as process:
        await until(lambda: rig.beats and rig.beats[-1].ready, within_s=10)
        await rig.publish(rig.order(tool="json.parse", input={"text": "1"}))
        await killed(process, tmp_path, "attempt_running")
    assert await rig.reports() == []
    rig.beats.clear()
    async with executor_process(nats_server, tmp_path) as process:
        await until(lambda: rig.beats and rig.beats[-1].ready, within_s=10)
        await rig.publish(rig.order(tool="json.parse", input={"text": "1"}, offer=2))
        assert (await rig.report()).data.offer == 2
    assert process.returncode == names.EXIT_OK
    assert rig.beats[-1].leaving


async def test_fault_kill_between_report_and_acknowledgement(nats_server: NatsServer, rig: Rig, tmp_path: Path) -> None:
    """The report counts; the order stays unacknowledged and is answered as not current when it comes again."""
    async with executor_process(nats_server, tmp_path, crash="report_stored_before_ack:1") as process:
        await until(lambda: rig.beats and rig.beats[-1].ready, within_s=10)
        await rig.publish(rig.order(tool="json.parse", input={"text": "1"}))
        await killed(process, tmp_path, "report_stored_before_ack")
    assert len(await rig.reports()) == 1
    state = await rig.broker.consumer_state(STREAM, subjects.order_consumer("tool"))
    assert state.ack_pending == 1


async def test_fault_kill_between_claim_and_call(nats_server: NatsServer, rig: Rig, tmp_path: Path) -> None:
    """The call is claimed and was not made; whoever gets the order next does not make it either."""
    async with executor_process(nats_server, tmp_path, crash="claim_stored_before_call:1") as process:
        await until(lambda: rig.beats and rig.beats[-1].ready, within_s=10)
        await rig.publish(rig.order(**ONCE))
        await killed(process, tmp_path, "claim_stored_before_call")
    rig.beats.clear()
    async with executor_process(nats_server, tmp_path):
        await until(lambda: rig.beats and rig.beats[-1].ready, within_s=10)
        await rig.publish(rig.order(**ONCE, offer=2))
        await rig.publish(rig.order("r2", **ONCE))
        await rig.report("r2")
    assert await rig.reports() == []
    assert not (tmp_path / "data/workspaces/default/r1/log").exists()
    assert (tmp_path / "data/workspaces/default/r2/log").read_text() == "x"
