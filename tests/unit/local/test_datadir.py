"""The port of the last time is taken again, also where it becomes free a moment after the lock."""

import asyncio
import socket
from pathlib import Path

from headrace.local.datadir import preferred_port, remember_port
from headrace.local.nats_server import free_port
from headrace.runtime.clock import SystemClock


def listening(port: int) -> socket.socket:
    """Somebody holds the port."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", port))
    holder.listen()
    return holder


async def test_a_port_that_a_dying_server_still_holds_is_waited_for(tmp_path: Path) -> None:
    """Else clients that are still there would look for the server where it was, for ever."""
    remember_port(tmp_path, port := free_port())
    with listening(port) as holder:
        asyncio.get_running_loop().call_later(0.3, holder.close)
        assert await preferred_port(tmp_path, clock=SystemClock()) == port


async def test_a_port_that_somebody_else_has_is_left_to_them(tmp_path: Path) -> None:
    """The server takes another."""
    remember_port(tmp_path, port := free_port())
    with listening(port):
        assert await preferred_port(tmp_path, clock=SystemClock()) == 0
    assert await preferred_port(tmp_path / "new", clock=SystemClock()) == 0


def test_free_ports_are_none_that_an_outgoing_connection_may_be_given() -> None:
    """One of those could be held by whoever connects while the server is away."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(1024 <= free_port() < min(low, 32_768) for _ in range(50))
