"""What an expression reads, from CEL's own checked syntax tree (its protobuf bytes).

A small reader of the wire format instead of generated classes: five message types of a frozen library version, and
no second protobuf schema to keep. Field numbers are those of `cel/expr/syntax.proto` and `checked.proto`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple


class Form:
    """Numbers of the fields of an `Expr`, which tell what it is."""

    CONST, IDENT, SELECT, CALL, LIST, STRUCT, COMPREHENSION = 3, 4, 5, 6, 7, 8, 9


NODES_MAX = 500
"""Syntax nodes in one expression, macros expanded: more is a program, and belongs in a tool."""


GROWTH_MAX = 256
"""By how much an expression may multiply its data: `.map(v, v + v)` doubles it, and twenty of them end the process."""


class TooManyNodesError(ValueError):
    """The expression is a program."""


class Reference(NamedTuple):
    """A variable and the fields that follow it: `steps`, (`list`, `output`, `paths`)."""

    root: str
    path: tuple[str, ...]
    optional_from: int
    """How many of `path` must exist: the rest is read with `.?`, `[?…]` or `has()`."""
    open_ended: bool = False
    """An index that is computed follows: what lies below `path` is not known before the value is."""


@dataclass(slots=True)
class Analysis:
    """References in order of appearance, functions called, and whether `map` or `filter` make a list."""

    references: list[Reference] = field(default_factory=list)
    functions: set[str] = field(default_factory=set)
    makes_list: bool = False
    nodes: int = 0
    growth: int = 1


Wire = list[tuple[int, "int | bytes"]]


def wire(data: bytes) -> Wire:
    """The fields of a message. Single-byte numbers, nearly all, take the short way: this is half of a compile."""
    fields: Wire = []
    at, end = 0, len(data)
    while at < end:
        key = data[at]
        at += 1
        if key > 127:
            key, at = _varint(data, at - 1)
        form = key & 7
        if form == 1 or form == 5:
            size = 8 if form == 1 else 4
        else:
            size = data[at]
            at += 1
            if size > 127:
                size, at = _varint(data, at - 1)
            if form == 0:
                fields.append((key >> 3, size))
                continue
        fields.append((key >> 3, data[at : at + size]))
        at += size
    return fields


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def _all(fields: Wire, number: int) -> Iterator[bytes]:
    return (value for found, value in fields if found == number and isinstance(value, bytes))


def first(fields: Wire, number: int) -> bytes:
    """The first field of this number; empty when there is none."""
    return next(_all(fields, number), b"")


def text(fields: Wire, number: int) -> str:
    """The same as text."""
    return first(fields, number).decode()


def children(kind: int, inner: Wire) -> list[bytes]:
    """The expressions that a node is made of, in the order of their fields."""
    match kind:
        case Form.SELECT:
            return [first(inner, 1)]
        case Form.CALL:
            return [*_all(inner, 1), *_all(inner, 3)]
        case Form.LIST:
            return [*_all(inner, 1)]
        case Form.STRUCT:
            return [side for entry in _all(inner, 2) for number in (3, 4) for side in _all(wire(entry), number)]
        case Form.COMPREHENSION:
            return [part for number in (2, 4, 5, 6, 7) for part in _all(inner, number)]
    return []


def analyse(serialized: bytes) -> Analysis:
    """What the checked expression reads and calls.

    Raises:
        TooManyNodesError: more than `NODES_MAX` nodes.
    """
    analysis = Analysis()
    _Walker(analysis).visit(_one_field(first(wire(serialized), 2), 4), frozenset())
    return analysis


def _one_field(data: bytes, number: int) -> bytes:
    """The field with this number; the maps of types and positions around it are passed over."""
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        size, at = _varint(data, at)
        if key & 7 == 0:
            continue
        if key >> 3 == number:
            return data[at : at + size]
        at += size
    return b""


def _node(expr: bytes) -> tuple[int, Wire]:
    """What kind of node this is, and its fields; kind 0 for nothing."""
    for number, value in wire(expr):
        if number != 2 and isinstance(value, bytes):
            return number, wire(value) if number != Form.CONST else []
    return 0, []


class _Walker:
    def __init__(self, analysis: Analysis, *, measures_growth: bool = True) -> None:
        self.analysis, self.measures_growth = analysis, measures_growth
        self.uses: list[tuple[str, tuple[str, ...]]] = []
        """Variables of comprehensions, with the fields that follow."""

    def visit(self, expr: bytes, bound: frozenset[str]) -> None:
        """Add what the expression below reads; `bound` are the variables of the comprehensions around."""
        kind, inner = _node(expr)
        if kind in (Form.IDENT, Form.SELECT, Form.CALL) and self._variable(kind, inner, bound):
            return
        self._count()
        match kind:
            case Form.SELECT:
                self.visit(first(inner, 1), bound)
            case Form.CALL:
                self._call(inner, bound)
            case Form.LIST:
                for element in _all(inner, 1):
                    self.visit(element, bound)
            case Form.STRUCT:
                for entry in _all(inner, 2):
                    for side in (*_all(wire(entry), 3), *_all(wire(entry), 4)):
                        self.visit(side, bound)
            case Form.COMPREHENSION:
                self._comprehension(inner, bound)

    def _count(self, nodes: int = 1) -> None:
        self.analysis.nodes += nodes
        if self.analysis.nodes > NODES_MAX:
            msg = f"more than {NODES_MAX} syntax nodes"
            raise TooManyNodesError(msg)

    def _call(self, call: Wire, bound: frozenset[str]) -> None:
        self.analysis.functions.add(text(call, 2))
        for argument in (*_all(call, 1), *_all(call, 3)):
            self.visit(argument, bound)

    def _comprehension(self, parts: Wire, bound: frozenset[str]) -> None:
        range_expr = first(parts, 2)
        makes_list = any(number == Form.LIST for number, _ in wire(first(parts, 4)))
        self.analysis.makes_list |= makes_list
        self.visit(range_expr, bound)
        variable = text(parts, 1)
        inside = bound | {variable, text(parts, 3), text(parts, 8)}
        for number in (4, 5, 6, 7):
            self.visit(first(parts, number), inside)
        if makes_list and self.measures_growth:
            self._grow(variable, _element(first(parts, 6)), inside)

    def _grow(self, variable: str, element: bytes, bound: frozenset[str]) -> None:
        """Multiply the growth by how often the same part of an item stands in what is made of it."""
        inner = _Walker(Analysis(), measures_growth=False)
        inner.visit(element, bound)
        paths = [path for name, path in inner.uses if name == variable]
        copies = max((sum(path[: len(other)] == other for other in paths) for path in set(paths)), default=1)
        self.analysis.growth *= max(1, copies)
        if self.analysis.growth > GROWTH_MAX:
            msg = f"it multiplies its data more than {GROWTH_MAX} times"
            raise TooManyNodesError(msg)

    def _variable(self, kind: int, inner: Wire, bound: frozenset[str]) -> bool:
        """Note the variable with constant fields that this node is, if it is. Walks down from the last field."""
        steps: list[tuple[str, bool]] = []
        computed: list[bytes] = []
        length = 1
        while kind != Form.IDENT:
            if kind == Form.SELECT:
                tested = any(found == 3 and is_set for found, is_set in inner)
                steps.append((text(inner, 2), tested))
                target = first(inner, 1)
            elif kind == Form.CALL and text(inner, 2) in ("_[_]", "_?._", "_[?_]"):
                target, key = _all(inner, 3)
                constant = _constant_text(key)
                if constant is None:
                    computed.append(key)
                    steps = []  # what lies below a computed index is not known
                else:
                    steps.append((constant, text(inner, 2) != "_[_]"))
            else:
                return False
            kind, inner = _node(target)
            length += 1
            if length > NODES_MAX:
                msg = f"more than {NODES_MAX} syntax nodes"
                raise TooManyNodesError(msg)
        name = text(inner, 1)
        self._count(length)
        for key in computed:
            self.visit(key, bound)
        steps.reverse()
        path = tuple(step for step, _ in steps)
        if name in bound:
            self.uses.append((name, path))
            return True
        optional_from = next((index for index, (_, optional) in enumerate(steps) if optional), len(steps))
        self.analysis.references.append(Reference(name, path, optional_from, bool(computed)))
        return True


def _element(loop_step: bytes) -> bytes:
    """What `map` and `filter` add to their list: `accu + [element]`, perhaps under a condition."""
    call = wire(first(wire(loop_step), Form.CALL))
    arguments = [*_all(call, 3)]
    if text(call, 2) == "_?_:_":
        return _element(arguments[1])
    listed = wire(first(wire(arguments[1]), Form.LIST)) if len(arguments) == 2 else []
    return first(listed, 1)


def _constant_text(expr: bytes) -> str | None:
    constant = first(wire(expr), Form.CONST)
    fields = wire(constant)
    return text(fields, 6) if any(number == 6 for number, _ in fields) else None
