"""Old names, which were any text, as ids of Headrace; and how ids and fields are written in expressions."""

import json
import re
from typing import Any, Final

from headrace.contracts.ids import NAME_RE
from headrace.pipeline.cel_library import RESERVED, ROOTS

ID_CHARS_MAX: Final = 63
_FIELD = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_TAKEN: Final = frozenset(RESERVED) | frozenset(ROOTS) | {"carry", "iteration", "secrets"}


def slug(name: str, fallback: str) -> str:
    """The nearest name that Headrace accepts: lower case, other characters as `_`."""
    made = re.sub(r"[^a-z0-9_-]+", "_", name.strip().lower()).strip("_-")
    if not made:
        return fallback
    if not made[0].isalpha():
        made = f"{fallback}_{made}"
    made = made[:ID_CHARS_MAX].rstrip("_-")
    return f"{made[: ID_CHARS_MAX - 2]}_x" if made in _TAKEN else made


class Ids:
    """Gives every name an id of its own, the same for the same order of names."""

    def __init__(self) -> None:
        self.used: set[str] = set()

    def make(self, name: str, fallback: str = "step") -> str:
        """An id that nobody has yet: the name itself where it can be."""
        wanted = slug(name, fallback)
        made, count = wanted, 1
        while made in self.used:
            count += 1
            made = f"{wanted[: ID_CHARS_MAX - 1 - len(str(count))]}_{count}"
        assert NAME_RE.fullmatch(made), made
        self.used.add(made)
        return made


def field(base: str, name: str | int) -> str:
    """The expression for a field or an index of a value."""
    if isinstance(name, int):
        return f"{base}[{name}]"
    if _FIELD.fullmatch(name) and name not in RESERVED:
        return f"{base}.{name}"
    return f"{base}[{literal(name)}]"


def fields(base: str, path: tuple[str | int, ...]) -> str:
    """The expression for a path below a value."""
    for name in path:
        base = field(base, name)
    return base


def literal(value: Any) -> str:
    """A JSON value as an expression."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case float():
            text = repr(value)
            return text if any(sign in text for sign in ".en") else f"{text}.0"
        case int():
            return str(value)
        case str():
            return _quoted(value)
        case list():
            return f"[{', '.join(literal(entry) for entry in value)}]"
        case dict():
            return f"{{{', '.join(f'{_quoted(key)}: {literal(entry)}' for key, entry in value.items())}}}"
    raise AssertionError(value)


def _quoted(text: str) -> str:
    """As JSON, but DEL and other characters as they are; CEL has the escapes that JSON has, but for `\\/`."""
    return json.dumps(text, ensure_ascii=False)
