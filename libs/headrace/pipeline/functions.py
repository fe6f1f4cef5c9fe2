"""What the functions beyond CEL's own do, as plain Python over JSON values. Pure: the same in every process.

A wrong argument raises `ValueError`; the message becomes the error of the step, so it says what was found.
Maps have no order in CEL, so whatever lists a map does it by key.
"""

import hashlib
import json as json_module
import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

INT_MIN, INT_MAX = -(2**63), 2**63 - 1
TEXT_CHARS_MAX = 16 * 1024 * 1024
"""What one function may build: a few nested replacements would otherwise fill any memory."""
_sorted = msgspec.json.Encoder(order="sorted")
JSON_DEPTH_MAX = 100
"""Deeper JSON text is refused: nothing that people write comes near, and readers downstream recurse."""


def as_text(value: Any) -> str:
    """How a value looks inside text: strings as they are, everything else as JSON."""
    return value if isinstance(value, str) else _sorted.encode(value).decode()


def kind_of(value: Any) -> str:
    """The value's type as messages name it."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a double"
        case str():
            return "text"
        case list() | tuple():
            return "a list"
        case dict():
            return "a map"
    return type(value).__name__


def _listed(value: Any, function: str) -> Sequence[Any]:
    if not isinstance(value, (list, tuple)):
        msg = f"{function}() takes a list, got {kind_of(value)}"
        raise ValueError(msg)
    return value


def _mapped(value: Any, function: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        msg = f"{function}() takes a map, got {kind_of(value)}"
        raise ValueError(msg)
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _numbers(values: Any, function: str) -> Sequence[int | float]:
    for index, value in enumerate(_listed(values, function)):
        if not _is_number(value):
            msg = f"{function}() takes numbers, got {kind_of(value)} at index {index}"
            raise ValueError(msg)
    return values  # type: ignore[no-any-return]  # every element was just checked


def _in_range(number: int | float, function: str) -> int | float:
    if isinstance(number, int) and not INT_MIN <= number <= INT_MAX:
        msg = f"{function}() leaves the 64-bit range"
        raise ValueError(msg)
    if isinstance(number, float) and not math.isfinite(number):
        msg = f"{function}() is not finite"
        raise ValueError(msg)
    return number


def total(values: Any) -> int | float:
    """`sum`: of integers an integer, with any double among them a double; 0 of nothing."""
    return _in_range(sum(_numbers(values, "sum")), "sum")


def average(values: Any) -> float:
    """`avg`: always a double. Of nothing it is an error, not 0."""
    numbers = _numbers(values, "avg")
    if not numbers:
        msg = "avg() of an empty list has no value"
        raise ValueError(msg)
    return float(_in_range(sum(numbers) / len(numbers), "avg"))


def _sortable(values: Sequence[Any], function: str) -> None:
    if all(isinstance(value, str) for value in values) or all(_is_number(value) for value in values):
        return
    kinds = sorted({kind_of(value) for value in values})
    msg = f"{function}() compares numbers or texts, got {', '.join(kinds)}"
    raise ValueError(msg)


def least(values: Any) -> Any:
    """`min` of numbers or of texts. Of nothing it is an error."""
    return _extreme(values, min, "min")


def greatest(values: Any) -> Any:
    """`max` of numbers or of texts. Of nothing it is an error."""
    return _extreme(values, max, "max")


def _extreme(values: Any, pick: Callable[[Sequence[Any]], Any], function: str) -> Any:
    if not _listed(values, function):
        msg = f"{function}() of an empty list has no value"
        raise ValueError(msg)
    _sortable(values, function)
    return pick(values)


def at_path(value: Any, path: str, function: str) -> Any:
    """The value at a dotted path such as `metrics.lines`; an empty path is the value itself."""
    for name in path.split(".") if path else ():
        if not isinstance(value, dict):
            msg = f'{function}(): "{path}" looks for `{name}` in {kind_of(value)}'
            raise ValueError(msg)
        if name not in value:
            msg = f'{function}(): an item has no `{name}` on the path "{path}"'
            raise ValueError(msg)
        value = value[name]
    return value


def sort_by(values: Any, path: str) -> list[Any]:
    """The items by what lies at the path, stable; a leading `-` turns the order round."""
    descending = path.startswith("-")
    plain = path.removeprefix("-")
    keys = [at_path(value, plain, "sort_by") for value in _listed(values, "sort_by")]
    _sortable(keys, "sort_by")
    order = sorted(range(len(keys)), key=lambda index: keys[index], reverse=descending)
    return [values[index] for index in order]


def group_by(values: Any, path: str) -> list[dict[str, Any]]:
    """`[{key, items}]` in order of first appearance. A list, because a key may be a number and maps have no order."""
    groups: dict[bytes, dict[str, Any]] = {}
    for value in _listed(values, "group_by"):
        key = at_path(value, path, "group_by")
        groups.setdefault(_sorted.encode(key), {"key": key, "items": []})["items"].append(value)
    return list(groups.values())


def unique(values: Any) -> list[Any]:
    """The first of every group of equal items, in order."""
    first: dict[bytes, Any] = {}
    for value in _listed(values, "unique"):
        first.setdefault(_sorted.encode(value), value)
    return list(first.values())


def flatten(values: Any) -> list[Any]:
    """One level of lists taken out; what is not a list stays."""
    flat: list[Any] = []
    for value in _listed(values, "flatten"):
        if isinstance(value, (list, tuple)):
            flat.extend(value)
        else:
            flat.append(value)
    return flat


def keys(value: Any) -> list[str]:
    """The keys of a map, sorted."""
    return sorted(_mapped(value, "keys"))


def values(value: Any) -> list[Any]:
    """The values of a map, by key."""
    mapped = _mapped(value, "values")
    return [mapped[key] for key in sorted(mapped)]


def merge(left: Any, right: Any) -> dict[str, Any]:
    """Both maps in one; where both have a key, the right one's value."""
    return {**_mapped(left, "merge"), **_mapped(right, "merge")}


def coalesce(*candidates: Any) -> Any:
    """The first that is not null; null when all are."""
    return next((value for value in candidates if value is not None), None)


def ordered(value: Any) -> list[Any]:
    """What a comprehension runs over: a list as it is, a map's keys sorted (CEL's own order differs by process)."""
    return sorted(value) if isinstance(value, dict) else list(_listed(value, "map"))


def _bounded(chars: int, function: str) -> None:
    if chars > TEXT_CHARS_MAX:
        msg = f"{function}() would give more than {TEXT_CHARS_MAX} characters"
        raise ValueError(msg)


def join(values: Any, separator: str = "") -> str:
    """The items as text, with the separator between."""
    texts = [as_text(value) for value in _listed(values, "join")]
    _bounded(sum(map(len, texts)) + len(separator) * len(texts), "join")
    return separator.join(texts)


def split(text: str, separator: str) -> list[str]:
    """The parts between separators; an empty separator gives the characters."""
    return text.split(separator) if separator else list(text)


def replace(text: str, old: str, new: str) -> str:
    """Every occurrence of `old` replaced."""
    if not old:
        msg = "replace() needs something to look for"
        raise ValueError(msg)
    _bounded(len(text) + text.count(old) * (len(new) - len(old)), "replace")
    return text.replace(old, new)


def trim(text: str) -> str:
    """Without white space at both ends."""
    return text.strip()


def substring(text: str, start: int, end: int | None = None) -> str:
    """From one character to before another, counting from 0; outside of the text is an error."""
    stop = len(text) if end is None else end
    if not 0 <= start <= stop <= len(text):
        msg = f"substring({start}, {stop}) lies outside of a text of {len(text)} characters"
        raise ValueError(msg)
    return text[start:stop]


def sha256(text: str) -> str:
    """Lower-case hex over the UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def parse_json(text: str) -> Any:
    """The value of JSON text; duplicate keys, NaN and numbers out of range are errors."""
    try:
        value = json_module.loads(
            text, object_pairs_hook=_unrepeated, parse_constant=_not_json, parse_int=_int64, parse_float=_finite
        )
    except json_module.JSONDecodeError as error:
        msg = f"json(): {error.msg} at line {error.lineno}, column {error.colno}"
        raise ValueError(msg) from error
    except RecursionError as error:
        msg = "json(): nested too deep"
        raise ValueError(msg) from error
    _check_depth(value)
    return value


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        msg = "json(): a key occurs twice in one object"
        raise ValueError(msg)
    return made


def _not_json(word: str) -> Any:
    msg = f"json(): {word} is not JSON"
    raise ValueError(msg)


def _int64(digits: str) -> int:
    if len(digits) > 20 or not INT_MIN <= int(digits) <= INT_MAX:
        msg = "json(): an integer is outside the 64-bit range"
        raise ValueError(msg)
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        msg = "json(): a number is not finite"
        raise ValueError(msg)
    return number


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(JSON_DEPTH_MAX):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    msg = f"json(): nested deeper than {JSON_DEPTH_MAX}"
    raise ValueError(msg)
