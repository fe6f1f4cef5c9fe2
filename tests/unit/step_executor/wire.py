"""HTTP servers of a few lines on loopback: each connection is counted, each answer is bytes as given."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Answer = Callable[[bytes], Awaitable[bytes | None]]


@dataclass
class Wire:
    """A server. `requests` are heads and bodies as they came."""

    port: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    closed: int = 0

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"


def response(
    body: bytes = b"",
    *,
    status: int = 200,
    kind: str = "application/json",
    headers: str = "",
    length: int | None = None,
) -> bytes:
    """An HTTP/1.1 answer; `length` may lie."""
    size = len(body) if length is None else length
    lines = (
        f"HTTP/1.1 {status} X",
        f"content-type: {kind}",
        f"content-length: {size}",
        f"{headers}connection: close",
    )
    head = "\r\n".join(lines) + "\r\n\r\n"
    return head.encode() + body


@asynccontextmanager
async def serving(answer: Answer, *, drip_s: float = 0.0) -> AsyncIterator[Wire]:
    """A server whose `answer` gets the request and gives all bytes of the reply; None: it never answers."""
    wire = Wire()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire.connections += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            size = 0
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    size = int(line.partition(b":")[2])
            request = head + await reader.readexactly(size)
            wire.requests.append(request)
            reply = await answer(request)
            if reply is None:
                await reader.read()  # until the client has had enough
                return
            if not drip_s:
                writer.write(reply)
                await writer.drain()
                return
            for byte in reply:
                writer.write(bytes((byte,)))
                await writer.drain()
                await asyncio.sleep(drip_s)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            wire.closed += 1
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    wire.port = server.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        server.close()
        await server.wait_closed()
