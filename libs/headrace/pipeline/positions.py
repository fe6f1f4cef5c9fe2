"""Where the values of a document stand, down to a character inside a scalar."""

from typing import Any, NamedTuple

import yaml

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


class Positions:
    """Places in a text that has been loaded. They are looked for when the first is asked for: most files are sound."""

    __slots__ = ("_index", "text")

    def __init__(self, text: str = "") -> None:
        self.text = text
        self._index: _Index | None = None

    @property
    def values(self) -> dict[Path, Any]:
        """Path → the parser's event of a value."""
        return self._looked_up().values

    @property
    def keys(self) -> dict[Path, Any]:
        """Path → the parser's event of the key that holds a value, the first where there are two."""
        return self._looked_up().keys

    def _looked_up(self) -> "_Index":
        if self._index is None:
            self._index = _index(self.text)
        return self._index

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


class _Index(NamedTuple):
    values: dict[Path, Any]
    keys: dict[Path, Any]


class _Frame:
    """A map or list whose end has not come."""

    __slots__ = ("count", "is_map", "key", "path")

    def __init__(self, path: Path, *, is_map: bool) -> None:
        self.path, self.is_map = path, is_map
        self.key: Step | None = None
        self.count = 0

    def take(self) -> Path:
        """The path of the value that comes next."""
        if self.is_map:
            assert self.key is not None
            path, self.key = (*self.path, self.key), None
            return path
        self.count += 1
        return (*self.path, self.count - 1)


def _index(text: str) -> _Index:
    """The places in a text; of one that is not YAML to the end, those before its end."""
    index = _Index({}, {})
    frames: list[_Frame] = []
    starts = (yaml.MappingStartEvent, yaml.SequenceStartEvent)
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            if isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                frames.pop()
            elif isinstance(event, (yaml.ScalarEvent, yaml.AliasEvent, *starts)):
                top = frames[-1] if frames else None
                if top is not None and top.is_map and top.key is None:
                    top.key = str(getattr(event, "value", ""))
                    index.keys.setdefault((*top.path, top.key), event)
                    if isinstance(event, starts):
                        frames.append(_Frame((*top.path, top.key), is_map=isinstance(event, starts[0])))
                    continue
                path = () if top is None else top.take()
                index.values.setdefault(path, event)
                if isinstance(event, starts):
                    frames.append(_Frame(path, is_map=isinstance(event, starts[0])))
    except yaml.YAMLError:
        return index  # the loader has said what is wrong
    return index
