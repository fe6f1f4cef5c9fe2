"""Where the values of a document stand, down to a character inside a scalar."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

Step = str | int
Path = tuple[Step, ...]
_ESCAPE_LENGTHS = {"x": 4, "u": 6, "U": 10}


class Place(NamedTuple):
    """Line and column count from 1. `at` is the offset in the text, `style` the scalar's quoting (`'"|>` or empty)."""

    line: int
    column: int
    at: int = 0
    style: str = ""


def _place(event: Any) -> Place:
    mark = event.start_mark
    return Place(mark.line + 1, mark.column + 1, mark.index, getattr(event, "style", None) or "")


@dataclass(slots=True)
class Positions:
    """Path → the parser's event, of values and of the keys that hold them: places are made only for what is wrong."""

    text: str = ""
    values: dict[Path, Any] = field(default_factory=dict)
    keys: dict[Path, Any] = field(default_factory=dict)

    def value(self, path: Path) -> Place:
        """Where a value stands, or the nearest thing around it."""
        while path:
            event = self.values.get(path) or self.keys.get(path)
            if event is not None:
                return _place(event)
            path = path[:-1]
        return _place(self.values[()]) if () in self.values else Place(1, 1)

    def key(self, path: Path) -> Place:
        """Where the key of a value stands, or else the value."""
        event = self.keys.get(path)
        return self.value(path) if event is None else _place(event)

    def inside(self, path: Path, value: str, offset: int) -> Place:
        """Where a character of a scalar stands in the file; quoting, folding and indentation are looked through."""
        event = self.values.get(path)
        if event is None or not self.text:
            return self.value(path)
        index = self._aligned(_place(event), value, offset)
        line_start = self.text.rfind("\n", 0, index) + 1
        return Place(self.text.count("\n", 0, index) + 1, index - line_start + 1, index)

    def _aligned(self, place: Place, value: str, offset: int) -> int:
        """Walk the text beside the value: what the text has more is quoting, indentation or folding."""
        text, index = self.text, place.at
        if place.style in ("|", ">"):
            index = text.find("\n", index) + 1
        elif place.style in ("'", '"'):
            index += 1
        for position in range(min(offset, len(value))):
            index = self._skipped(index, value[position], place.style)
            index += self._width(index, place.style)
        if offset < len(value):
            index = self._skipped(index, value[offset], place.style)
        return min(index, len(text))

    def _skipped(self, index: int, wanted: str, style: str) -> int:
        """Past indentation and folded line breaks, to what stands for the wanted character."""
        text = self.text
        while style == '"' and text.startswith("\\\n", index):
            index += 2  # an escaped line break stands for nothing, and neither does the indentation after it
            while text[index] in " \t":
                index += 1
        while index < len(text) and text[index] != wanted and text[index] in " \n\r\t":
            if wanted in " \n" and text[index] in "\r\n":
                return index  # a folded line break stands for the space or newline
            index += 1
        return index

    def _width(self, index: int, style: str) -> int:
        """How much text one character of the value takes."""
        if style == '"' and self.text[index : index + 1] == "\\":
            return _ESCAPE_LENGTHS.get(self.text[index + 1 : index + 2], 2)
        if style == "'" and self.text[index : index + 2] == "''":
            return 2
        return 1
