"""Nested pipelines, and types that were documented but never run: `switch`, `prompt`, `bash` and others."""

from collections.abc import Mapping
from typing import Any, Final

from headrace.pipeline.importer.claude_options import MODEL_DEFAULT, Settings, model_name
from headrace.pipeline.importer.ids import fields, literal, slug
from headrace.pipeline.importer.legacy import Section
from headrace.pipeline.importer.loop_steps import Body
from headrace.pipeline.importer.model_steps import asked
from headrace.pipeline.importer.outputs import Members, Output, ValueOutput
from headrace.pipeline.importer.scope import UnknownNameError
from headrace.pipeline.importer.unit import Made, Step, duration, report_left

_CONFIG: Final = {
    "max_depth": "nesting is bounded by Headrace",
    "max_total_steps": "the number of steps is bounded by Headrace",
    "memory_limit_mb": "an executor has its own limit",
    "workspace_enabled": "`workspace: true` in the child",
    "workspace_dir": "`workspace: true` in the child",
    "cleanup_on_error": "workspaces are kept for a while, then removed",
    "checkpoint_enabled": "every event is kept",
    "enable_tracing": "every run is traced",
    "continue_on_error": "`on_error: continue`",
}
_NEVER: Final = "never run: the type had no code"


def pipeline(step: Step) -> Made:
    """`pipeline`: a child run, with its inputs and outputs."""
    found = [key for key in ("pipeline_file", "pipeline", "pipeline_ref") if key in step.old]
    if len(found) != 1:
        text = "exactly one of `pipeline_file`, `pipeline`, `pipeline_ref` is needed"
        step.refuse("E1502", "", text, "refused as well")
    children: Mapping[str, tuple[str, Output]] = {}
    needed: frozenset[str] | None = None
    match found[0]:
        case "pipeline_file":
            reference, children, needed = step.unit.nested.file(step, step.old.required("pipeline_file"))
        case "pipeline":
            section = step.old.section("pipeline")
            assert section is not None
            reference, children, needed = step.unit.nested.inline(step, section)
        case _:
            name = step.old.required("pipeline_ref")
            reference = slug(name, "pipeline")
            step.note("N1558", "pipeline_ref", f"the pipeline registered as `{reference}`", "an error: not implemented")
    body: dict[str, Any] = {}
    _config(step, body)
    body["pipeline"] = reference
    arguments = _inputs(step, needed)
    if arguments:
        body["with"] = arguments
    return Made({step.id: body}, _outputs(step, children, known=found[0] != "pipeline_ref"))


def _inputs(step: Step, needed: frozenset[str] | None) -> dict[str, Any]:
    section = step.old.section("inputs")
    given = {} if section is None else section.value
    made: dict[str, Any] = {}
    for name, value in given.items():
        path = (*step.old.at("inputs"), name)
        new = slug(name, "input")
        if needed is not None and new not in needed:
            step.notes.add(
                "N1558", path, f"`{name[:60]}` is dropped: the child reads no such input", "passed on", at=step.at
            )
            continue
        made[new] = step.templates.value(value, path, at=step.at)
    config = step.old.value.get("config")
    inherits = isinstance(config, dict) and config.get("inherit_context") is True
    for new in sorted((needed or frozenset()) - set(made)):
        old = next((old for old in step.scope.global_vars if slug(old, "input") == new), None)
        if inherits and old is not None:
            made[new] = f"${{{{ {fields('vars', (step.scope.global_vars[old],))} }}}}"
        else:
            step.scope.inputs.names.setdefault(new, new)
            if new not in step.scope.inputs.schemas:
                step.scope.inputs.schemas[new] = {}
                now = f"the child reads `{new}`, which nobody gives it: an input of this pipeline too"
                step.note("N1558", "", now, "an empty text in the child", at=("inputs", new))
            made[new] = f"${{{{ {fields('inputs', (new,))} }}}}"
    if inherits:
        step.note("N1558", "config", "what the child reads is passed by `with`", "every global variable was seen")
    return made


def _config(step: Step, body: dict[str, Any]) -> None:
    config = step.old.section("config")
    if config is None:
        return
    config.taken.add("inherit_context")
    seconds = config.number("timeout_seconds")
    if seconds:
        body["deadline"] = duration(seconds * 1000)
        now = f"the child is cancelled after {body['deadline']}"
        step.notes.add("N1558", config.at("timeout_seconds"), now, "looked at when the child had ended", at=step.at)
    report_left(step.notes, config, _CONFIG, "`config`", at=step.at)


def _outputs(step: Step, children: Mapping[str, tuple[str, Output]], *, known: bool) -> Output:
    whole = f"{step.expression}.output"
    listed = step.old.listed("outputs")
    if not known:
        step.old.taken.add("outputs")
        return ValueOutput(whole, None, frozenset({"result", "outputs"}))
    child = Members(whole, children)
    if not listed:
        return child
    members: dict[str, tuple[str, Output]] = {}
    for index, entry in enumerate(listed):
        path = (*step.old.at("outputs"), index)
        match entry:
            case str():
                source, name = entry, entry.split(".")[0]
            case {"path": str(source), **rest} if set(rest) <= {"as"}:
                name = str(rest.get("as") or source.split(".")[-1])
            case _:
                step.notes.refuse("E1503", path, "an output is the name of a step, or `{path, as}`", "an error")
        parts = tuple(int(part) if part.isdigit() else part for part in source.split("."))
        if parts[0] not in children:
            known_steps = ", ".join(children) or "none"
            step.notes.refuse("E1506", path, f"the child has no step `{parts[0]}`; it has {known_steps}", "an error")
        members[name] = ("", _Below(child, parts))
    step.note(
        "N1558", "outputs", "`output` has the results of all of the child's steps", "wrapped, or not, by other keys"
    )
    return _Chosen(child, members)


class _Below:
    """A path of the child's results under a name of its own."""

    def __init__(self, child: Members, path: tuple[str | int, ...]) -> None:
        self.child, self.path = child, path

    def read(self, path: Any, *, at: str = "", wanted: Any = None) -> Any:
        """The path below it."""
        return self.child.read((*self.path, *path), wanted=wanted)


class _Chosen:
    """What a step gives that chose some of the child's results."""

    def __init__(self, child: Members, chosen: Mapping[str, tuple[str, Output]]) -> None:
        self.child, self.chosen = child, chosen

    def read(self, path: Any, *, at: str = "", wanted: Any = None) -> Any:
        """By the chosen name first, then by the child's own."""
        for wrapper in ("result", "outputs"):
            if path and path[0] == wrapper and wrapper not in self.chosen:
                path = path[1:]
        if path and path[0] in self.chosen:
            return self.chosen[str(path[0])][1].read(path[1:], wanted=wanted)
        return self.child.read(path, at=at, wanted=wanted)


def prompt(step: Step) -> Made:
    """`prompt`: a type of generated files, with `provider` and `model`."""
    step.note("N1564", "type", "`prompt` is an `llm` step", _NEVER)
    provider, model = step.old.text("provider"), step.old.text("model")
    settings = Settings()
    if provider in ("gemini", "google"):
        settings.llm["model"] = f"google/{model or 'gemini-2.5-flash'}"
    else:
        settings.llm["model"] = model_name(model) if model else MODEL_DEFAULT
    step.unit.unlimited.append(step.name)
    return asked(step, step.old, settings)


def bash(step: Step) -> Made:
    """`bash`: `shell.run`, which refuses to start until the operator enables it."""
    command = step.old.required("command")
    if "{{" in command:
        text = "a template in a shell command lets data become code; write the command without, and pass files"
        step.refuse("E1510", "command", text, _NEVER)
    now = "`shell.run` is off until the operator enables it: until then the run is refused at its start"
    step.note("W1523", "type", now, _NEVER)
    output = ValueOutput(f"{step.expression}.output", None, frozenset({"result"}))
    for key in ("output_schema", "response_schema", "schema"):
        if key in step.old:
            step.drop(step.old, key, "check the text with `json.validate`", "never enforced")
    argv = ["bash", "-c", step.templates.text(command, step.old.at("command"))]
    return Made({step.id: {"tool": "shell.run", "with": {"argv": argv}}}, output)


def codebase_query(step: Step) -> Made:
    """`codebase_query`: has no counterpart."""
    text = "`codebase_query` has no counterpart; write `fs.glob` and `fs.grep` steps for what it asks"
    step.refuse("E1510", "type", text, _NEVER)


def pipeline_generator(step: Step) -> Made:
    """`pipeline_generator`: has no counterpart inside a pipeline."""
    text = "`pipeline_generator` has no counterpart in a pipeline; `headrace generate` drafts one"
    step.refuse("E1510", "type", text, _NEVER)


def switch(step: Step, body: Body) -> Made:
    """`switch`: cases by the value of an expression."""
    step.note("N1564", "type", "`switch` chooses a case", _NEVER)
    key, value = step.old.first("expression", "switch", "value", "input")
    cases = step.old.section("cases")
    if not isinstance(value, str) or cases is None:
        step.refuse("E1502", "", "a `switch` needs `expression` and `cases`, a map of lists of steps", _NEVER)
    bare = value.strip().removeprefix("{{").removesuffix("}}")
    try:
        subject = step.templates.formula(bare, step.old.at(key), step.at).text
    except UnknownNameError as error:
        step.refuse(error.code, key, str(error), _NEVER)
    made: list[dict[str, Any]] = []
    for index, name in enumerate(cases.value):
        inner = _case(step, cases, name, index, body)
        made.append({"when": f"text({subject}) == {literal(name)}", **inner})
    if "default" in step.old:
        made.append({"default": _case(step, step.old, "default", len(made), body)})
    return Made({step.id: {"switch": made}}, ValueOutput(f"{step.expression}.output", None, frozenset({"result"})))


def _case(step: Step, owner: Section, name: str, index: int, body: Body) -> dict[str, Any]:
    value = owner.value.get(name)
    sections = owner.sections(name) if isinstance(value, list) else None
    if isinstance(value, dict):
        inner = owner.section(name)
        sections = inner.sections("steps") if inner is not None else None
    if not sections:
        step.notes.refuse("E1502", owner.at(name), "a case is a list of steps", _NEVER)
    scope = step.scope.body((*step.at, "switch", index, "steps"))
    steps, members = body(step, sections, scope)
    outputs = {key: f"${{{{ {output.read(()).cel} }}}}" for key, output in members.values()}
    return {"steps": steps, "outputs": outputs}
