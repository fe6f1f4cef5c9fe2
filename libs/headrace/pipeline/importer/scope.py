"""What a name of the old file means at one place: steps that have run, variables, inputs, the item of a loop.

The old order was: `inputs.`, `global_vars.`, `steps.`, `state.`, then the bare name. A bare name that nothing defines
became "" there; here it becomes a declared input, and anything else that is unknown is an error.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from headrace.pipeline.importer.ids import Ids, fields, literal, slug
from headrace.pipeline.importer.outputs import Output, Read, UnknownFieldError
from headrace.pipeline.importer.report import Notes
from headrace.pipeline.positions import Path
from headrace.pipeline.problems import shown

NAMESPACES: Final = ("steps", "inputs", "global_vars", "vars", "state", "variables", "loop", "workflow", "execution_id")
_TIMES: Final = {"timestamp": "run.started_at", "date": "run.started_at.substring(0, 10)"}


class UnknownNameError(Exception):  # becomes a refusal where the place is known
    """A name that nothing defines. `code` is the report's."""

    def __init__(self, text: str, *, code: str) -> None:
        self.code = code
        super().__init__(text)


@dataclass(slots=True, frozen=True)
class Loop:
    """A loop around this place: what its item is called there and here."""

    old_name: str
    name: str


@dataclass(slots=True)
class Declared:
    """The inputs of the new file: JSON Schema by name."""

    schemas: dict[str, dict[str, Any]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    """Old name → new name."""

    def name_of(self, old: str) -> str:
        """The new name of an input, declared or not."""
        return self.names.get(old, slug(old, "input"))


@dataclass(slots=True)
class Scope:
    """Names at one place. `child()` gives the scope of a body, which sees what is around it."""

    notes: Notes
    inputs: Declared
    global_vars: Mapping[str, str]
    """Old name → new name."""
    workflow: Mapping[str, str]
    """Facts about the old file: name, description, version."""
    later: set[str]
    """Names of steps that have not been converted yet."""
    steps: dict[str, Output] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)
    """Old names of steps with a condition: what reads them is skipped with them."""
    variables: dict[str, str] = field(default_factory=dict)
    """Variable of `set_variable` → expression of its value here."""
    fields_of_steps: dict[str, str] = field(default_factory=dict)
    """`output_field` → old name of the step that gives it."""
    loops: tuple[Loop, ...] = ()
    ids: Ids = field(default_factory=Ids)
    prefix: Path = ("steps",)
    """Where the steps of this place stand in the new document."""
    inside: tuple[str, int] | None = None
    """The text and offset of the name that is looked up, for the report."""
    typed: bool = True
    """Whether a name that nothing defines stands for text, as in a template, or for any value."""

    def body(self, prefix: Path, loop: Loop | None = None) -> "Scope":
        """The scope of a body: it sees everything, and what it defines stays inside."""
        return Scope(
            prefix=prefix,
            notes=self.notes,
            inputs=self.inputs,
            global_vars=self.global_vars,
            workflow=self.workflow,
            later=set(),
            steps=dict(self.steps),
            skipped=set(self.skipped),
            variables=dict(self.variables),
            fields_of_steps=dict(self.fields_of_steps),
            loops=self.loops if loop is None else (*self.loops, loop),
            ids=self.ids,
        )

    @property
    def odd_names(self) -> list[str]:
        """Names of steps that are no plain words, longest first."""
        names = {*self.steps, *self.later}
        return sorted((name for name in names if not name.isidentifier()), key=lambda name: (-len(name), name))

    # --- steps ---

    def is_step(self, name: object) -> bool:
        """Whether a step of this name is in the file."""
        return isinstance(name, str) and (name in self.steps or name in self.later)

    def step(self, name: str, path: Iterable[str | int] = (), *, wanted: Mapping[str, Any] | None = None) -> Read:
        """The expression for a path of a step's result.

        Raises:
            UnknownNameError: no such step, not yet, or no such field.
        """
        output = self.steps.get(name)
        if output is None and name in self.fields_of_steps:
            output = self.steps[self.fields_of_steps[name]]
        if output is None:
            if name in self.later:
                msg = f"step {shown(name)} has not run here"
                raise UnknownNameError(msg, code="E1507")
            known = ", ".join(self.steps) or "none so far"
            msg = f"there is no step {shown(name)} before this; steps are {known}"
            raise UnknownNameError(msg, code="E1506")
        try:
            return output.read(tuple(path), wanted=wanted)
        except UnknownFieldError as error:
            msg = f"step {shown(name)}: {error}"
            raise UnknownNameError(msg, code="E1506") from error

    # --- every other name ---

    def name(
        self, path: tuple[str | int, ...], where: Path, inside: tuple[str, int] | None = None, *, typed: bool = True
    ) -> Read:
        """The expression for a dotted name of a template or condition.

        Raises:
            UnknownNameError: nothing defines it.
        """
        root, rest = str(path[0]), path[1:]
        self.inside, self.typed = inside, typed
        match root:
            case "steps" | "previous_response" if rest:
                return self.step(str(rest[0]), rest[1:])
            case "inputs" if rest:
                return self._input(str(rest[0]), rest[1:], where, typed=False)
            case "global_vars" | "vars" if rest:
                return self._global(str(rest[0]), rest[1:], where)
            case "state" | "variables" if rest:
                return self._variable(str(rest[0]), rest[1:], where)
            case "loop" if rest:
                return self._loop(rest)
            case "workflow" if rest:
                return self._workflow(str(rest[0]))
            case "execution_id":
                return Read("run.id", is_text=True)
        if self.is_step(root) or root in self.fields_of_steps:
            return self.step(root, rest)
        return self._bare(root, rest, where)

    def _bare(self, root: str, rest: tuple[str | int, ...], where: Path) -> Read:
        for loop in reversed(self.loops):
            if root == loop.old_name:
                return Read(fields(loop.name, rest))
        if root in self.variables:
            return Read(fields(self.variables[root], rest))
        if root in self.global_vars:
            return Read(fields("vars", (self.global_vars[root], *rest)))
        if root in self.inputs.names:
            return self._input(root, rest, where, typed=self.typed)
        if root in _TIMES and not rest:
            return Read(_TIMES[root], is_text=True)
        if root in NAMESPACES or rest:
            msg = f"nothing defines `{'.'.join(map(str, (root, *rest)))}`"
            raise UnknownNameError(msg, code="E1508")
        return self._input(root, rest, where, typed=self.typed)

    def _input(self, name: str, rest: tuple[str | int, ...], where: Path, *, typed: bool) -> Read:
        new = self.inputs.name_of(name)
        if name not in self.inputs.names:
            self.inputs.names[name] = new
            self.inputs.schemas[new] = {"type": "string"} if typed and not rest else {}
            before = (
                "a name that nothing defined became an empty text"
                if typed
                else "outside of a nested run the text was kept as it stands"
            )
            self.notes.add(
                "N1544",
                where,
                f"`{name}` is the input `{new}`: `-i {new}=…`",
                before,
                at=("inputs", new),
                inside=self.inside,
            )
        return Read(fields("inputs", (new, *rest)), is_text=typed and not rest)

    def _global(self, name: str, rest: tuple[str | int, ...], where: Path) -> Read:
        if name in self.global_vars:
            return Read(fields("vars", (self.global_vars[name], *rest)))
        return self._input(name, rest, where, typed=False)

    def _variable(self, name: str, rest: tuple[str | int, ...], where: Path) -> Read:
        if name in self.variables:
            return Read(fields(self.variables[name], rest))
        if name in self.global_vars:
            return self._global(name, rest, where)
        return self._input(name, rest, where, typed=True)

    def _loop(self, rest: tuple[str | int, ...]) -> Read:
        loops = self.loops
        while rest[:1] == ("parent",) and loops:
            loops, rest = loops[:-1], rest[1:]
        if not loops or not rest:
            msg = f"`loop.{'.'.join(map(str, rest))}` stands outside of a loop"
            raise UnknownNameError(msg, code="E1508")
        if rest[0] == "item":
            return Read(fields(loops[-1].name, rest[1:]))
        if rest == ("index",) and loops == self.loops:
            return Read("index")
        if rest == ("is_first",) and loops == self.loops:
            return Read("index == 0", is_bool=True)
        msg = f"`loop.{'.'.join(map(str, rest))}` has no counterpart; `item`, `index` and `is_first` have"
        raise UnknownNameError(msg, code="E1508")

    def _workflow(self, name: str) -> Read:
        if name in self.workflow:
            return Read(literal(self.workflow[name]), is_text=True)
        msg = f"nothing defines `workflow.{name}`; known are {', '.join(self.workflow)}"
        raise UnknownNameError(msg, code="E1508")
