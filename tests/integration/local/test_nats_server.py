"""The child nats-server: found, started, ended, and gone with its parent."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import until

from headrace.contracts.errors import ConfigError, RetryableError, UnknownOutcomeError
from headrace.local.nats_server import NatsServer, find_binary
from headrace.local.restarts import keep_server
from headrace.runtime.clock import SystemClock
from headrace.runtime.eventlog import StreamSpec
from headrace.runtime.jetstream import JetStreamBroker, connect

PARENT = """
import asyncio, pathlib, sys
from headrace.local.nats_server import NatsServer
from headrace.runtime.clock import SystemClock

async def main():
    server = NatsServer(pathlib.Path(sys.argv[1]), clock=SystemClock())
    await server.start()
    print(server.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def alive(pid: int) -> bool:
    """Is there a running process of this id?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_installed_binary_is_found() -> None:
    """And a path that is no program is refused."""
    assert os.access(find_binary(), os.X_OK)
    with pytest.raises(ConfigError):
        find_binary("/nowhere/nats-server")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("not allowed to mount a file system here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path) -> None:
    """Write until there is no room."""
    with path.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))


async def append_much(broker: JetStreamBroker) -> None:
    """More than what the file system has set aside."""
    for _ in range(64):
        await broker.append("log.a", bytes(512 * 1024))


async def test_a_full_disk_is_told_and_over_when_there_is_room(small_disk: Path) -> None:
    """A stream that could not be written stays broken in a server that goes on; it is started again, and writes."""
    clock, told = SystemClock(), list[str]()
    server = NatsServer(small_disk / "nats", clock=clock)
    await server.start()
    broker = await connect(server.url, name="t", clock=clock)
    keeping = asyncio.create_task(keep_server(server, clock, told.append))
    try:
        await broker.ensure_stream(StreamSpec("LOG", ("log.>",)))
        await broker.append("log.a", b"before")
        hog = small_disk / "hog"
        with pytest.raises(OSError, match="No space left"):
            fill(hog)
        with pytest.raises((RetryableError, UnknownOutcomeError)):
            await append_much(broker)
        await until(lambda: told, within_s=20)
        assert "cannot write; all goes on when there is room" in told[0]

        hog.unlink()
        await until(lambda: any("started" in text for text in told), within_s=30, what="started again")
        await until(lambda: broker.connected, within_s=20)

        assert (await broker.append("log.a", b"after")).seq >= 2
    finally:
        keeping.cancel()
        await asyncio.wait((keeping,), timeout=10)
        await broker.close()
        await server.stop()


async def test_a_restart_keeps_url_and_store(nats_server: NatsServer) -> None:
    """After SIGTERM and after SIGKILL."""
    broker = await connect(nats_server.url, name="t", clock=SystemClock())
    await broker.ensure_stream(StreamSpec("LOG", ("log.>",)))
    url = nats_server.url
    for seq in (1, 2):
        await broker.append("log.a", b"")
        if seq == 1:
            await nats_server.stop()
        else:
            nats_server.kill()
        assert nats_server.pid == 0
        await nats_server.start()
        assert nats_server.url == url
        await until(lambda: broker.connected)
        assert (await broker.position("LOG")).last_seq == seq
    await broker.close()


async def test_a_port_that_is_taken_is_said(nats_server: NatsServer, tmp_path: Path) -> None:
    """With the end of the server's log."""
    second = NatsServer(tmp_path / "second", clock=SystemClock(), port=nats_server.port)
    with pytest.raises(ConfigError, match="address already in use"):
        await second.start()
    assert second.pid == 0


async def test_a_paused_server_can_be_stopped(nats_server: NatsServer) -> None:
    """It is continued first."""
    pid = nats_server.pid
    nats_server.pause()
    await nats_server.stop(deadline_s=5.0)
    assert not alive(pid)
    await nats_server.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
async def test_the_server_dies_with_its_parent(tmp_path: Path) -> None:
    """kill -9 of the parent leaves nothing running."""
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    async with asyncio.timeout(20.0):
        pid = int(await parent.stdout.readline())
    assert alive(pid)
    parent.send_signal(signal.SIGKILL)
    await parent.wait()
    await until(lambda: not alive(pid))
