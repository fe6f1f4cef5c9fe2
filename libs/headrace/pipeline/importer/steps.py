"""A list of old steps, in order, as a map of new ones: dispatch by type, keys that every step has, and the chain.

pipeline_ex ran one step after the other and passed over those whose condition was false. So each step needs the one
before it; across a step with a condition it needs the last one without, and of the conditional ones only the order.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from headrace.pipeline.importer import file_steps, group_steps, loop_steps, model_steps, other_steps, value_steps
from headrace.pipeline.importer.claude_options import PROGRAM_KEYS, retry_of, set_deadline
from headrace.pipeline.importer.ids import Ids
from headrace.pipeline.importer.legacy import Section
from headrace.pipeline.importer.outputs import NoOutput, Output
from headrace.pipeline.importer.report import RefusedError
from headrace.pipeline.importer.scope import Scope
from headrace.pipeline.importer.unit import Made, Step, Unit, duration, plain, report_left
from headrace.pipeline.validate import near

KEY_ORDER: Final = (
    "description", "needs", "when", "foreach", "as", "max_parallel", "on_item_error", "while", "until",
    "max_iterations", "on_limit", "carry", "timeout", "deadline", "retry", "on_error", "fallback", "effect", "llm",
    "tool", "pipeline", "with", "transform", "switch", "steps", "outputs",
)  # fmt: skip
"""How people read a step: when, how often, how long, then what."""
STEPS_MAX: Final = 1_000
"""pipeline_ex's own limit of one run."""
DEPTH_MAX: Final = 10
"""Bodies in bodies; Headrace nests as deep."""
_KNOWN: Final = {
    "cache": "`cache: {key, ttl}` needs a key that says what the result depends on",
    "error_handler": "`fallback` or `on_error` says what happens",
    "config": "its keys belong to the step itself",
    "variables": "a `set_variable` step before this one sets them",
    "progress": "`watch` shows it",
}
_LISTS: Final = ("for_loop", "while_loop")


class Sequence:
    """Converts the steps of one place."""

    def __init__(self, unit: Unit, scope: Scope) -> None:
        self.unit, self.scope, self.notes = unit, scope, unit.notes
        self.made: dict[str, dict[str, Any]] = {}
        self.outputs: dict[str, tuple[str, Output]] = {}
        self.keys = Ids()
        self.base = ""
        """The last new step without a condition."""
        self.order_only: list[str] = []
        """New steps with a condition since then."""

    def convert(self, sections: list[Section]) -> None:
        """All of them; a step that is refused does not hide what is wrong with the others."""
        names = [section.value.get("name") for section in sections]
        self.scope.later |= {name for name in names if isinstance(name, str)}
        if len(sections) > STEPS_MAX:
            self.notes.refuse("E1514", sections[0].path[:-1], f"more than {STEPS_MAX} steps", "refused as well")
        for section in sections:
            try:
                self._step(section)
            except RefusedError:
                name = section.value.get("name")
                if isinstance(name, str):
                    self.scope.later.discard(name)
                    if isinstance(self.scope.steps.get(name, NoOutput()), NoOutput):
                        self.scope.steps[name] = NoOutput()  # refused once is enough: whoever reads it is not

    def _step(self, section: Section) -> None:
        name = section.required("name")
        if name in self.scope.steps:
            before = "the later result replaced the earlier"
            self.notes.refuse("E1505", section.at("name"), f"two steps are called `{name[:60]}`", before)
        step = Step(self.unit, self.scope, section, name, self.scope.ids.make(name))
        if step.id != name:
            step.note("N1540", "name", f"`{name[:60]}` is the step `{step.id}`", "any text was a name")
        self.scope.later.discard(name)
        self.scope.steps[name] = NoOutput("it reads itself")
        self.scope.steps[name] = self._converted(step)
        self.outputs[name] = (self.keys.make(name), self.scope.steps[name])

    def _converted(self, step: Step) -> Output:
        kind = step.old.required("type")
        condition = None
        if kind not in _LISTS or kind == "for_loop":
            condition = step.old.take("condition")
        made = self._made(step, kind)
        if made.steps:
            self._common(step, made, condition)
            file_steps.output_file(step, made)
            self._chain(step, made)
        elif condition is not None:
            step.old.taken.add("condition")
        report_left(self.notes, step.old, _KNOWN, f"a `{kind}` step", at=step.at)
        for new_id, body in made.steps.items():
            self.made[new_id] = {key: body[key] for key in KEY_ORDER if key in body}
            assert len(self.made[new_id]) == len(body), body.keys()
        self.scope.variables |= made.variables
        if made.output_field and made.output_field not in self.scope.steps:
            self.scope.fields_of_steps[made.output_field] = step.name
        return made.output

    def _made(self, step: Step, kind: str) -> Made:
        simple = _SIMPLE.get(kind)
        if simple is not None:
            return simple(step)
        match kind:
            case "for_loop":
                return loop_steps.for_loop(step, self._body)
            case "while_loop":
                return loop_steps.while_loop(step, self._body)
            case "switch":
                return other_steps.switch(step, self._body)
        known = [*_SIMPLE, *_LISTS, "switch"]
        text = f"`{kind[:60]}` is no type of step; {near(kind, known) or 'see docs/import.md for those there are'}"
        self.notes.refuse("E1504", step.old.at("type"), text, "refused as well")

    def _body(
        self, step: Step, sections: list[Section], scope: Scope
    ) -> tuple[dict[str, Any], dict[str, tuple[str, Output]]]:
        if len(scope.prefix) > 2 * DEPTH_MAX:
            step.refuse("E1514", "", f"steps nested deeper than {DEPTH_MAX}", "refused deeper than 10 as well")
        inner = Sequence(self.unit, scope)
        inner.convert(sections)
        return inner.made, {name: pair for name, pair in inner.outputs.items() if not isinstance(pair[1], NoOutput)}

    # --- keys that every step has ---

    def _common(self, step: Step, made: Made, condition: Any) -> None:
        first = next(iter(made.steps.values()))
        if condition is not None:
            first["when"] = step.conditions.convert(condition, step.old.at("condition"), at=(*step.at, "when"))
            self.scope.skipped.add(step.name)
        _description(step, first)
        _limits(step, made.steps[step.id])
        _errors(step, made.steps[step.id])
        streaming = step.old.section("streaming")
        if streaming is not None:
            step.note(
                "N1555",
                "streaming",
                "`streaming` is dropped: values of any size travel as they are",
                "the result became a stub",
            )
        for key in PROGRAM_KEYS:
            if key in step.old and key != "session_id":
                step.old.taken.add(key)
                step.note("W1528", key, f"`{key}` is dropped: {PROGRAM_KEYS[key]}", "ignored at a step")

    # --- order ---

    def _chain(self, step: Step, made: Made) -> None:
        """Order the new steps after those before."""
        ids = list(made.steps)
        first = made.steps[ids[0]]
        if self.base:
            first["needs"] = [self.base]
        if self.order_only:
            waits = [_after(earlier) for earlier in self.order_only]
            own = first.get("when")
            first["when"] = " && ".join([*waits, *([_bracketed(own)] if own else [])])
        if step.name in self.scope.skipped:
            self.order_only.append(ids[-1])
        else:
            self.base, self.order_only = ids[-1], []


def _after(step_id: str) -> str:
    """A condition that always holds once the step has ended or was skipped: an optional reference only orders."""
    name = f".?{step_id}" if step_id.isidentifier() else f'[?"{step_id}"]'
    return f'steps{name}.?status.orValue("") != "failed"'


def _bracketed(condition: str) -> str:
    return f"({condition})" if "||" in condition or "?" in condition else condition


def _description(step: Step, body: dict[str, Any]) -> None:
    words = [text for text in (step.old.text("description"), step.old.text("role")) if text]
    if words:
        body["description"] = plain(" – ".join(words))


def _limits(step: Step, body: dict[str, Any]) -> None:
    seconds = step.old.number("timeout_seconds")
    default = step.unit.default(step, "timeout_seconds") if seconds is None and "timeout" not in body else None
    if seconds is None and isinstance(default, (int, float)) and not isinstance(default, bool):
        seconds = default
    if seconds and not {"foreach", "while", "until"} & set(body):
        body["timeout"] = duration(seconds * 1000)
        set_deadline(body, int(seconds * 1000))
        if "timeout_seconds" in step.old:
            step.note(
                "N1554",
                "timeout_seconds",
                f"an attempt ends after {body['timeout']}",
                "ignored",
                at=(*step.at, "timeout"),
            )
    retry = step.old.section("retry")
    if retry is not None:
        body["retry"] = retry_of(step, retry, obeyed=False)
        step.note("N1554", "retry", f"{body['retry']['attempts']} attempts", "ignored", at=(*step.at, "retry"))
        report_left(step.notes, retry, {}, "`retry`", at=step.at)
    wanted = step.old.flag("retry_on_error")
    if wanted is False and "retry" not in body:
        body["retry"] = {"attempts": 1}
    if wanted is not None:
        step.note("N1554", "retry_on_error", "repeated by the step's `retry`" if wanted else "one attempt", "ignored")


def _errors(step: Step, body: dict[str, Any]) -> None:
    go_on = step.old.flag("continue_on_error")
    if go_on is None and step.unit.default(step, "continue_on_error") is True:
        body["on_error"] = "continue"
    if go_on:
        body["on_error"] = "continue"
        step.note("N1554", "continue_on_error", "the run goes on when the step has failed", "ignored", at=step.at)
    value = step.old.take("on_error")
    match value:
        case None:
            return
        case "continue" | "fail":
            body["on_error"] = value
            step.note("N1554", "on_error", f"`on_error: {value}`", "ignored", at=step.at)
        case {"action": "continue", **rest}:
            if "default_value" in rest:
                path = (*step.old.at("on_error"), "default_value")
                body["fallback"] = {"value": step.templates.value(rest["default_value"], path, at=step.at)}
                now = "the default value stands in when the step has failed, and is marked `degraded`"
            else:
                body["on_error"] = "continue"
                now = "the run goes on when the step has failed"
            step.note("N1554", "on_error", now, "ignored", at=step.at)
        case _:
            step.note("W1520", "on_error", "`on_error` is dropped: write `fallback` or `on_error: continue`", "ignored")


def _checkpoint(step: Step) -> Made:
    step.note("W1524", "type", "`checkpoint` is left out: every event is kept", "never run: no such type")
    step.old.taken |= set(step.old.value)
    return Made.nothing(f"`{step.name}` was a checkpoint, which gives nothing")


_SIMPLE: Final[Mapping[str, Callable[[Step], Made]]] = {
    "claude": model_steps.claude,
    "claude_smart": model_steps.claude_smart,
    "claude_session": model_steps.claude_session,
    "claude_extract": model_steps.claude_extract,
    "claude_batch": group_steps.claude_batch,
    "claude_robust": model_steps.claude_robust,
    "parallel_claude": group_steps.parallel_claude,
    "gemini": model_steps.gemini,
    "gemini_instructor": model_steps.gemini_instructor,
    "set_variable": value_steps.set_variable,
    "test_echo": value_steps.test_echo,
    "data_transform": value_steps.data_transform,
    "file_ops": file_steps.file_ops,
    "pipeline": other_steps.pipeline,
    "prompt": other_steps.prompt,
    "bash": other_steps.bash,
    "checkpoint": _checkpoint,
    "codebase_query": other_steps.codebase_query,
    "pipeline_generator": other_steps.pipeline_generator,
}
