"""What a value in a pipeline file must be: the vocabulary of the table in `schema`."""

from dataclasses import dataclass
from typing import Final, Literal

NAME_PATTERN: Final = "[a-z][a-z0-9_-]{0,62}"
TEXT_CHARS_MAX: Final = 256 * 1024
"""As long as a scalar may be."""
LIST_MAX: Final = 10_000

ShapeKind = Literal[
    "text", "name", "flag", "whole", "number", "count", "choice", "duration", "condition", "list expression",
    "template", "transform", "json schema", "steps or one", "step or value", "models", "include", "cron", "timezone",
    "pattern", "json", "pipeline", "list", "map", "record",
]  # fmt: skip


@dataclass(slots=True, frozen=True)
class Shape:
    """What a value must be. `templated`: text with `${{ … }}` may stand for it, and is checked when it has a value."""

    kind: ShapeKind
    low: float = 0
    high: float = TEXT_CHARS_MAX
    """Bounds of a number, or of the length of text, lists and maps."""
    choices: tuple[str, ...] = ()
    item: "Shape | None" = None
    record: str = ""
    """The `where` of the rows that a record's keys are."""
    templated: bool = False
    free_keys: bool = False
    """A map whose keys are somebody else's, not names of ours."""


@dataclass(slots=True, frozen=True)
class Row:
    """A key. `kinds`: the kinds of step that have it, empty for all."""

    where: str
    key: str
    shape: Shape
    help: str
    required: bool = False
    kinds: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    """One of these keys must stand beside it."""
    excludes: tuple[str, ...] = ()
    """None of these keys may stand beside it."""


def list_of(item: Shape, high: int = LIST_MAX, low: int = 0) -> Shape:
    """A list of such values."""
    return Shape("list", low, high, item=item)


def map_of(item: Shape, low: int = 0, high: int = LIST_MAX) -> Shape:
    """A map from names of ours to such values."""
    return Shape("map", low, high, item=item)


def free_map(item: Shape, high: int = LIST_MAX) -> Shape:
    """A map from any text to such values."""
    return Shape("map", 0, high, item=item, free_keys=True)


def record(where: str) -> Shape:
    """A map whose keys are the rows of this place."""
    return Shape("record", record=where)


def choice(*choices: str) -> Shape:
    """One of these words."""
    return Shape("choice", choices=choices)


def whole(low: int, high: int, *, templated: bool = False) -> Shape:
    """An integer between bounds."""
    return Shape("whole", low, high, templated=templated)


def text(low: int = 0, high: int = TEXT_CHARS_MAX, *, templated: bool = False) -> Shape:
    """Text of so many characters."""
    return Shape("text", low, high, templated=templated)
