"""One connection to nats-server, reduced to what the adapter needs.

Frames for our own inboxes go straight from the parser to a synchronous handler: no task, no queue and no header parsing
per message. Everything sent is appended to the client's write buffer synchronously, so that cancelling a caller never
leaves half a state. Handlers and listeners must not block and must not await.

What nats-py does differently and is put right here (2.16): it buffers what is published while disconnected, it sends
the rest of its write buffer after a reconnect, it waits for ever for a frozen peer to take that buffer, and it closes
for good on errors of the server that a new connection would cure.
"""

import asyncio
import contextlib
import importlib.util
import logging
import re
import socket
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from nats import errors as nats_errors
from nats.aio.client import Client, RawCredentials
from nats.aio.subscription import Subscription as NatsSubscription

from headrace.contracts import names
from headrace.contracts.errors import ConfigError, DeniedError, UnavailableError
from headrace.runtime import jetstream_wire as wire
from headrace.runtime.clock import Clock
from headrace.runtime.subject_filters import check_header

log = logging.getLogger(__name__)

RECONNECT_WAIT_S: Final = 0.2
"""Restarting nats-server takes 0.4–1.2 s: five looks a second cost nothing and lose little."""
PING_S: Final = 5
PINGS_OUT_MAX: Final = 2
"""A frozen peer is given up after 15 s; the library's own numbers would take six minutes."""
CONNECT_ATTEMPT_S: Final = 2
UNSENT_BYTES_MAX: Final = 8 * 1024 * 1024
"""What may wait for a slow peer before messages of the bus are refused; appends have a bound of their own."""
DENIALS_KEPT_MAX: Final = 20
_DENIED: Final = re.compile(r'permissions violation for (publish|subscription) to "([^"]+)"', re.IGNORECASE)

FrameHandler = Callable[[bytes, bytes, bytes, bytes], None]
"""Called with subject, reply, body and raw headers (empty where there are none)."""


class Listener(Protocol):
    """Is told when the connection is lost and when it is back, synchronously."""

    def link_down(self) -> None:
        """Nothing that was asked for on this connection will be answered."""
        ...

    def link_up(self) -> None:
        """Sending works again."""
        ...


class Answer(NamedTuple):
    """What came back for a request."""

    body: bytes
    headers: bytes


class _Client(Client):
    """nats-py's client with direct frames and the corrections named at the top."""

    def __init__(self) -> None:
        super().__init__()
        self.direct: dict[int, FrameHandler] = {}

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        handler = self.direct.get(sid)
        if handler is None:
            await super()._process_msg(sid, subject, reply, data, headers or b"")
            return
        try:
            handler(subject, reply, data, headers or b"")
        except Exception as error:  # our own bug must not end the read loop silently: start the connection afresh
            log.exception("broker.frame_failed", extra={"subject": subject.decode("ascii", "replace")})
            await self._process_op_err(error)

    async def _process_err(self, err_msg: str) -> None:
        if "permissions violation" in err_msg:
            await super()._process_err(err_msg)
        else:
            await self._process_op_err(nats_errors.Error(f"nats: {err_msg}"))

    async def _process_op_err(self, e: Exception) -> None:
        if self.is_connected:
            self.discard_unsent()
        await super()._process_op_err(e)

    async def _process_pong(self) -> None:
        if self._pongs and self._pongs[0].done():  # a flush that was given up: setting it would end the read loop
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    def discard_unsent(self) -> None:
        self._pending, self._pending_data_size = [], 0
        writer = getattr(self._transport, "_io_writer", None)
        if writer is None:
            return
        sock = writer.transport.get_extra_info("socket")
        if sock is not None and sock.fileno() != -1:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async def give_up(self) -> None:
        """Leave nothing open of a connection that never stood: interrupted, the library forgets its socket."""
        self.discard_unsent()
        if self._flush_queue is not None:
            await self.close()
        if self._transport is not None:
            with contextlib.suppress(OSError):  # it was aborted, and says so
                await self._transport.wait_closed()  # type: ignore[no-untyped-call]  # the library's

    def push(self, command: bytes) -> None:
        self._pending.append(command)
        self._pending_data_size += len(command)
        queue = self._flush_queue
        if queue is not None and queue.empty():
            queue.put_nowait(asyncio.get_running_loop().create_future())

    def listen(self, subject: str, handler: FrameHandler) -> int:
        self._sid += 1
        self._subs[self._sid] = NatsSubscription(self, self._sid, subject)
        self.direct[self._sid] = handler
        if self.is_connected:
            self.push(b"SUB %b %d\r\n" % (subject.encode(), self._sid))
        return self._sid

    def forget(self, sid: int, *, tell: bool = True) -> None:
        self.direct.pop(sid, None)
        if self._subs.pop(sid, None) is not None and tell and self.is_connected:
            self.push(b"UNSUB %d\r\n" % sid)


def header_block(fields: Mapping[str, str]) -> bytes:
    """The headers of a message as bytes.

    Raises: DataError: as `check_header`.
    """
    lines = ["NATS/1.0"]
    for name, value in fields.items():
        check_header(name, value)
        lines.append(f"{name}: {value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Link:
    """A connection that heals itself. Made by `open_link`."""

    def __init__(self, client: _Client, clock: Clock) -> None:
        self._client, self._clock = client, clock
        self._up = False
        self._closing = False
        self.connected_since_s = clock.monotonic_s()
        self.denials: list[str] = []
        """What the server refused for lack of permission, newest last."""
        self._listeners: dict[int, Listener] = {}
        self._asked: dict[bytes, tuple[asyncio.Future[Answer], str]] = {}
        self._asked_count = 0
        self._inbox = b""
        self.on_denied: Callable[[str], None] | None = None
        """Told the lower-cased subject of a refused publish."""

    @property
    def connected(self) -> bool:
        """True while sending makes sense."""
        return self._up and self._client.is_connected

    @property
    def unsent_bytes(self) -> int:
        """What waits for the peer to read."""
        return self._client.pending_data_size

    @property
    def payload_bytes_max(self) -> int:
        """The server's limit for headers and body together."""
        return self._client.max_payload

    @property
    def jetstream_offered(self) -> bool:
        """Does the server that we are connected to say that it has JetStream?"""
        return bool(self._client._server_info.get("jetstream", False))

    @property
    def nats(self) -> Client:
        """The library's client, for subscriptions of the bus."""
        return self._client

    def attach(self, listener: Listener) -> None:
        """Tell `listener` about losses and returns of the connection, in order of attachment."""
        self._listeners[id(listener)] = listener

    def detach(self, listener: Listener) -> None:
        """Idempotent."""
        self._listeners.pop(id(listener), None)

    def new_inbox(self) -> str:
        """A subject that nobody else listens to."""
        return self._client.new_inbox()

    def listen(self, subject: str, handler: FrameHandler) -> int:
        """Hear a subject until `forget`; survives reconnects."""
        return self._client.listen(subject, handler)

    def forget(self, sid: int) -> None:
        """Hear it no more. Frames under way are dropped."""
        self._client.forget(sid)

    async def forget_after_last(self, sid: int) -> None:
        """Hear it no more, but handle what the server has already sent."""
        if self.connected:
            self._client.push(b"UNSUB %d\r\n" % sid)
            await self.settle("unsubscribe")
        self._client.forget(sid, tell=False)

    async def settle(self, what: str) -> bool:
        """Wait until the server has handled what was sent before. False, and logged, when it does not say so: after a
        reconnect the client tells the server its subscriptions again."""
        try:
            await asyncio.sleep(0)  # noqa: TID251 flush() writes its PING past the buffer: let that drain first
            await self._client.flush(timeout=int(names.REQUEST_DEADLINE_S))
        except nats_errors.Error as error:
            log.info("broker.unconfirmed", extra={"what": what, "error": str(error)})
            return False
        return True

    def send(self, subject: str, body: bytes, *, reply: str = "", headers: bytes = b"") -> None:
        """Queue a message for the socket, now or never.

        Raises: UnavailableError: not connected; nothing was sent.
        """
        if not self.connected:
            msg = "not connected to the broker; nothing was sent"
            raise UnavailableError(msg)
        if headers:
            head, total = len(headers), len(headers) + len(body)
            line = f"HPUB {subject} {reply} {head} {total}\r\n"
        else:
            line = f"PUB {subject} {reply} {len(body)}\r\n"
        self._client.push(b"".join((line.encode(), headers, body, b"\r\n")))

    async def request(self, subject: str, body: bytes, *, timeout_s: float) -> Answer:
        """Ask and get the first answer.

        Raises: UnavailableError: not connected, connection lost, nobody listens, or no answer in time.
            DeniedError: this user may not ask that.
        """
        self._asked_count += 1
        token = b"%d" % self._asked_count
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked[token] = (future, subject)
        try:
            self.send(subject, body, reply=f"{self._inbox.decode()}{token.decode()}")
            async with asyncio.timeout(timeout_s):
                answer = await future
        except TimeoutError as error:
            hint = f"; refused lately: {'; '.join(self.denials[-3:])}" if self.denials else ""
            text = f"{subject}: no answer within {timeout_s:g} s{hint}"
            raise UnavailableError(text) from error
        finally:
            self._asked.pop(token, None)
        if not answer.body and answer.headers and wire.status_of(answer.headers)[0] == 503:
            msg = f"{subject}: nobody answers"
            raise UnavailableError(msg)
        return answer

    async def api(
        self, verb: str, request: Any = None, *, timeout_s: float = names.REQUEST_DEADLINE_S
    ) -> dict[str, Any]:
        """An answer of the JetStream API, e.g. for `STREAM.INFO.HR_RUNS_0`.

        Raises: what `request` raises, and the API's own error as `jetstream_wire.error_from` maps it.
        """
        body = b"" if request is None else wire.encode(request)
        answer = await self.request(f"$JS.API.{verb}", body, timeout_s=timeout_s)
        return wire.decode(answer.body, what=verb)

    async def close(self) -> None:
        """Flush and disconnect, at most twice REQUEST_DEADLINE_S. Idempotent."""
        if self._closing:
            return
        self._closing = True
        if self.connected and not await self.settle("close"):
            self._client.discard_unsent()  # a frozen server takes nothing: the library would wait for it to read
        try:
            async with asyncio.timeout(names.REQUEST_DEADLINE_S):
                await self._client.close()
        except TimeoutError:
            log.warning("broker.close_cut_short")
            self._client.discard_unsent()
        self._lost()

    def opened(self) -> None:
        """The first connection stands."""
        self._inbox = self.new_inbox().encode() + b"."
        self._client.listen(self._inbox.decode() + "*", self._answered)
        self._up, self.connected_since_s = True, self._clock.monotonic_s()

    async def on_disconnected(self) -> None:
        """nats-py: the connection is lost."""
        self._lost()

    async def on_reconnected(self) -> None:
        """nats-py: the connection is back and subscriptions are replayed."""
        self._up, self.connected_since_s = True, self._clock.monotonic_s()
        log.info("broker.connected", extra={"url": _bare(str(self._client.connected_url.netloc))})  # type: ignore[union-attr]  # just connected
        for listener in tuple(self._listeners.values()):
            listener.link_up()

    async def on_error(self, error: Exception) -> None:
        """nats-py: something went wrong that no caller hears of."""
        text = str(error)
        denied = _DENIED.search(text)
        if denied is None:
            log.info("broker.connection_error", extra={"error": f"{type(error).__name__}: {text}"})
            return
        log.error("broker.denied", extra={"error": text})
        self.denials = [*self.denials, denied.group(0)][-DENIALS_KEPT_MAX:]
        if denied.group(1).lower() != "publish":
            return
        subject = denied.group(2).lower()
        for future, asked in tuple(self._asked.values()):
            if asked.lower() == subject and not future.done():
                future.set_exception(DeniedError(f"{asked}: the broker's permissions do not allow it"))
        if self.on_denied is not None:
            self.on_denied(subject)

    def _answered(self, subject: bytes, _reply: bytes, data: bytes, headers: bytes) -> None:
        asked = self._asked.pop(subject[len(self._inbox) :], None)
        if asked is not None and not asked[0].done():
            asked[0].set_result(Answer(data, headers))

    def _lost(self) -> None:
        if not self._up:
            return
        self._up = False
        if not self._closing:
            log.warning("broker.disconnected")
        for future, asked in tuple(self._asked.values()):
            if not future.done():
                future.set_exception(UnavailableError(f"{asked}: the connection was lost"))
        self._asked.clear()
        for listener in tuple(self._listeners.values()):
            listener.link_down()


class _Attempts:
    """What was tried, for the person who reads why it failed. Equal failures in a row are one line."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._began_s = clock, clock.monotonic_s()
        self._lines: list[tuple[float, float, int, str]] = []

    def add(self, text: str) -> None:
        at = self._clock.monotonic_s() - self._began_s
        if self._lines and self._lines[-1][3] == text:
            first, _, count, _ = self._lines[-1]
            self._lines[-1] = (first, at, count + 1, text)
        else:
            self._lines = [*self._lines[-9:], (at, at, 1, text)]

    def text(self) -> str:
        """One line per kind of failure."""
        lines = [
            f"  {first:.1f} s: {text}" if count == 1 else f"  {first:.1f} s to {last:.1f} s, {count} attempts: {text}"
            for first, last, count, text in self._lines
        ]
        return "\n".join(lines) or "  no attempt got an answer"


def _bare(url: str) -> str:
    return re.sub(r"//[^@/]*@|^[^@/]*@", lambda found: "//" if found.group(0).startswith("//") else "", url)


def _credentials(creds: str | None) -> dict[str, Any]:
    """nats-py's options for credentials: the text of a credentials file, a seed, or the path of such a file.

    Raises: ConfigError: the file cannot be read, or the package that signs with it is missing.
    """
    if not creds:
        return {}
    if "BEGIN NATS USER JWT" not in creds and not creds.startswith("SU"):
        try:
            creds = Path(creds).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            text = f"the NATS credentials file {creds} cannot be read: {error}"
            raise ConfigError(text) from error
    if importlib.util.find_spec("nkeys") is None:
        text = "NATS credentials and nkey seeds need the package nkeys: install nats-py[nkeys]"
        raise ConfigError(text)
    return {"nkeys_seed_str": creds} if creds.startswith("SU") else {"user_credentials": RawCredentials(creds)}


async def open_link(url: str, *, name: str, creds: str | None, clock: Clock, deadline_s: float) -> Link:
    """A connected link.

    Raises: UnavailableError: no connection within `deadline_s`; the text lists the attempts.
        DeniedError: the server refuses the credentials. ConfigError: they cannot be read or the URL is no URL.
    """
    credentials = _credentials(creds)
    client = _Client()
    link = Link(client, clock)
    attempts = _Attempts(clock)
    where = _bare(url)
    denied: list[str] = []
    opened = False

    async def on_error(error: Exception) -> None:
        if opened:
            await link.on_error(error)
            return
        text = f"{type(error).__name__}: {error}"
        attempts.add(text)
        if "authorization violation" in text.lower() or "authorizationerror" in text.lower():
            denied.append(text)
            scope.reschedule(asyncio.get_running_loop().time())

    try:
        async with asyncio.timeout(deadline_s) as scope:
            await client.connect(
                servers=[part.strip() for part in url.split(",")],
                name=name,
                error_cb=on_error,
                disconnected_cb=link.on_disconnected,
                reconnected_cb=link.on_reconnected,
                connect_timeout=CONNECT_ATTEMPT_S,
                reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type]  # it is handed to asyncio.sleep
                max_reconnect_attempts=-1,
                ping_interval=PING_S,
                max_outstanding_pings=PINGS_OUT_MAX,
                pending_size=0,  # publishing while disconnected raises instead of being stored some day
                **credentials,
            )
        opened = True
    except TimeoutError as error:
        if denied:
            text = f"{where}: the broker refuses these credentials ({denied[0]})"
            raise DeniedError(text) from error
        text = f"{where}: no connection within {deadline_s:g} s:\n{attempts.text()}"
        raise UnavailableError(text) from error
    except (ValueError, nats_errors.Error) as error:
        text = f"{where}: cannot connect with this URL and these credentials: {type(error).__name__}: {error}"
        raise ConfigError(text) from error
    finally:
        if not opened:
            await client.give_up()
    link.opened()
    return link
