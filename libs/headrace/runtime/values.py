"""JSON values on their way into and out of messages. Pure: no clock, no random source, no IO."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from headrace.contracts.codec import encode_value, plain
from headrace.contracts.envelope import ItemResult, Value
from headrace.contracts.errors import CorruptError, TerminalError

INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**63 - 1
_ANY_DIGIT: Final = bytes.maketrans(b"123456789", b"0" * 9)
_LONG_NUMBER: Final = b"0" * 19
"""Perhaps an integer beyond 64 bits; perhaps digits in a text, which then cost one walk over the value."""
_SLICE_BYTES: Final = 1024 * 1024
"""Looked at in one go: in a thread, the event loop gets its turn between two slices."""
_NO_VALUES: Final[Mapping[str, Any]] = {}


class OutOfRangeError(TerminalError):
    """A number that JSON or a 64-bit reader cannot hold: NaN, an infinity, an integer beyond 64 bits."""

    code = "out_of_range"


class NotJsonError(TerminalError):
    """A value that has no JSON form."""

    code = "result_invalid"


def encode_checked(value: Any) -> bytes:
    """Sorted JSON of a value that is finite, within 64 bits and valid Unicode; lone surrogates become U+FFFD.

    A second per 64 MiB of CPU for a value full of nulls: large values belong into a thread.

    Raises:
        OutOfRangeError: with the place of the first number that does not fit.
        NotJsonError: the value holds something that is no JSON, or is nested too deep.
    """
    try:
        try:
            data = encode_value(value)
        except UnicodeEncodeError:
            value = without_surrogates(value)
            data = encode_value(value)
        # msgspec writes NaN and infinities as null, and integers of any length as they are.
        if _is_suspicious(data):
            _check_numbers(value, "$")
    except (TypeError, msgspec.MsgspecError) as error:
        msg = f"the result is no JSON: {error}"
        raise NotJsonError(msg) from error
    except RecursionError as error:
        msg = "the result is nested too deep"
        raise NotJsonError(msg) from error
    return data


def _is_suspicious(data: bytes) -> bool:
    """True when a number that does not fit may be inside. Byte searches: a regular expression took 20 times as long."""
    for start in range(0, len(data), _SLICE_BYTES):
        part = data[start : start + _SLICE_BYTES + len(_LONG_NUMBER)]
        if b"null" in part or _LONG_NUMBER in part.translate(_ANY_DIGIT):
            return True
    return False


def without_surrogates(value: Any) -> Any:
    """The value with every lone surrogate replaced by U+FFFD, in keys too."""
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case dict():
            return {without_surrogates(key): without_surrogates(item) for key, item in value.items()}
        case list() | tuple():
            return [without_surrogates(item) for item in value]
    return value


def _check_numbers(value: Any, place: str) -> None:
    match value:
        case bool() | str() | None:
            return
        case int() if not INT_MIN <= value <= INT_MAX:
            msg = f"{place}: an integer of {value.bit_length()} bits; 64 is the most"
            raise OutOfRangeError(msg)
        case float() if not math.isfinite(value):
            msg = f"{place}: {value} is not finite"
            raise OutOfRangeError(msg)
        case dict():
            for key, item in value.items():
                _check_numbers(item, f"{place}.{key}")
        case list() | tuple():
            for index, item in enumerate(value):
                _check_numbers(item, f"{place}[{index}]")


def foreach_output(results: Sequence[ItemResult], stored: Mapping[str, Any] = _NO_VALUES) -> dict[str, Any]:
    """What `steps.<foreach>.output` is: `items` by index (null where there is none), `failed`, `counts`.

    Args:
        stored: Reference → JSON value, for items whose value is held by reference.

    Raises:
        CorruptError: an item's value is by reference and is not among `stored`.
    """
    items = [None if result.value is None else _item_value(result.value, stored) for result in results]
    failed = [
        {"index": index, "code": result.failure.code, "message": result.failure.message}
        for index, result in enumerate(results)
        if result.status == "failed" and result.failure is not None
    ]
    statuses = [result.status for result in results]
    counts = {"total": len(results)} | {status: statuses.count(status) for status in ("succeeded", "failed", "skipped")}
    return {"items": items, "failed": failed, "counts": counts}


def foreach_results(results: Sequence[ItemResult], stored: Mapping[str, Any] = _NO_VALUES) -> list[dict[str, Any]]:
    """What `steps.<foreach>.items` is: `{status, output, error}` by index, as the same names of a step are.

    Args, raises: as `foreach_output`.
    """
    return [
        {
            "status": result.status,
            "output": None if result.value is None else _item_value(result.value, stored),
            "error": None if result.failure is None else msgspec.to_builtins(result.failure),
        }
        for result in results
    ]


COMPOSED: Final[Mapping[str, Callable[[Sequence[ItemResult], Mapping[str, Any]], Any]]] = {
    "items": foreach_output,
    "results": foreach_results,
}
"""Forms of values that are made of an array of `ItemResult`."""


def _item_value(value: Value, stored: Mapping[str, Any]) -> Any:
    if isinstance(value.json, msgspec.Raw):
        return plain(value.json)
    if value.ref not in stored:
        msg = f"the value {value.ref} of an item is not at hand"
        raise CorruptError(msg)
    whole = stored[value.ref]
    return whole if value.index < 0 else whole[value.index]


def joined(arrays: Sequence[bytes]) -> bytes:
    """One JSON array of the elements of several, none of which is empty: the bytes of a value in parts."""
    return b"[" + b",".join(array[1:-1] for array in arrays) + b"]"


def item_refs(results: Sequence[ItemResult]) -> tuple[str, ...]:
    """References that `foreach_output` needs, each once, in order."""
    refs = (result.value.ref for result in results if result.value is not None and result.value.ref)
    return tuple(dict.fromkeys(refs))
