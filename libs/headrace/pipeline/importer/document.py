"""An old document as a new one: its root, its keys, its defaults, and what its steps need around them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from headrace.pipeline.importer.claude_options import PROGRAM_KEYS
from headrace.pipeline.importer.ids import slug
from headrace.pipeline.importer.legacy import Section
from headrace.pipeline.importer.outputs import NoOutput, Output
from headrace.pipeline.importer.report import Notes
from headrace.pipeline.importer.scope import Declared, Scope
from headrace.pipeline.importer.steps import Sequence
from headrace.pipeline.importer.unit import Unit, plain, report_left
from headrace.pipeline.positions import Path
from headrace.pipeline.problems import shown

TIMEOUT_DEFAULT: Final = "10m"
"""Of one attempt, where the old file set no limit: an agent with tools needs minutes; Headrace's own default is 2m."""
_NO_CODE: Final = {
    "claude_auth": "a key belongs to the executor, as a secret",
    "resource_limits": "`limits.deadline` and `limits.budget` bound a run",
    "safety": "`tools` is the allow-list, `approve` lets a person decide",
    "performance": "results do not depend on size",
    "telemetry": "every run is traced and measured",
    "monitoring": "every run is traced and measured",
    "models": "`defaults.model` is a list to try in order",
    "token_management": "`limits.budget` bounds a run",
    "providers": "providers belong to the executor",
    "directories": "files are in the run's workspace",
    "cache_config": "`cache: {key, ttl}` at a step",
    "extends": "write the steps out, or call the other file as a `pipeline` step",
    "include": "write the steps out, or call the other file as a `pipeline` step",
    "$if": "a condition belongs to a step",
    "output": "`outputs` is what the run gives; `fs.write` writes it",
    "outputs": "the results of all steps are the outputs",
    "error_handling": "`on_error`, `fallback` and `retry` at a step",
}
_DEFAULTS: Final = {
    "cache": "`cache: {key, ttl}` at a step",
    "cache_enabled": "`cache: {key, ttl}` at a step",
    "cache_ttl": "`cache: {key, ttl}` at a step",
    "claude_output_format": "the answer is text, or a value where `output_schema` is given",
}


@dataclass(slots=True)
class Converted:
    """A new document, with what its parents and its file need."""

    document: dict[str, Any]
    outputs: Mapping[str, tuple[str, Output]]
    """Old step name → key of the pipeline's outputs, and what is there."""
    inputs: frozenset[str]
    notes: Notes
    source: str = ""
    places: Mapping[Path, Path] = field(default_factory=dict)
    """New path of a step → its old path."""


def root_of(notes: Notes, document: Any) -> tuple[Section, Section]:
    """The map with name and steps, and the map around it, which may be the same.

    Raises:
        RefusedError: neither `workflow:`, nor `pipeline:` beside `steps:`, nor `name:` and `steps:`.
    """
    if not isinstance(document, dict):
        text = f"not a pipeline_ex file: a map with `workflow` is expected, this is {shown(document)}"
        notes.refuse("E1501", (), text, "refused as well")
    whole = Section(notes, document)
    for key in ("workflow", "pipeline"):
        inner = document.get(key)
        if isinstance(inner, dict) and ("steps" in inner or "steps" in document):
            whole.taken.add(key)
            if key != "workflow":
                notes.add("N1564", (key,), "`pipeline:` at the top is understood", "rejected: no `workflow:`")
            return Section(notes, inner, (key,)), whole
    if "steps" in document and not isinstance(document.get("pipeline"), str):
        notes.add("N1564", (), "a file without `workflow:` is understood", "rejected")
        return whole, whole
    if isinstance(document.get("pipeline"), str):
        text = "this is a Headrace pipeline already"
        notes.refuse("E1501", ("pipeline",), text, "a map was expected here")
    below = [key for key, value in document.items() if isinstance(value, dict) and "steps" in value]
    hint = f"; `{shown(below[0])[1:-1]}` holds one: move it to a file of its own" if below else ""
    path: Path = (below[0],) if below else ()
    notes.refuse(
        "E1501", path, f"not a pipeline_ex file: no `workflow`, and no `steps` at the top{hint}", "refused as well"
    )


def convert(unit: Unit, head: Section, whole: Section, *, name: str = "") -> Converted:
    """The new document.

    Args:
        head: The map with the old file's keys.
        whole: The map around it, which may hold the steps.
        name: For a pipeline inside a step, which need not have a name.
    """
    notes = unit.notes
    old_name = head.text("name") or name
    if not old_name:
        notes.refuse("E1502", head.path, "`name` is missing", "refused as well")
    new_name = slug(old_name, "pipeline")
    description = [text for text in (head.text("description"),) if text]
    if new_name != old_name:
        notes.add(
            "N1540",
            head.at("name"),
            f"`{old_name[:80]}` is the pipeline `{new_name}`",
            "any text was a name",
            at=("pipeline",),
        )
        description.insert(0, old_name)
    inputs = _inputs(notes, head, whole)
    variables = _vars(unit, head)
    facts = {
        key: str(head.value[key])
        for key in ("name", "description", "version")
        if isinstance(head.value.get(key), (str, int, float))
    }
    owner = head if "steps" in head or head is whole else whole
    sections = owner.sections("steps") or []
    if not sections:
        notes.refuse("E1502", owner.at("steps"), "`steps` is empty or missing", "refused as well")
    _environment(unit, head)
    _functions(unit, head)
    unit.workspace_dir = head.text("workspace_dir") or unit.workspace_dir
    scope = Scope(notes, inputs, {old: new for old, (new, _) in variables.items()}, facts, set())
    sequence = Sequence(unit, scope)
    sequence.convert(sections)
    document: dict[str, Any] = {"pipeline": new_name}
    if description:
        document["description"] = plain(" – ".join(description))
    _labels(notes, head, document)
    if inputs.schemas:
        document["inputs"] = inputs.schemas
    given = {name: pair for name, pair in sequence.outputs.items() if not isinstance(pair[1], NoOutput)}
    document["outputs"] = {key: f"${{{{ {output.read(()).cel} }}}}" for key, output in given.values()}
    if variables:
        document["vars"] = dict(variables.values())
    _defaults(unit, head, document)
    _workspace(unit, head, document)
    document["steps"] = sequence.made
    _rest(notes, head, whole)
    return Converted(document, given, frozenset(inputs.schemas), notes, places={(): owner.path} | unit.places)


def _inputs(notes: Notes, head: Section, whole: Section) -> Declared:
    declared = Declared()
    for owner, key in ((head, "input"), (head, "inputs"), (whole, "input"), (whole, "inputs")):
        if key in owner.taken or key not in owner:
            continue
        section = owner.section(key)
        assert section is not None
        for old, value in section.value.items():
            new = slug(old, "input")
            declared.names[old] = new
            declared.schemas[new] = _input_schema(value)
            if "${{" in str(value):
                text = f"`{old[:60]}` holds `${{{{`, and a default is a constant"
                notes.refuse("E1510", section.at(old), text, "ignored")
        now = "each is an input with this value as its default"
        notes.add("N1554", owner.at(key), now, "ignored: their templates became empty texts", at=("inputs",))
    return declared


def _input_schema(value: Any) -> dict[str, Any]:
    if isinstance(value, dict) and isinstance(value.get("type"), str) and value["type"] in _TYPES:
        kept = {key: value[key] for key in ("type", "description", "default", "enum") if key in value}
        return (
            kept
            if value.get("required") is not False or "default" in kept
            else {**kept, "default": None, "type": [kept["type"], "null"]}
        )
    kind = next(name for kinds, name in _KINDS if isinstance(value, kinds))
    return {"type": kind, "default": value} if kind else {}


_TYPES: Final = frozenset({"string", "integer", "number", "boolean", "array", "object"})
_KINDS: Final[tuple[tuple[Any, str], ...]] = (
    (bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (list, "array"), (dict, "object"),
    (object, ""),
)  # fmt: skip


def _vars(unit: Unit, head: Section) -> dict[str, tuple[str, Any]]:
    made: dict[str, tuple[str, Any]] = {}
    for key in ("global_vars", "variables"):
        section = head.section(key)
        if section is None:
            continue
        for old, value in section.value.items():
            if "{{" in str(value):
                path = section.at(old)
                text = f"`{old[:60]}` holds a template, and `vars` are constants: use a `set_variable` step"
                unit.notes.refuse("E1510", path, text, "expanded where it was used, or never")
            made[old] = (slug(old, "variable"), value)
        if key == "variables":
            unit.notes.add("N1554", head.at(key), "the variables are `vars`", "never read", at=("vars",))
    return made


def _environment(unit: Unit, head: Section) -> None:
    section = head.section("environment")
    if section is None:
        return
    mode = section.text("mode")
    if mode is not None:
        unit.mode = mode
        now = f"`{mode[:60]}` is resolved now, for steps with `environment_aware`"
        unit.notes.add("N1556", section.at("mode"), now, "read when the step ran")
    known = {key: "it has no counterpart; the environment configures the services" for key in section.left()}
    report_left(unit.notes, section, known, "`environment`")


def _functions(unit: Unit, head: Section) -> None:
    section = head.section("gemini_functions")
    if section is None:
        return
    for name in section.value:
        function = section.section(name)
        if function is not None:
            unit.functions[name] = function.take("parameters")
    section.taken |= set(section.value)


def _labels(notes: Notes, head: Section, document: dict[str, Any]) -> None:
    labels: dict[str, str] = {}
    version = head.text("version")
    if version:
        labels["version"] = version[:256]
    metadata = head.section("metadata")
    for key, value in (metadata.value if metadata is not None else {}).items():
        if isinstance(value, (str, int, float)) and "${{" not in str(value) and len(labels) < 64:
            labels[key] = (str(value).lower() if isinstance(value, bool) else str(value))[:256]
        elif metadata is not None:
            now = f"`{key[:60]}` is dropped: labels are short texts"
            notes.add("W1520", metadata.at(key), now, "ignored", at=("labels",))
    if labels:
        document["labels"] = labels


def _defaults(unit: Unit, head: Section, document: dict[str, Any]) -> None:
    for key, steps in unit.applied.items():
        if key in ("claude_preset", "output_dir"):
            continue
        path = unit.defaults.at(key.partition(".")[0])
        if key.startswith("claude_options."):
            path = (*path, key.partition(".")[2])
        names = ", ".join(dict.fromkeys(steps))
        unit.notes.add("N1554", path, f"`{key}` applies to {names}", "merged by a function that nobody called")
    model = unit.defaults.text("claude_model")
    if model is not None:
        unit.notes.add(
            "W1520",
            unit.defaults.at("claude_model"),
            "`claude_model` is dropped: write `model` at the steps",
            "ignored",
        )
    if unit.unlimited:
        document["defaults"] = {"timeout": TIMEOUT_DEFAULT}
        names = ", ".join(dict.fromkeys(unit.unlimited))
        now = f"an attempt ends after {TIMEOUT_DEFAULT} where the file says nothing: {names}"
        unit.notes.add("N1547", head.path, now, "no limit at all", at=("defaults",))
    unit.defaults.taken |= {"output_dir", "claude_preset"}
    retry = unit.defaults.flag("retry_on_error")
    if retry is False:
        document.setdefault("defaults", {})["retry"] = {"attempts": 1}
    section = unit.defaults.value.get("claude_options")
    if isinstance(section, dict) and not any(key.startswith("claude_options.") for key in unit.applied):
        unit.notes.add(
            "W1520",
            unit.defaults.at("claude_options"),
            "`claude_options` changes nothing: each step has its own, or there is no counterpart",
            "ignored",
        )
    for key in ("gemini_model", "gemini_token_budget", "claude_options", "timeout_seconds", "continue_on_error"):
        if key in unit.defaults and key not in unit.defaults.taken:
            unit.defaults.taken.add(key)
            now = f"`{key}` is dropped: no step takes it"
            unit.notes.add("W1520", unit.defaults.at(key), now, "ignored")
    report_left(unit.notes, unit.defaults, _DEFAULTS, "`defaults`")


def _workspace(unit: Unit, head: Section, document: dict[str, Any]) -> None:
    if "workspace_dir" in head:
        document["workspace"] = True
        now = "every run has a directory of its own"
        unit.notes.add(
            "N1560",
            head.at("workspace_dir"),
            now,
            "one directory for all runs, and another for Claude",
            at=("workspace",),
        )
    if unit.uses_files:
        document["workspace"] = True
    for key in ("checkpoint_enabled", "checkpoint_dir"):
        if key in head:
            head.taken.add(key)
            now = f"`{key}` is dropped: every event is kept, and a run goes on where it was"
            unit.notes.add("N1555", head.at(key), now, "JSON files, resumed by the number of the step")


def _rest(notes: Notes, head: Section, whole: Section) -> None:
    for key, why in PROGRAM_KEYS.items():
        if key in head:
            head.taken.add(key)
            notes.add("W1528", head.at(key), f"`{key}` is dropped: {why}", "ignored in this place")
    report_left(notes, head, _NO_CODE, "a pipeline")
    if whole is not head:
        report_left(notes, whole, _NO_CODE, "the file")
