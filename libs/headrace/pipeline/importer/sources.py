"""Where a loop or a transform takes its list from: seven spellings, one expression."""

from typing import Any, Final

from headrace.pipeline.importer.legacy import Section
from headrace.pipeline.importer.outputs import Read
from headrace.pipeline.importer.scope import UnknownNameError
from headrace.pipeline.importer.templates import split_source
from headrace.pipeline.importer.unit import Step
from headrace.pipeline.positions import Path

_LIST: Final = {"type": "array"}
_FAILED: Final = "not understood there: an error, or an empty list"


def list_source(step: Step, key: str, *, section: Section | None = None, understood: bool = True) -> str:
    """The list at a key, as an expression. `understood`: the old step knew `previous_response:`."""
    owner = section or step.old
    value = owner.take(key)
    where = owner.at(key)
    match value:
        case list():
            step.notes.add("N1564", where, "a list written out is the list", _FAILED, at=step.at)
            return step.templates.cel(value, where, at=step.at)
        case str() if value.strip():
            return _text(step, value.strip(), where, understood=understood)
        case None:
            step.notes.refuse("E1502", owner.path, f"`{key}` is missing", "refused as well")
    owner.wrong(key, "the name of a list")


def _text(step: Step, source: str, where: Path, *, understood: bool) -> str:
    if source.startswith("{{") and source.endswith("}}"):
        step.notes.add("N1564", where, "the template is the list", _FAILED, at=step.at)
        return step.templates.formula(source[2:-2], where, step.at).text
    kind, _, rest = source.partition(":")
    if kind in ("previous_response", "context") and rest:
        if not understood:
            step.notes.add("N1564", where, f"`{kind}:` names the step", _FAILED, at=step.at)
        source = rest
    elif source.startswith("steps."):
        step.notes.add("N1564", where, "`steps.` names the step", _FAILED, at=step.at)
        source = source[len("steps.") :]
    try:
        read = _read(step, source, where)
    except UnknownNameError as error:
        step.notes.refuse(error.code, where, str(error), "an error, or an empty list")
    step.templates.promised(read, source, where, step.at)
    return read.cel


def _read(step: Step, source: str, where: Path) -> Read:
    scope = step.scope
    name, path = split_source(source, scope)
    if name in scope.fields_of_steps and name not in scope.steps:
        owner = scope.fields_of_steps[name]
        step.notes.add(
            "N1564", where, f"`{name}` is what step `{owner}` gives", "no step of that name: not found", at=step.at
        )
    if scope.is_step(name) or name in scope.fields_of_steps:
        return scope.step(name, path, wanted=_LIST if path else None)
    parts: tuple[Any, ...] = tuple(
        int(part) if part.isdigit() else part for part in source.replace(":", ".").split(".")
    )
    return scope.name(parts, where)
