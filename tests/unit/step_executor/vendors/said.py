"""What a model says, before it is put into anybody's wire format."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.unit.step_executor.wire import response

from headrace_step_executor.providers.protocol import Provider


@dataclass(frozen=True)
class Said:
    """An answer. Tokens: 7 in, of which 3 cached; 5 out, of which 2 for thoughts, unless given."""

    pieces: tuple[str, ...] = ("hello ", "there")
    calls: tuple[tuple[str, str, dict[str, Any]], ...] = ()
    """(id, name, arguments)"""
    finish: str = "stop"
    """stop, length, tool_calls, refused"""
    usage: tuple[int, int, int, int] = (7, 5, 3, 2)

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.pieces)


@dataclass(frozen=True)
class Trouble:
    """An answer that is an error."""

    status: int
    kind: str = ""
    """What the vendor calls it, where a status means several things: `context`, `refused`."""
    headers: str = ""


class Vendor(Protocol):
    """A wire: bytes of HTTP answers for what a model says."""

    name: str

    def provider(self, url: str, key: Callable[[], str]) -> Provider:
        """The adapter, talking to a server there."""
        ...

    def whole(self, said: Said) -> dict[str, Any]:
        """The body of an answer in one piece."""
        ...

    def events(self, said: Said) -> list[bytes]:
        """The events of a stream, each as it stands on the wire."""
        ...

    def error(self, trouble: Trouble) -> dict[str, Any]:
        """The body of an error."""
        ...

    def streams(self, request: bytes) -> bool:
        """The request asks for a stream."""
        ...


def reply(vendor: Vendor, request: bytes, said: Said | Trouble) -> bytes:
    """The whole HTTP answer to a request."""
    if isinstance(said, Trouble):
        return response(encoded(vendor.error(said)), status=said.status, headers=said.headers)
    if vendor.streams(request):
        return chunked(vendor.events(said))
    return response(encoded(vendor.whole(said)))


def encoded(body: Any) -> bytes:
    """JSON; lone surrogates stay, as escapes."""
    return json.dumps(body).encode()


def sse(data: Any, event: str = "") -> bytes:
    """One event of a stream."""
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {event}\n" if event else "").encode() + f"data: {text}\n\n".encode()


def chunked(events: Iterable[bytes], *, kind: str = "text/event-stream; charset=utf-8", ends: bool = True) -> bytes:
    """A stream as providers send it; `ends=False`: the connection breaks instead."""
    head = (
        f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n".encode()
    )
    body = b"".join(f"{len(event):x}\r\n".encode() + event + b"\r\n" for event in events)
    return head + body + (b"0\r\n\r\n" if ends else b"")


@dataclass
class Heard:
    """What came as deltas."""

    pieces: list[str] = field(default_factory=list)

    def __call__(self, piece: str) -> None:
        """One more."""
        self.pieces.append(piece)
