"""`http.request` against real sockets on loopback, which the test allows by name where it means to be let in."""

import asyncio
import gzip
import json
import socket
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import until
from tests.unit.step_executor.builders import tool_call
from tests.unit.step_executor.wire import response, serving

from headrace.contracts.errors import AttemptError
from headrace.pipeline import json_schemas
from headrace.pipeline.builtin_tools import BUILTIN_TOOLS
from headrace.runtime.clock import SystemClock
from headrace_step_executor.tools.addresses import allow_list
from headrace_step_executor.tools.http import HttpTool
from headrace_step_executor.tools.inflate import Inflated


async def fetch(url: str, *, allow: tuple[str, ...] = (), tool: HttpTool | None = None, **args: Any) -> Any:
    made = tool or HttpTool(SystemClock(), allowed=allow_list(allow))
    with tool_call("http.request", Path("/nonexistent"), url=url, **args) as call:
        result = await made(call)
    assert json_schemas.errors(json_schemas.validator(BUILTIN_TOOLS["http.request"].result), result) == []
    return result


async def fails(url: str, code: str, **args: Any) -> AttemptError:
    with pytest.raises(AttemptError) as raised:
        await fetch(url, **args)
    assert raised.value.attempt_code == code, raised.value
    return raised.value


def always(reply: bytes | None) -> Any:
    async def answer(_request: bytes) -> bytes | None:
        return reply

    return answer


async def test_json_text_and_bytes_come_back_as_what_they_are() -> None:
    """By content type; bytes where neither fits."""
    async with serving(always(response(b'{"a":1}'))) as wire:
        found = await fetch(wire.url + "/x?y=1", allow=(f"127.0.0.1:{wire.port}",), query={"z": "ä b"})
        assert (found["json"], found["status"], found["bytes"]) == ({"a": 1}, 200, 7)
        assert wire.requests[0].startswith(b"GET /x?y=1&z=%C3%A4+b HTTP/1.1\r\n")
        assert b"x-attempt: 1\r\n" in wire.requests[0]
        assert b"idempotency-key" not in wire.requests[0]
    async with serving(always(response("ü".encode("latin-1"), kind="text/plain; charset=latin-1"))) as wire:
        assert (await fetch(wire.url, allow=("127.0.0.0/8",)))["text"] == "ü"
    async with serving(always(response(b"\xff\x00", kind="image/png"))) as wire:
        assert (await fetch(wire.url, allow=("127.0.0.0/8",)))["base64"] == "/wA="
    for charset in ("undefined", "idna", "zlib", "unicode_escape"):  # Python's own codecs are nobody's character set
        odd = response(b"a.b", kind=f"text/plain; charset={charset}")
        async with serving(always(odd)) as wire:
            assert (await fetch(wire.url, allow=("127.0.0.0/8",)))["base64"] == "YS5i", charset


async def test_changing_methods_carry_the_idempotency_key() -> None:
    """The same for every attempt of a step, unless the pipeline sets its own."""
    async with serving(always(response())) as wire:
        allow = (f"127.0.0.1:{wire.port}",)
        await fetch(wire.url, allow=allow, method="POST", json={"b": 1})
        await fetch(wire.url, allow=allow, method="PUT", text="x", headers={"Idempotency-Key": "mine"})
        head, _, body = wire.requests[0].partition(b"\r\n\r\n")
        assert b"idempotency-key: r1/a" in head
        assert (json.loads(body), b"content-type: application/json" in head) == ({"b": 1}, True)
        assert wire.requests[1].count(b"mine") == 1
        assert b"r1/a" not in wire.requests[1]


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [(400, "http_status", False), (401, "http_status", False), (404, "http_status", False), (413, "http_status", False),
     (408, "timeout", True), (425, "unavailable", True), (429, "rate_limited", True), (500, "unavailable", True),
     (503, "unavailable", True), (504, "timeout", True), (529, "overloaded", True), (501, "unavailable", True)],
)  # fmt: skip
async def test_statuses_outside_2xx_are_errors(status: int, code: str, retryable: bool) -> None:
    """Retryable or not by class, with what the server asked for as a floor."""
    async with serving(
        always(response(b"why", status=status, kind="text/plain", headers="retry-after: 7\r\n"))
    ) as wire:
        error = await fails(wire.url, code, allow=("127.0.0.0/8",))
        assert error.attempt_retryable is retryable
        assert error.retry_after_ms == (7000 if retryable else 0)
        assert (await fetch(wire.url, allow=("127.0.0.0/8",), accept_status=[status]))["status"] == status


async def test_input_36_a_gzip_bomb_stops_at_the_cap() -> None:
    """583 kB that would become 600 MB are never held: the cap holds on decompressed bytes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    head = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    megabyte = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    bomb = head + 600 * megabyte  # a full flush makes the block independent of what came before
    assert len(bomb) < 700_000
    async with serving(always(response(bomb, kind="text/plain", headers="content-encoding: gzip\r\n"))) as wire:
        await fails(wire.url, "too_large", allow=("127.0.0.0/8",), max_bytes=1 << 20)
    fits = gzip.compress(b"x" * 1000)
    async with serving(always(response(fits, kind="text/plain", headers="content-encoding: gzip\r\n"))) as wire:
        assert (await fetch(wire.url, allow=("127.0.0.0/8",), max_bytes=1000))["bytes"] == 1000
        await fails(wire.url, "too_large", allow=("127.0.0.0/8",), max_bytes=999)


async def test_input_36_what_follows_a_compressed_body_is_not_collected() -> None:
    """Bytes behind the end of the stream are refused at once; several gzip members are one body, and bounded too."""
    zipped = "content-encoding: gzip\r\n"
    inside = gzip.compress(b"hello ") + gzip.compress(b"world")
    async with serving(always(response(inside, kind="text/plain", headers=zipped))) as wire:
        assert (await fetch(wire.url, allow=("127.0.0.0/8",)))["text"] == "hello world"
    endless = gzip.compress(b"") * 200_000
    async with serving(always(response(endless, kind="text/plain", headers=zipped))) as wire:
        await fails(wire.url, "too_large", allow=("127.0.0.0/8",), max_bytes=1000)
    inflated = Inflated("gzip", bytes_max=1000)
    with pytest.raises(AttemptError, match="damaged"):
        inflated.feed(gzip.compress(b"hello") + bytes(16))
    inflated = Inflated("deflate", bytes_max=1000)
    inflated.feed(zlib.compress(b"hello"))
    with pytest.raises(AttemptError, match="after its end"):
        inflated.feed(b"x")


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (b"garbage\r\n\r\n", "malformed"),
        (response(b"half", length=100), "malformed"),
        (response(b"{", kind="application/json"), "malformed"),
        (response(b"x", headers="content-encoding: br\r\n"), "malformed"),
        (response(b"not gzip", headers="content-encoding: gzip\r\n"), "malformed"),
        (response(gzip.compress(b"x" * 99)[:-12], headers="content-encoding: gzip\r\n"), "malformed"),
        (response(gzip.compress(b"x" * 99)[:10], headers="content-encoding: gzip\r\n"), "malformed"),
        (b"HTTP/1.1 200 OK\r\n" + b"a: " + b"x" * 200_000, "malformed"),
        (b"", "malformed"),
    ],
)
async def test_input_42_damaged_answers_are_malformed(reply: bytes, code: str) -> None:
    """Cut in the middle, no HTTP, another encoding, endless headers."""
    async with serving(always(reply)) as wire:
        error = await fails(wire.url, code, allow=("127.0.0.0/8",))
        assert error.attempt_retryable


async def test_nobody_listening_is_a_connect_error() -> None:
    """Retryable: it may come back."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        error = await fails(f"http://127.0.0.1:{held.getsockname()[1]}/", "connect", allow=("127.0.0.0/8",))
    assert error.attempt_retryable


async def test_input_35_a_listening_loopback_socket_sees_no_connection() -> None:
    """Blocked before the first packet, by name and by number."""
    async with serving(always(response())) as wire:

        async def resolve(_host: str, _port: int) -> Sequence[str]:
            return ("127.0.0.1",)

        tool = HttpTool(SystemClock(), allowed=allow_list(()), resolve=resolve)
        for url in (wire.url, f"http://localhost:{wire.port}/", f"http://2130706433:{wire.port}/",
                    f"http://[::ffff:127.0.0.1]:{wire.port}/", f"http://rebind.example:{wire.port}/"):  # fmt: skip
            await fails(url, "ssrf_blocked", tool=tool)
        assert wire.connections == 0


async def test_input_35_a_name_that_changes_its_address_gains_nothing() -> None:
    """The address that was checked is the one that is connected to; the name is resolved once a request."""
    async with serving(always(response(b"1"))) as inside:
        asked: list[str] = []

        async def rebinding(host: str, _port: int) -> Sequence[str]:
            asked.append(host)
            return ("192.0.2.77",) if len(asked) == 1 else ("127.0.0.1",)

        # The first answer is allowed, the second would lead inside: were the name resolved again, it would connect.
        tool = HttpTool(SystemClock(), allowed=allow_list(("192.0.2.0/24",)), resolve=rebinding)
        await fails(f"http://rebind.example:{inside.port}/", "connect", tool=tool)
        assert asked == ["rebind.example"]
        assert inside.connections == 0


async def test_input_35_redirects_are_checked_like_the_first_address() -> None:
    """A redirect to a private address is blocked with 0 connections there; to an allowed one it is followed."""
    async with serving(always(response(b"2"))) as inside:
        async with serving(always(response(status=302, headers=f"location: {inside.url}/x\r\n"))) as outside:
            await fails(outside.url, "ssrf_blocked", allow=(f"127.0.0.1:{outside.port}",))
            assert inside.connections == 0
            both = (f"127.0.0.1:{outside.port}", f"127.0.0.1:{inside.port}")
            found = await fetch(outside.url, allow=both, headers={"Authorization": "secret"}, method="POST", json=1)
            assert (found["json"], found["url"]) == (2, inside.url + "/x")
            assert inside.requests[0].startswith(b"GET /x")
            assert b"secret" not in inside.requests[0]
        for location in ("http://169.254.169.254/", "file:///etc/passwd", "//2130706433/", "gopher://x/"):
            async with serving(always(response(status=307, headers=f"location: {location}\r\n"))) as outside:
                await fails(outside.url, "ssrf_blocked", allow=(f"127.0.0.1:{outside.port}",))


async def test_redirects_are_bounded_and_can_be_turned_off() -> None:
    """A loop ends as an error after so many; with 0 the redirect itself is the answer."""
    async with serving(always(response(status=301, headers="location: /\r\n"))) as wire:
        await fails(wire.url, "too_many_redirects", allow=("127.0.0.0/8",))
        assert wire.connections == 6
        found = await fetch(wire.url, allow=("127.0.0.0/8",), redirects_max=0, accept_status=[301])
        assert found["headers"]["location"] == "/"


async def test_headers_that_would_smuggle_are_refused() -> None:
    """Line breaks, and headers that say where a message ends."""
    async with serving(always(response())) as wire:
        for headers in (
            {"a": "x\r\nb: y"},
            {"Transfer-Encoding": "chunked"},
            {"Host": "other"},
            {"a b": "c"},
            {"x": "ü"},
        ):
            await fails(wire.url, "tool_args_invalid", allow=("127.0.0.0/8",), headers=headers)
        assert wire.requests == []


async def test_otp_s8_a_server_that_never_answers_is_let_go_at_the_deadline() -> None:
    """Cancelling the call closes the connection."""
    async with serving(always(None)) as wire:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await fetch(wire.url, allow=("127.0.0.0/8",))
        await until(lambda: wire.closed, within_s=2)
