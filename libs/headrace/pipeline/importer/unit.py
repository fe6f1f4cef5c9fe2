"""One old file on its way to a new one, and one step of it: what the converters of the step types share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, Protocol

from headrace.pipeline.importer.conditions import Conditions
from headrace.pipeline.importer.ids import field as field_of
from headrace.pipeline.importer.legacy import Section
from headrace.pipeline.importer.outputs import NoOutput, Output, Promises
from headrace.pipeline.importer.report import Notes
from headrace.pipeline.importer.scope import Scope
from headrace.pipeline.importer.templates import Templates
from headrace.pipeline.positions import Path

DURATION_MS_MAX: Final = 30 * 86_400_000
"""Headrace's longest duration."""
_UNITS: Final = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms"))


@dataclass(slots=True)
class Made:
    """What became of one old step: new steps by id, the first of which carries condition and order."""

    steps: dict[str, dict[str, Any]]
    output: Output
    variables: Mapping[str, str] = field(default_factory=dict)
    """What `set_variable` defines from here on."""
    output_field: str = ""

    @classmethod
    def nothing(cls, why: str) -> "Made":
        """The step is left out; whoever reads it is refused."""
        return cls({}, NoOutput(why))


class Nested(Protocol):
    """Finds and converts nested pipelines."""

    def file(self, step: "Step", reference: str) -> tuple[str, Mapping[str, tuple[str, Output]], frozenset[str]]:
        """The new reference, its outputs by old step name, and the inputs it declares."""

    def inline(self, step: "Step", section: Section) -> tuple[str, Mapping[str, tuple[str, Output]], frozenset[str]]:
        """Likewise for a pipeline written inside a step, which becomes a file."""


@dataclass(slots=True)
class Unit:
    """What one file's steps share."""

    key: str
    """Tells units apart in `promises`."""
    notes: Notes
    promises: Promises
    nested: Nested
    defaults: Section
    functions: dict[str, Any] = field(default_factory=dict)
    """`gemini_functions`: name → JSON Schema of the parameters."""
    mode: str = ""
    """`environment.mode`."""
    applied: dict[str, list[str]] = field(default_factory=dict)
    """Key of `defaults` → names of the steps that it changes."""
    uses_files: bool = False
    workspace_dir: str = "workspace"
    unlimited: list[str] = field(default_factory=list)
    """Steps that had no time limit."""
    places: dict[Path, Path] = field(default_factory=dict)
    """New path of a step → its old path."""

    def default(self, step: "Step", key: str) -> Any:
        """A default of the file, noted as applied to the step."""
        value = self.defaults.take(key)
        if value is not None:
            self.applied.setdefault(key, []).append(step.name)
        return value


class Step:
    """One old step: its keys, its new id, and the scope it stands in."""

    def __init__(self, unit: Unit, scope: Scope, old: Section, name: str, step_id: str) -> None:
        self.unit, self.scope, self.old, self.name, self.id = unit, scope, old, name, step_id
        self.notes = unit.notes
        self.templates, self.conditions = Templates(scope), Conditions(scope)
        unit.places.setdefault(self.at, old.path)

    @property
    def at(self) -> Path:
        """Where the new step stands."""
        return (*self.scope.prefix, self.id)

    @property
    def expression(self) -> str:
        """`steps.<id>`."""
        return field_of("steps", self.id)

    @property
    def key(self) -> tuple[Any, ...]:
        """Tells its promises from those of other steps."""
        return (self.unit.key, *self.old.path)

    def note(self, code: str, key: str, now: str, before: str, *, at: Path = ()) -> None:
        """Record a difference at a key of the step; an empty key is the step itself."""
        path = self.old.at(key) if key else self.old.path
        self.notes.add(code, path, now, before, at=at or self.at)

    def refuse(self, code: str, key: str, now: str, before: str = "") -> NoReturn:
        """Record why the step cannot be converted, and end it."""
        self.notes.refuse(code, self.old.at(key) if key else self.old.path, now, before)

    def text(self, key: str, value: str) -> str:
        """A text of the step with its templates converted."""
        return self.templates.text(value, self.old.at(key), at=self.at)

    def task(self, section: Section, name: str, step_id: str, scope: Scope) -> "Step":
        """A task inside the step, as a step of its own."""
        return Step(self.unit, scope, section, name, step_id)

    def drop(self, section: Section, key: str, why: str, before: str) -> None:
        """Take a key and say that it has no counterpart."""
        section.taken.add(key)
        self.notes.add("W1520", section.at(key), f"`{key}` is dropped: {why}", before, at=self.at)


def duration(ms: int | float) -> str:
    """Milliseconds as Headrace writes durations: `90s`, `10m`, `1500ms`."""
    whole = max(1, min(int(ms), DURATION_MS_MAX))
    size, unit = next(pair for pair in _UNITS if whole % pair[0] == 0)
    return f"{whole // size}{unit}"


def plain(text: str) -> str:
    """Text for a place where nothing is evaluated and nothing can be escaped."""
    return text.replace("${{", "{{")


def report_left(notes: Notes, section: Section, known: Mapping[str, str], where: str, *, at: Path = ()) -> None:
    """Report the keys of a section that nobody took: documented ones with what to do, others as unknown."""
    for key in section.left():
        path = section.at(key)
        shown = key[:60]
        if key in known:
            notes.add("W1520", path, f"`{shown}` is dropped: {known[key]}", "documented, but without effect", at=at)
        else:
            notes.add("W1521", path, f"`{shown}` is no key of {where}; it is dropped", "ignored in silence", at=at)
