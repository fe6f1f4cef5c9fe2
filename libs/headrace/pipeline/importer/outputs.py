"""What a converted step gives, and how a path that the old file reads is found in it.

Old results were maps with wrappers (`result`, `content`, `text`) that differed by step type and between mock and
live. A reader says here which expression stands for a path. A field of a model's free text is something that nothing
promises: it is remembered in `Promises`, and the model is asked for it by a schema.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from headrace.pipeline.importer.ids import field as field_of
from headrace.pipeline.importer.ids import fields, literal

Steps = tuple[str | int, ...]
TEXT_WORDS: Final = frozenset({"content", "text", "result", "results", "response", "output"})
"""What old files call the text that a model gave."""
ABOUT_WORDS: Final = frozenset({"cost", "session_id", "mode", "tokens", "usage", "claude_options_applied"})
"""Facts that old results carried beside the text."""


class UnknownFieldError(Exception):  # becomes a refusal where the place is known
    """The path does not exist in the output; the text says what does."""


@dataclass(slots=True, frozen=True)
class Read:
    """An expression, and what is known of its value."""

    cel: str
    is_text: bool = False
    is_bool: bool = False
    promised: bool = True
    """Nothing promised the field before: a schema asks for it now."""


@dataclass(slots=True)
class Promises:
    """Fields that later steps read of free text: unit and path of the step → field → JSON Schema. Survives passes."""

    found: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = field(default_factory=dict)
    grown: bool = False

    def of(self, key: tuple[Any, ...]) -> dict[str, dict[str, Any]]:
        """What one step must give."""
        return self.found.get(key, {})

    def ask(self, key: tuple[Any, ...], name: str, schema: Mapping[str, Any]) -> None:
        """One more field; a schema that says more replaces one that says nothing."""
        fields_of = self.found.setdefault(key, {})
        if name not in fields_of or (schema and not fields_of[name]):
            fields_of[name] = dict(schema)
            self.grown = True


class Output(Protocol):
    """What a step gives. `at` is the expression for the whole of it when it is read from elsewhere."""

    def read(self, path: Steps, *, at: str = "", wanted: Mapping[str, Any] | None = None) -> Read:
        """The expression for a path. `wanted`: what the reader needs it to be, as JSON Schema.

        Raises:
            UnknownFieldError: there is no such thing.
        """


@dataclass(slots=True)
class ModelOutput:
    """Text, or with a schema the value that fits it."""

    step: str
    """`steps.<id>`."""
    promises: Promises
    key: tuple[Any, ...]
    schema: Mapping[str, Any] | None = None
    """What the old file itself asks for."""
    raw: bool = False
    """What is read elsewhere is the model's whole result: an item of a batch, not a value written out in `outputs`."""

    def read(self, path: Steps, *, at: str = "", wanted: Mapping[str, Any] | None = None) -> Read:
        """Text, a fact about the step, or a field."""
        whole = at or f"{self.step}.output"
        names = self._names()
        while path and path[0] in TEXT_WORDS and path[0] not in names:
            path = path[1:]
        if not path:
            if self.schema is not None or self.promises.of(self.key):
                return Read(whole)
            return Read(whole if at and not self.raw else f"{whole}.text", is_text=True)
        if path[0] == "success" and "success" not in names and len(path) == 1:
            return Read("true", is_bool=True) if at else Read(f'{self.step}.status == "completed"', is_bool=True)
        if path[0] in ABOUT_WORDS and path[0] not in names:
            msg = f"`{path[0]}` is a fact about the call, not part of its answer; `headrace show` has usage and cost"
            raise UnknownFieldError(msg)
        if not isinstance(path[0], str):
            msg = "the answer of a model is text, or a map where it has a schema; an index leads nowhere"
            raise UnknownFieldError(msg)
        promised = path[0] in names
        if not promised:
            below = path[1:]
            self.promises.ask(self.key, path[0], _holding(below, wanted or {}))
        return Read(fields(whole, path), promised=promised)

    def _names(self) -> frozenset[str]:
        properties = (self.schema or {}).get("properties")
        return frozenset(properties) if isinstance(properties, dict) else frozenset()


def _holding(path: Steps, leaf: Mapping[str, Any]) -> dict[str, Any]:
    if not path:
        return dict(leaf)
    if isinstance(path[0], int):
        return {"type": "array"}
    return {"type": "object"}


@dataclass(slots=True)
class ValueOutput:
    """A value that the file makes itself."""

    cel: str
    names: frozenset[str] | None = None
    """The fields where they are known."""
    wrappers: frozenset[str] = frozenset({"result"})
    """Words that old results had around the value."""

    def read(self, path: Steps, *, at: str = "", wanted: Mapping[str, Any] | None = None) -> Read:
        """A path below the value."""
        while path and path[0] in self.wrappers and path[0] not in (self.names or ()):
            path = path[1:]
        if path and self.names is not None and path[0] not in self.names:
            known = ", ".join(sorted(self.names)) or "nothing"
            msg = f"it has no `{path[0]}`; it has {known}"
            raise UnknownFieldError(msg)
        return Read(fields(at or self.cel, path))


@dataclass(slots=True)
class GroupedOutput:
    """Groups of a list, `[{key, items}]`; the old result was a map of lists by key."""

    cel: str
    wrappers: frozenset[str] = frozenset({"result"})

    def read(self, path: Steps, *, at: str = "", wanted: Mapping[str, Any] | None = None) -> Read:
        """All groups, or the items of one."""
        whole = at or self.cel
        while path and path[0] in self.wrappers:
            path = path[1:]
        if not path:
            return Read(whole)
        one = f"flatten({whole}.filter(g, text(g.key) == {literal(str(path[0]))}).map(g, g.items))"
        return Read(fields(one, path[1:]))


@dataclass(slots=True)
class Members:
    """A group: a map of what its members give, by old name."""

    cel: str
    members: Mapping[str, tuple[str, "Output"]]
    """Old name → key in the map, and what the member gives."""

    def read(self, path: Steps, *, at: str = "", wanted: Mapping[str, Any] | None = None) -> Read:
        """The whole map, or a path below a member."""
        whole = at or self.cel
        if path and path[0] in ("result", "results") and path[0] not in self.members:
            path = path[1:]
        if not path:
            return Read(whole)
        found = self.members.get(str(path[0]))
        if found is None:
            if path == ("success",):
                return Read("true", is_bool=True)
            msg = f"it has no `{path[0]}`; it has {', '.join(self.members) or 'nothing'}"
            raise UnknownFieldError(msg)
        key, output = found
        return output.read(path[1:], at=field_of(whole, key), wanted=wanted)


@dataclass(slots=True)
class ListOutput:
    """A bounded map over items: `items`, `failed`, `counts`, or single items by old task id."""

    step: str
    item: "Output | None" = None
    by_name: Mapping[str, int] = field(default_factory=dict)

    def read(self, path: Steps, *, at: str = "", wanted: Mapping[str, Any] | None = None) -> Read:
        """What old readers ask of a loop or a batch."""
        whole = at or f"{self.step}.output"
        if path and path[0] in ("result", "results") and path[0] not in self.by_name:
            path = path[1:]
        if not path or path == ("iterations",):
            return Read(f"{whole}.items")
        first = path[0]
        if first in self.by_name:
            one = f"{whole}.items[{self.by_name[str(first)]}]"
            return Read(fields(one, path[1:])) if self.item is None else self.item.read(path[1:], at=one, wanted=wanted)
        facts = {
            "success": Read(f"size({whole}.failed) == 0", is_bool=True),
            "total_items": Read(f"size({whole}.items)"),
            "completed_items": Read(f"size({whole}.items) - size({whole}.failed)"),
        }
        if len(path) == 1 and first in facts:
            return facts[str(first)]
        if first in ("iterations", "items") and len(path) > 1 and isinstance(path[1], int):
            one, below = f"{whole}.items[{path[1]}]", path[2:]
            if below[:1] in (("results",), ("result",)):
                below = below[1:]
            return Read(fields(one, below)) if self.item is None else self.item.read(below, at=one, wanted=wanted)
        msg = f"it has no `{first}`; it has `items`, `failed` and `counts`"
        raise UnknownFieldError(msg)


@dataclass(slots=True)
class NoOutput:
    """A step that was refused or left out."""

    why: str = ""

    def read(self, path: Steps, *, at: str = "", wanted: Mapping[str, Any] | None = None) -> Read:
        """Nothing: refused once is enough, left out is an error of the reader."""
        if self.why:
            raise UnknownFieldError(self.why)
        return Read("null")
