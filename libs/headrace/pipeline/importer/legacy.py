"""Reading an old document: every key is taken by somebody, and what nobody took is reported.

pipeline_ex accepted any key anywhere and ignored what it did not know, so a file full of mistakes "worked". Here a
`Section` remembers which keys were taken, and `left` says the rest.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from headrace.pipeline.importer.report import Notes
from headrace.pipeline.positions import Path
from headrace.pipeline.problems import shown


class Section:
    """A map of the old document. Values are taken by key; a wrong type is refused at its place."""

    def __init__(self, notes: Notes, value: Mapping[str, Any], path: Path = ()) -> None:
        self.notes, self.value, self.path = notes, value, path
        self.taken: set[str] = set()

    def __contains__(self, key: str) -> bool:
        """Whether it is there and not null."""
        return self.value.get(key) is not None

    def at(self, key: str) -> Path:
        """The path of a key."""
        return (*self.path, key)

    def take(self, key: str) -> Any:
        """Any value, or None."""
        self.taken.add(key)
        return self.value.get(key)

    def first(self, *keys: str) -> tuple[str, Any]:
        """The first of several spellings that is there, with its value; the others are taken too."""
        found = [(key, self.take(key)) for key in keys]
        return next((pair for pair in found if pair[1] is not None), ("", None))

    def text(self, key: str) -> str | None:
        """Text; a number or boolean is read as it would be written, because old files quote at will."""
        value = self.take(key)
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, (int, float)):
            return str(value)
        self.wrong(key, "text")

    def whole(self, key: str) -> int | None:
        """A whole number of at least 0."""
        value = self.take(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            self.wrong(key, "a whole number")
        return value

    def number(self, key: str) -> float | int | None:
        """A number."""
        value = self.take(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.wrong(key, "a number")
        return value

    def flag(self, key: str) -> bool | None:
        """True or false."""
        value = self.take(key)
        if value is None or isinstance(value, bool):
            return value
        self.wrong(key, "true or false")

    def listed(self, key: str) -> list[Any] | None:
        """A list."""
        value = self.take(key)
        if value is None or isinstance(value, list):
            return value
        self.wrong(key, "a list")

    def texts(self, key: str) -> list[str] | None:
        """A list of texts; one text is a list of one."""
        value = self.take(key)
        if value is None:
            return None
        found = [value] if isinstance(value, str) else value
        if isinstance(found, list) and all(isinstance(entry, str) for entry in found):
            return found
        self.wrong(key, "a list of texts")

    def section(self, key: str) -> "Section | None":
        """A map."""
        value = self.take(key)
        if value is None:
            return None
        if isinstance(value, dict):
            return Section(self.notes, value, self.at(key))
        self.wrong(key, "a map")

    def sections(self, key: str) -> "list[Section] | None":
        """A list of maps."""
        value = self.listed(key)
        return None if value is None else list(self._each(key, value))

    def _each(self, key: str, value: list[Any]) -> "Iterator[Section]":
        for index, entry in enumerate(value):
            if not isinstance(entry, dict):
                path = (*self.at(key), index)
                self.notes.refuse("E1503", path, f"a map is expected in `{key}`, this is {shown(entry)}")
            yield Section(self.notes, entry, (*self.at(key), index))

    def required(self, key: str) -> str:
        """Text that must be there."""
        value = self.text(key)
        if value is None or not value.strip():
            self.notes.refuse("E1502", self.path, f"`{key}` is missing", "refused as well")
        return value

    def wrong(self, key: str, expected: str) -> NoReturn:
        """Refuse a value that is something else."""
        text = f"`{shown(key)[1:-1]}` is {shown(self.value[key])}, expected {expected}"
        self.notes.refuse("E1503", self.at(key), text, "options of a wrong type were passed on unchecked")

    def left(self) -> Iterator[str]:
        """The keys that nobody has taken and that are not null, in order."""
        return (key for key, value in self.value.items() if key not in self.taken and value is not None)
