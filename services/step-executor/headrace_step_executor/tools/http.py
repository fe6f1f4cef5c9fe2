"""`http.request`: one request over HTTP/1.1, to an address that was checked before the connection was made.

The protocol is h11's, the connection is ours: nothing between the check of an address and the connection to
it can resolve the name again, follow a redirect by itself, use a proxy from the environment, or retry.
"""

import asyncio
import base64
import binascii
import functools
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlencode, urljoin

import h11

from headrace.contracts.canonical import sha256_hex
from headrace.contracts.codec import encode_value
from headrace.contracts.errors import AttemptError
from headrace.runtime.clock import Clock
from headrace_step_executor.retry_after import retry_after_ms
from headrace_step_executor.tools.addresses import (
    AllowList,
    Resolver,
    Target,
    admitted,
    parse_target,
    texts_of,
)
from headrace_step_executor.tools.call import ToolCall, refuse, try_later
from headrace_step_executor.tools.fs_read import json_value
from headrace_step_executor.tools.inflate import Inflated

CONNECT_S: Final = 5.0
ADDRESSES_TRIED_MAX: Final = 3
HEAD_BYTES_MAX: Final = 64 * 1024
"""Status line and headers of an answer."""
CHUNK_BYTES: Final = 64 * 1024
HERE_BYTES_MAX: Final = 256 * 1024
"""A longer body is hashed and parsed in a thread."""
_CHARSET: Final = re.compile(
    r"utf-?8|utf-?16(le|be)?|(us-)?ascii|iso-?8859-?\d{1,2}|latin-?1|(windows-|cp)(125\d|874|932|949|1361)|koi8-[ru]"
    r"|gb(k|2312|18030)|big5(-hkscs)?|euc-(jp|kr)|shift[_-]?jis|iso-2022-jp|macintosh"
)
"""Character sets of the web. Python's codecs are more: some run code of theirs, or give what no text is."""
_CHANGING: Final = ("POST", "PUT", "PATCH", "DELETE")
_OURS: Final = frozenset(
    ("host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect",
     "keep-alive", "proxy-authorization", "proxy-connection", "accept-encoding")
)  # fmt: skip
_CREDENTIALS: Final = ("authorization", "cookie", "proxy-authorization", "x-api-key", "idempotency-key")
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_LATER: Final = {408: "timeout", 425: "unavailable", 429: "rate_limited", 500: "unavailable",
                 502: "unavailable", 503: "unavailable", 504: "timeout", 529: "overloaded"}  # fmt: skip


@dataclass(slots=True, frozen=True)
class Outgoing:
    """A request, ready to be sent."""

    method: str
    target: Target
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True, frozen=True)
class Answer:
    """What came back. `body` is decompressed."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str


class HttpTool:
    """The tool `http.request`, with what the operator allows."""

    def __init__(
        self,
        clock: Clock,
        *,
        allowed: AllowList,
        resolve: Resolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._clock, self._allowed, self._resolve, self._tls = clock, allowed, resolve, tls

    async def __call__(self, call: ToolCall) -> Any:
        """The tool's result. Raises AttemptError; the attempt's deadline is the caller's."""
        args = call.args
        answer = await self.fetch(call, outgoing(call))
        accepted = args.get("accept_status") or range(200, 300)
        if answer.status not in accepted:
            raise self._refused(answer)
        if len(answer.body) <= HERE_BYTES_MAX:
            return _result(answer)
        return await asyncio.get_running_loop().run_in_executor(call.threads, _result, answer)

    async def fetch(self, call: ToolCall, sent: Outgoing) -> Answer:
        """The last answer of a chain of redirects, each checked like the first address."""
        followed = 0
        while True:
            answer = await self._exchange(call, sent)
            location = answer.headers.get("location")
            if answer.status not in _REDIRECTS or not location:
                return answer
            if answer.status in (call.args.get("accept_status") or ()) or not call.args["redirects_max"]:
                return answer
            followed += 1
            if followed > call.args["redirects_max"]:
                msg = "too_many_redirects"
                raise refuse(msg, f"more than {call.args['redirects_max']} redirects")
            sent = _redirected(sent, answer.status, location)

    async def _exchange(self, call: ToolCall, sent: Outgoing) -> Answer:
        resolve = self._resolve or functools.partial(_system_resolve, call)
        addresses = await admitted(sent.target, resolve, self._allowed)
        reader, writer = await self._connect(sent.target, addresses)
        try:
            return await _converse(reader, writer, sent, bytes_max=call.args["max_bytes"])
        except h11.RemoteProtocolError as error:
            msg = "malformed"
            raise try_later(msg, f"{sent.target.host}: {error}") from error
        except OSError as error:
            msg = "connection_lost"
            raise try_later(msg, f"{sent.target.host}: {error}") from error
        finally:
            writer.transport.abort()

    async def _connect(
        self, target: Target, addresses: tuple[str, ...]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        secure = target.scheme == "https"
        context = (self._tls or _default_tls()) if secure else None
        last: Exception | None = None
        for address in addresses[:ADDRESSES_TRIED_MAX]:
            try:
                async with asyncio.timeout(CONNECT_S):
                    return await asyncio.open_connection(
                        address, target.port, ssl=context, server_hostname=target.host if secure else None
                    )
            except ssl.SSLCertVerificationError as error:
                msg = "tls_invalid"
                raise refuse(msg, f"{target.host}: {error.verify_message}") from error
            except (OSError, TimeoutError) as error:
                last = error
        msg = "connect"
        raise try_later(msg, f"{target.host}:{target.port}: {last or 'no address'}") from last

    def _refused(self, answer: Answer) -> AttemptError:
        message = f"{answer.url} answered {answer.status}: {_shown(answer.body)}"
        code = _LATER.get(answer.status)
        if code is None and answer.status < 500:
            return refuse("http_status", message)
        wait_ms = retry_after_ms(answer.headers.get("retry-after"), now_ms=self._clock.now_ms())
        return try_later(code or "unavailable", message, retry_after_ms=wait_ms)


@functools.cache
def _default_tls() -> ssl.SSLContext:
    return ssl.create_default_context()


async def _system_resolve(call: ToolCall, host: str, port: int) -> list[str]:
    def look_up() -> Any:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)

    return texts_of(await asyncio.get_running_loop().run_in_executor(call.threads, look_up))


def outgoing(call: ToolCall) -> Outgoing:
    """The request that the arguments describe. Raises AttemptError."""
    args = call.args
    target = parse_target(args["url"])
    if args.get("query"):
        joint = "&" if "?" in target.path else "?"
        target = replace(target, path=target.path + joint + urlencode(args["query"]))
    headers = {"accept": "*/*", "accept-encoding": "gzip", "user-agent": "headrace"}
    headers["x-attempt"] = str(call.attempt)
    if args["method"] in _CHANGING:
        headers["idempotency-key"] = call.key
    body, kind = _body(args)
    if kind:
        headers["content-type"] = kind
    for name, value in (args.get("headers") or {}).items():
        if name.lower() in _OURS:
            msg = "tool_args_invalid"
            raise refuse(msg, f"the header {name[:60]!r} is set by the tool itself")
        if not value.isascii() or any(ord(char) < 32 and char != "\t" for char in value):
            msg = "tool_args_invalid"
            raise refuse(msg, f"the value of header {name[:60]!r} is not printable ASCII")
        headers[name.lower()] = value
    return Outgoing(args["method"], target, headers, body)


def _body(args: Mapping[str, Any]) -> tuple[bytes, str]:
    if "json" in args:
        return encode_value(args["json"]), "application/json"
    if "text" in args:
        return args["text"].encode(), "text/plain; charset=utf-8"
    if "base64" in args:
        try:
            return base64.b64decode(args["base64"], validate=True), "application/octet-stream"
        except (binascii.Error, ValueError) as error:
            msg = "tool_args_invalid"
            raise refuse(msg, f"base64: {error}") from error
    return b"", ""


def _redirected(sent: Outgoing, status: int, location: str) -> Outgoing:
    target = parse_target(urljoin(sent.target.url, location))
    same_origin = (target.scheme, target.host, target.port) == (
        sent.target.scheme,
        sent.target.host,
        sent.target.port,
    )
    headers = {name: value for name, value in sent.headers.items() if same_origin or name not in _CREDENTIALS}
    if status == 303 or (status in (301, 302) and sent.method == "POST"):
        headers.pop("content-type", None)
        method = sent.method if sent.method == "HEAD" else "GET"
        return Outgoing(method, target, headers, b"")
    return Outgoing(sent.method, target, headers, sent.body)


async def _converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, sent: Outgoing, *, bytes_max: int
) -> Answer:
    protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)
    headers = [("host", sent.target.authority), ("connection", "close"), *sent.headers.items()]
    if sent.body or sent.method in _CHANGING:
        headers.append(("content-length", str(len(sent.body))))
    try:
        head = protocol.send(h11.Request(method=sent.method, target=sent.target.path, headers=headers))
    except h11.LocalProtocolError as error:
        msg = "tool_args_invalid"
        raise refuse(msg, f"not a valid request: {error}") from error
    body = protocol.send(h11.Data(data=sent.body)) if sent.body else b""
    writer.write((head or b"") + (body or b"") + (protocol.send(h11.EndOfMessage()) or b""))
    await writer.drain()
    response: h11.Response | None = None
    inflated: Inflated | None = None
    while True:
        event = protocol.next_event()
        if event is h11.NEED_DATA:
            protocol.receive_data(await reader.read(CHUNK_BYTES))
        elif isinstance(event, h11.Response):
            response = event
            inflated = Inflated(_joined(event).get("content-encoding", ""), bytes_max=bytes_max)
        elif isinstance(event, h11.Data) and inflated is not None:
            inflated.feed(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage) and response is not None and inflated is not None:
            return Answer(response.status_code, _joined(response), inflated.finish(), sent.target.url)
        elif event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
            msg = "the connection was closed before the answer was whole"
            raise h11.RemoteProtocolError(msg)


def _joined(response: h11.Response) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in response.headers:
        key, text = name.decode("ascii"), value.decode("latin-1")
        joined[key] = f"{joined[key]}, {text}" if key in joined else text
    return joined


def _result(answer: Answer) -> dict[str, Any]:
    result: dict[str, Any] = {
        "status": answer.status,
        "url": answer.url,
        "headers": dict(answer.headers),
        "bytes": len(answer.body),
        "sha256": sha256_hex(answer.body),
    }
    kind, _, rest = answer.headers.get("content-type", "").partition(";")
    kind = kind.strip().lower()
    charset = rest.partition("charset=")[2].partition(";")[0].strip(" \"'").lower() or "utf-8"
    if not answer.body:
        return result
    try:
        if kind == "application/json" or kind.endswith("+json"):
            result["json"] = json_value(answer.body.decode("utf-8-sig"), answer.url)
            return result
        is_text = kind.startswith("text/") or kind in ("application/xml", "application/javascript")
        if is_text and _CHARSET.fullmatch(charset):
            result["text"] = answer.body.decode(charset)
            return result
    except AttemptError as error:
        msg = "malformed"
        raise try_later(msg, f"{answer.url}: {error}") from error
    except (UnicodeDecodeError, LookupError):
        pass  # not what its content type says: given as bytes, which is always right
    result["base64"] = base64.b64encode(answer.body).decode()
    return result


def _shown(body: bytes) -> str:
    return ascii(body[:200].decode("utf-8", "replace"))
