"""Row 35 through a whole executor: the step fails, and the process has not so much as tried to send anything there."""

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Connect
from tests.integration.executor.rig import running
from tests.unit.step_executor.wire import response, serving

ADDRESSED: list[str] = []
"""Where this process connected or sent datagrams to, while it is listened to."""
_listening = False


def _hear(event: str, given: tuple[Any, ...]) -> None:
    if _listening and event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        ADDRESSED.append(str(given[1]))


sys.addaudithook(_hear)


async def test_input_35_blocked_steps_fail_and_no_packet_goes_there(
    connect_broker: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metadata address, decimal and mapped loopback, a name that leads inside, a redirect to a private address: each
    `ssrf_blocked`, not retryable. Every socket call of the process is heard: none is for such an address."""

    async def answer(_request: bytes) -> bytes:
        return response(b"secret")

    async def redirect(_request: bytes) -> bytes:
        return response(status=302, headers="location: http://169.254.169.254/latest/meta-data/\r\n")

    async with serving(answer) as inside, serving(redirect) as outside:
        urls = {
            "metadata": "http://169.254.169.254/latest/meta-data/",
            "decimal": f"http://2130706433:{inside.port}/",
            "mapped": f"http://[::ffff:127.0.0.1]:{inside.port}/",
            "name": f"http://localhost:{inside.port}/",
            "redirect": outside.url,
        }
        config = {"http_allow": (f"127.0.0.1:{outside.port}",)}
        async with running(connect_broker, tmp_path, config=config) as rig:
            monkeypatch.setattr(sys.modules[__name__], "_listening", True)
            for run, url in urls.items():
                failure = await rig.failure(run=run, tool="http.request", input={"url": url})
                assert (failure.code, failure.retryable) == ("ssrf_blocked", False), (run, failure)
            heard = list(ADDRESSED)
        assert inside.connections == 0
        assert outside.connections == 1
    to_http = [address for address in heard if str(outside.port) in address]
    assert len(to_http) == 1, "the one address that is allowed was heard, so the others would have been"
    assert not [address for address in heard if "169.254" in address or str(inside.port) in address], heard
