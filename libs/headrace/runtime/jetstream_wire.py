"""What nats-server says, taken apart: acknowledgement subjects, headers, times and API errors. Pure."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec

from headrace.contracts.errors import (
    ConfigError,
    ConsumerGoneError,
    DataError,
    DeniedError,
    HeadraceError,
    NotFoundError,
    StorageFullError,
    TerminalError,
    UnavailableError,
)

NS_PER_S: Final = 1_000_000_000
ACK_PREFIX: Final = b"$JS.ACK."
WRONG_LAST: Final = frozenset({10071, 10164})
"""The expected sequence was not met. 10164 is what three nodes say while another append of the scope is in flight."""
NO_MESSAGE: Final = 10037
STREAM_MISSING: Final = 10059
CONSUMER_MISSING: Final = 10014
_FULL: Final = frozenset({10077, 10047, 10028, 10023, 10002})
"""Stream limit, storage, memory, resources, account limit: nothing was stored, and space must be made."""
_JETSTREAM_OFF: Final = frozenset({10039, 10076})
_TOO_LARGE: Final = 10054
_INVALID_CONFIG: Final = frozenset({10052, 10012})
"""Of a stream, of a consumer: the server says 500, but asking again will not help."""


class ApiError(msgspec.Struct):
    """The error part of an answer of the JetStream API."""

    code: int = 500
    err_code: int = 0
    description: str = ""


class DeliveryInfo(NamedTuple):
    """What the reply subject of a delivered message says."""

    deliveries: int
    stream_seq: int
    consumer_seq: int
    time_ms: int
    pending: int


class RawHeaders(Mapping[str, str]):
    """Headers of a message, parsed when somebody looks: most readers never do, and parsing costs about 1 µs each."""

    __slots__ = ("_parsed", "_raw")

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._parsed: dict[str, str] | None = None if raw else {}

    def _all(self) -> dict[str, str]:
        if self._parsed is None:
            self._parsed = parse_headers(self._raw)
        return self._parsed

    def __getitem__(self, key: str) -> str:
        return self._all()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __repr__(self) -> str:
        return f"RawHeaders({self._all()!r})"


NO_HEADERS: Final = RawHeaders(b"")


def parse_headers(raw: bytes) -> dict[str, str]:
    """The fields of a header block; of a repeated name the last value."""
    fields: dict[str, str] = {}
    for line in raw.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            fields[name.strip().decode("ascii", "replace")] = value.strip().decode("utf-8", "replace")
    return fields


def status_of(raw: bytes) -> tuple[int, str]:
    """Code and text of a status line such as `NATS/1.0 409 Consumer Deleted`; 0 where the headers have none."""
    line = raw.partition(b"\r\n")[0]
    code, _, text = line[9:].partition(b" ")
    return (int(code), text.decode("ascii", "replace")) if code.isdigit() else (0, "")


def delivery_info(reply: bytes) -> DeliveryInfo:
    """Parse `$JS.ACK.<stream>.<consumer>.<deliveries>.<sseq>.<cseq>.<ns>.<pending>`.

    The second form has domain and account hash before the stream; a random token may follow.
    """
    part = reply.split(b".")
    at = 2 if len(part) == 9 else 4
    return DeliveryInfo(
        int(part[at + 2]),
        int(part[at + 3]),
        int(part[at + 4]),
        int(part[at + 5]) // 1_000_000,
        int(part[at + 6]),
    )


def time_ms(text: str) -> int:
    """Milliseconds since 1970 of the API's RFC 3339 text in UTC, cut off, as `delivery_info` cuts them off."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    return int(datetime.fromisoformat(f"{whole}+00:00").timestamp()) * 1000 + int((fraction + "000")[:3])


def error_from(error: ApiError, *, what: str) -> HeadraceError:
    """The error of our tree that an API error means. The caller raises it."""
    text = f"{what}: {error.description} (error {error.err_code or error.code})"
    match error.err_code:
        case code if code in _FULL:
            return StorageFullError(text)
        case code if code in _JETSTREAM_OFF:
            return ConfigError(f"{text}; JetStream must be enabled on the server and for this account")
        case code if code in _INVALID_CONFIG:
            return ConfigError(text)
        case code if code == STREAM_MISSING:
            return NotFoundError(f"{text}; `headrace admin migrate` makes the streams")
        case code if code == CONSUMER_MISSING:
            return ConsumerGoneError(text)
        case code if code == _TOO_LARGE:
            return DataError(text)
    if error.code >= 500:
        return UnavailableError(text)
    if error.code == 403:
        return DeniedError(text)
    return TerminalError(text)


class _Message(msgspec.Struct):
    subject: str
    seq: int
    time: str
    data: str = ""
    hdrs: str = ""


class _MessageAnswer(msgspec.Struct):
    message: _Message | None = None
    error: ApiError | None = None


_decode_message = msgspec.json.Decoder(_MessageAnswer).decode


def decode_message(data: bytes, *, what: str) -> _Message | None:
    """The message in an answer of MSG.GET, or None where there is none.

    Raises: any other error that the answer contains.
    """
    answer = _decode_message(data)
    if answer.error is not None:
        if answer.error.err_code == NO_MESSAGE:
            return None
        raise error_from(answer.error, what=what)
    return answer.message


def encode(value: Any) -> bytes:
    """JSON for an API request."""
    return msgspec.json.encode(value)


def decode(data: bytes, *, what: str) -> dict[str, Any]:
    """The JSON object in an API answer.

    Raises: the error that the answer contains, mapped by `error_from`.
    """
    answer: dict[str, Any] = msgspec.json.decode(data, type=dict[str, Any])
    if "error" in answer:
        raise error_from(msgspec.convert(answer["error"], ApiError), what=what)
    return answer
