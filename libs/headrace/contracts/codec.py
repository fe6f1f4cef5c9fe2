"""Bytes ↔ messages. One msgspec decode on the way in; old types take the slower road through the upcasts."""

from typing import Any, TypeVar

import msgspec

from headrace.contracts import names
from headrace.contracts.commands import VERBS, Command
from headrace.contracts.envelope import SPECVERSION, Value
from headrace.contracts.errors import MalformedMessageError, NewerSchemaError
from headrace.contracts.events import StoredMessage
from headrace.contracts.upcasts import UPCASTS, upcast

_encoder = msgspec.json.Encoder()
_sorted = msgspec.json.Encoder(order="sorted")
_stored: msgspec.json.Decoder[StoredMessage] = msgspec.json.Decoder(StoredMessage)
_any = msgspec.json.Decoder()
T = TypeVar("T")

KNOWN_PREFIX = "io.headrace."
_RETIRED = tuple(tag.encode() for tag in UPCASTS)


def encode(message: Any) -> bytes:
    """JSON bytes of a message or of any of our structs."""
    return _encoder.encode(message)


def decode(body: bytes) -> StoredMessage:
    """The message, in its newest form.

    Raises:
        NewerSchemaError: well formed, but of a type or version this release does not know.
        MalformedMessageError: anything else. Park the bytes.
    """
    if _RETIRED and any(tag in body for tag in _RETIRED):
        return _decode_slowly(body)
    try:
        return _stored.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _why(body, error) from error


def _decode_slowly(body: bytes) -> StoredMessage:
    try:
        message: StoredMessage = msgspec.convert(upcast(_any.decode(body)), StoredMessage)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _why(body, error) from error
    return message


def _why(body: bytes, error: Exception) -> MalformedMessageError | NewerSchemaError:
    """Tell a message from the future from garbage: a future one is well formed and names an unknown type."""
    try:
        raw = _any.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return MalformedMessageError(f"not JSON: {error}")
    kind = raw.get("type") if isinstance(raw, dict) else None
    if isinstance(kind, str) and kind.startswith(KNOWN_PREFIX) and "Invalid value" in str(error):
        return NewerSchemaError(f"this release does not know {kind!r} or something inside it: {error}")
    return MalformedMessageError(str(error))


def decode_as(kind: type[T], body: bytes) -> T:
    """Decode a live message, request or reply of a known type.

    Raises:
        MalformedMessageError: the bytes are something else.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"not a {kind.__name__}: {error}"
        raise MalformedMessageError(msg) from error


def decode_command(verb: str, tenant: str, body: bytes, headers: dict[str, str], *, fallback_id: str) -> Command:
    """A command as structured CloudEvent, binary-mode CloudEvent (`ce-` headers) or plain JSON body.

    Args:
        verb: Last token of the subject; it decides what the body must be.
        tenant: From the subject, which is what permissions guard. A body that names another tenant is malformed.
        fallback_id: Identity for a plain body without one, e.g. made of stream and sequence.

    Raises:
        MalformedMessageError: with what is wrong and what the verb expects.
    """
    kind = VERBS.get(verb)
    if kind is None:
        msg = f"unknown verb {verb!r}; known are {', '.join(sorted(VERBS))}"
        raise MalformedMessageError(msg)
    if len(body) > names.COMMAND_BYTES_MAX:
        msg = f"{len(body)} bytes; a command has at most {names.COMMAND_BYTES_MAX}"
        raise MalformedMessageError(msg)
    try:
        raw = _any.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"not JSON: {error}"
        raise MalformedMessageError(msg) from error
    if not isinstance(raw, dict):
        msg = "a command is a JSON object"
        raise MalformedMessageError(msg)
    lower = {name.lower(): value for name, value in headers.items()}
    if "specversion" in raw and "data" in raw:
        event = dict(raw)
    else:
        event = _from_headers(lower)
        event["data"] = raw
    event["id"] = event.get("id") or lower.get("nats-msg-id") or fallback_id
    if not isinstance(event["id"], str) or not 1 <= len(event["id"]) <= 128:
        msg = "`id` is text of 1 to 128 characters"
        raise MalformedMessageError(msg)
    for name in ("traceparent", "tracestate"):
        if name in lower:
            event.setdefault(name, lower[name])
    if event.setdefault("tenant", tenant) != tenant:
        msg = f"tenant {event['tenant']!r} on a subject of tenant {tenant!r}"
        raise MalformedMessageError(msg)
    tag = kind.__struct_config__.tag
    if event.setdefault("type", tag) != tag:
        msg = f"type {event['type']!r} on verb {verb!r}, which expects {tag!r}"
        raise MalformedMessageError(msg)
    event = {"specversion": SPECVERSION, "source": "unknown", "time": "", "schemaver": 1} | event
    if event["specversion"] != SPECVERSION:
        msg = f"specversion {event['specversion']!r}; only {SPECVERSION!r} is understood"
        raise MalformedMessageError(msg)
    try:
        return msgspec.convert(event, kind)
    except msgspec.ValidationError as error:
        raise MalformedMessageError(str(error)) from error


def _from_headers(headers: dict[str, str]) -> dict[str, Any]:
    """The attributes of a binary-mode event. Headers are text, so the two whole numbers are read from it."""
    event: dict[str, Any] = {name[3:]: value for name, value in headers.items() if name.startswith("ce-")}
    for name in ("schemaver", "attempt"):
        if event.get(name, "").isdecimal():
            event[name] = int(event[name])
    return event


def inline(value: Any) -> Value:
    """A JSON value as an inline `Value`. The caller checks size and finiteness (msgspec writes NaN as null)."""
    return Value(json=msgspec.Raw(encode_value(value)))


def encode_value(value: Any) -> bytes:
    """A JSON value with sorted keys and numbers as they are: 1.0 stays a float. Canonical JSON is for hashes only."""
    return _sorted.encode(value)


def plain(raw: msgspec.Raw) -> Any:
    """The Python value of raw JSON."""
    return _any.decode(raw)
