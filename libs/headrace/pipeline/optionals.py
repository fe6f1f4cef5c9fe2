"""Optional values of CEL (`steps.?a.?output`) end where a value is needed: checked in the syntax tree, at load.

The library turns the arguments of our functions into Python objects and has none for an optional value: it ends the
process instead of raising. So an optional value may stand only where CEL itself takes it; `orValue` makes it a value.
"""

from typing import Final

from headrace.pipeline.references import Form, Wire, children, first, text, wire

_OPTIONAL: Final = b"optional_type"
_TAKERS: Final = frozenset(
    ("orValue", "or", "value", "hasValue", "optMap", "optFlatMap", "_?._", "_[?_]", "_[_]", "_==_", "_!=_")
)
"""Functions of CEL that are made for optional values."""


def misplaced(serialized: bytes) -> int | None:
    """Where an optional value stands in place of a value, in characters from the beginning; None: nowhere.

    Args:
        serialized: A checked expression.
    """
    if _OPTIONAL not in serialized:
        return None
    checked = wire(first(wire(serialized), 2))
    types = _by_id(checked, 3)
    optional = {node for node, kind in types.items() if isinstance(kind, bytes) and _is_optional(kind)}
    place = _visit(first(checked, 4), optional)
    if place is None:
        return None
    at = _by_id(wire(first(checked, 5)), 4).get(place, 0)
    return at if isinstance(at, int) else 0


def _is_optional(kind: bytes) -> bool:
    """Whether a type is an optional one itself, not a list of some."""
    abstract = first(wire(kind), 14)
    return bool(abstract) and text(wire(abstract), 1).encode() == _OPTIONAL


def _by_id(fields: Wire, number: int) -> dict[int, "int | bytes"]:
    """A map of the wire format from numbers of nodes."""
    found: dict[int, int | bytes] = {}
    for field, entry in fields:
        if field == number and isinstance(entry, bytes):
            pair = dict(wire(entry))
            key = pair.get(1, 0)
            assert isinstance(key, int)
            found[key] = pair.get(2, 0)
    return found


def _visit(root: bytes, optional: set[int]) -> int | None:
    """The number of the first node, from the left, that is an optional value in a wrong place."""
    pending = [root]
    while pending:
        fields = wire(pending.pop())
        own = next((value for number, value in fields if number == 2 and isinstance(value, int)), 0)
        kind, inner = next(
            ((number, wire(value)) for number, value in fields if number > Form.CONST and isinstance(value, bytes)),
            (0, []),
        )
        allowed = _allowed(kind, inner, is_optional=own in optional)
        below = children(kind, inner)
        for expr, may_be in zip(below, allowed, strict=True):
            number = next((value for field, value in wire(expr) if field == 2 and isinstance(value, int)), 0)
            if number in optional and not may_be:
                return number
        pending += reversed(below)
    return None


def _allowed(kind: int, inner: Wire, *, is_optional: bool) -> list[bool]:
    """For each of `children`: whether it may be an optional value."""
    count = len(children(kind, inner))
    match kind:
        case Form.SELECT:
            return [True] * count
        case Form.CALL if text(inner, 2) in _TAKERS:
            return [True] * count
        case Form.CALL if text(inner, 2) == "_?_:_":
            return [False, is_optional, is_optional]
        case Form.LIST:
            marked = _marked(inner)
            return [number in marked for number in range(count)]
        case Form.STRUCT:
            return [allowed for entry in _entries(inner) for allowed in _allowed_in(entry)]
        case Form.COMPREHENSION:
            return [*[False] * (count - 1), is_optional]
    return [False] * count


def _marked(inner: Wire) -> set[int]:
    """The numbers of elements written `?x`, which CEL leaves out when they are nothing."""
    found: set[int] = set()
    for number, value in inner:
        if number == 2:
            found |= {value} if isinstance(value, int) else set(value)
    return found


def _entries(inner: Wire) -> list[Wire]:
    return [wire(entry) for number, entry in inner if number == 2 and isinstance(entry, bytes)]


def _allowed_in(entry: Wire) -> list[bool]:
    marked = any(number == 5 and value for number, value in entry)
    return [number == 4 and marked for number in (3, 4) for found, _ in entry if found == number]
