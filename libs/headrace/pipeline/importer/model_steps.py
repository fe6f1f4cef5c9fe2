"""Steps that ask a model: `claude` and its relatives, `gemini`, `gemini_instructor`; each becomes an `llm` step."""

from collections.abc import Mapping
from typing import Any, Final

from headrace.pipeline.importer import schemas
from headrace.pipeline.importer.claude_options import (
    Options,
    Preset,
    Settings,
    preset_of,
    retry_of,
    set_deadline,
    settings_of,
)
from headrace.pipeline.importer.ids import slug
from headrace.pipeline.importer.legacy import Section
from headrace.pipeline.importer.outputs import ModelOutput
from headrace.pipeline.importer.prompts import Prompt, prompt_of
from headrace.pipeline.importer.unit import Made, Step, duration, report_left
from headrace.pipeline.prices import shipped
from headrace.pipeline.pricing import models_of

GEMINI_DEFAULT: Final = "gemini-2.5-flash-lite-preview-06-17"
INSTRUCTOR_DEFAULT: Final = "gemini-2.5-flash"
_APOLOGY: Final = "The service is unavailable for the moment; this answer stands in for it."
_EXTRACTION: Final = {
    "max_summary_length": ("ask for it in the prompt", "cut the summary that was found by patterns"),
    "include_metadata": ("the log has what was called, when, and what it cost", "added to the result"),
    "use_content_extractor": ("nothing is taken out by patterns", "without effect live"),
}
"""Key of `extraction_config` → why it is dropped, what it did."""
_SESSION: Final = {
    "checkpoint_frequency": "how often a file was written",
    "checkpoint_interval": "ignored: it was called `checkpoint_frequency`",
    "persist": "ignored",
    "continue_on_restart": "ignored",
}
"""Key of `session_config` that is needless now → what it did."""
_POST: Final = {
    "extract_code_blocks": ("code", "text.extract_code"),
    "extract_code": ("code", "text.extract_code"),
    "extract_links": ("links", "text.extract_links"),
}


def options_of(step: Step, *sections: Section) -> Options:
    """The options of a step: those of its task or turn first, then its own, then the file's defaults."""
    layers = []
    for section in sections:
        for key in ("claude_options", "options"):
            found = section.section(key)
            if found is not None:
                layers.append(found)
                if key == "options":
                    step.notes.add_once(
                        "N1564", found.path, "`options` is read as `claude_options`", "ignored: no such key", at=step.at
                    )
    return Options(step, layers, step.unit.defaults.section("claude_options"))


def claude(step: Step) -> Made:
    """`claude`: one call without a preset."""
    return asked(step, step.old, settings_of(step, options_of(step, step.old), None, typed="claude"))


def claude_smart(step: Step) -> Made:
    """`claude_smart`: one call with a preset."""
    preset = preset_of(step, step.old, "development")
    return asked(step, step.old, settings_of(step, options_of(step, step.old), preset, typed="claude_smart"))


def asked(step: Step, section: Section, settings: Settings, *, session: Mapping[str, Any] | None = None) -> Made:
    """The `llm` step with its settings, prompt and schema."""
    prompt = prompt_of(step, section)
    if prompt is None:
        step.notes.refuse("E1502", section.path, f"step `{step.name}` has no `prompt`", "refused as well")
    own = schemas.taken(step, section)
    return model_step(step, settings, prompt, own, session=session)


def model_step(
    step: Step,
    settings: Settings,
    prompt: Prompt,
    own: Mapping[str, Any] | None,
    *,
    session: Mapping[str, Any] | None = None,
) -> Made:
    """An `llm` step. Keys come in the order in which people read them."""
    output = ModelOutput(step.expression, step.unit.promises, step.key, own)
    conversation = {**prompt.session, **(session or {})}
    llm: dict[str, Any] = {"model": settings.llm["model"]}
    if settings.system:
        llm["system"] = "\n".join(settings.system)
    llm["prompt"] = prompt.text
    llm |= {key: value for key, value in settings.llm.items() if key not in llm}
    schema = schemas.merged(own, step.unit.promises.of(step.key))
    if schema is not None:
        llm["output_schema"] = schema
    if conversation:
        llm["session"] = conversation
    if any(shipped().find(model) is None for model in models_of(llm)):
        llm["allow_unpriced"] = True  # it ran without a price, and a model of that age may have none any more
    return Made({step.id: {**settings.step, "llm": llm}}, output)


def claude_session(step: Step) -> Made:
    """`claude_session`: a conversation that later steps, and with `conversation` several turns, go on with."""
    preset = preset_of(step, step.old, "development")
    config = step.old.section("session_config") or Section(step.notes, {}, step.old.path)
    session = _session(step, config)
    if "conversation" in step.old:
        return _conversation(step, preset, session)
    settings = settings_of(step, options_of(step, step.old), preset, typed="claude_session")
    return asked(step, step.old, settings, session=session)


def _session(step: Step, config: Section) -> dict[str, Any]:
    key, name = config.first("session_name", "session_id")
    outer, other = step.old.first("session_name", "session_id")
    found = name if name is not None else other
    if not isinstance(found, (str, type(None))):
        (config if key else step.old).wrong(key or outer, "text")
    session: dict[str, Any] = {"id": slug(found or step.name, "session"), "create": True}
    turns_key, _ = config.first("max_turns", "max_session_turns")
    turns = config.whole(turns_key) if turns_key else None
    if turns:
        session["max_turns"] = turns
        where = config.at(turns_key)
        step.notes.add("N1554", where, f"the conversation ends after {turns} turns", "ignored", at=(*step.at, "llm"))
    for key, before in _SESSION.items():
        if key in config:
            config.taken.add(key)
            step.notes.add_once("N1555", config.at(key), f"`{key}` is dropped: every turn is kept", before, at=step.at)
    config.taken.add("description")
    report_left(step.notes, config, {}, "`session_config`", at=step.at)
    now = f"the conversation `{session['id']}` goes on from step to step and from run to run"
    step.note(
        "N1553", "session_config" if "session_config" in step.old else "", now, "live, every step began a new one"
    )
    if step.old.flag("continue_session"):
        step.note("N1564", "continue_session", "every step of a session goes on with it", "ignored")
    return session


def _conversation(step: Step, preset: Preset, session: dict[str, Any]) -> Made:
    turns = step.old.sections("conversation") or []
    if not turns:
        step.refuse("E1502", "conversation", "`conversation` is empty", "ignored")
    step.note("N1554", "conversation", f"{len(turns)} turns, one after the other, as a group", "ignored")
    if "prompt" in step.old:
        step.drop(step.old, "prompt", "the turns have prompts of their own", "the only thing that was asked")
    scope = step.scope.body((*step.at, "steps"))
    inner: dict[str, Any] = {}
    output: ModelOutput | None = None
    previous = ""
    for number, turn in enumerate(turns, 1):
        turn.taken.add("turn")
        task = step.task(turn, f"{step.name} turn {number}", scope.ids.make(f"{step.id}_turn_{number}"), scope)
        settings = settings_of(task, options_of(task, turn, step.old), preset, typed="claude_session")
        made = asked(task, turn, settings, session=session)
        report_left(step.notes, turn, {}, "a turn", at=task.at)
        inner[task.id] = ({"needs": [previous]} if previous else {}) | made.steps[task.id]
        previous, output = task.id, made.output if isinstance(made.output, ModelOutput) else output
    assert output is not None
    last = output.read(())
    body = {"steps": inner, "outputs": {"text": f"${{{{ {last.cel} }}}}"}}
    step.old.taken |= {"claude_options", "options"}
    return Made({step.id: body}, _LastTurn(output, f"{step.expression}.output"))


class _LastTurn:
    """The answer of the last turn, as the group gives it."""

    def __init__(self, turn: ModelOutput, group: str) -> None:
        self.turn, self.group = turn, group

    def read(self, path: Any, *, at: str = "", wanted: Mapping[str, Any] | None = None) -> Any:
        """A path of the last answer."""
        return self.turn.read(path, at=f"{at or self.group}.text", wanted=wanted)


def claude_robust(step: Step) -> Made:
    """`claude_robust`: retries, and a fallback only where the file names one that can be had."""
    preset = preset_of(step, step.old, "development")
    settings = settings_of(step, options_of(step, step.old), preset, typed="claude_robust")
    config = step.old.section("retry_config")
    before = "after the last attempt the step succeeded with an apology as its answer"
    if config is None:
        settings.step["retry"] = {"attempts": 4, "initial": "1s"}
        step.note("N1549", "", "when all 4 attempts fail, the step fails", before)
    else:
        settings.step["retry"] = retry_of(step, config)
        _fallback(step, config, settings, before)
        if "circuit_breaker" in config:
            step.drop(config, "circuit_breaker", "every provider has a breaker", "documented, but without effect")
        report_left(step.notes, config, {}, "`retry_config`", at=step.at)
    if preset.retries:
        attempts = settings.step["retry"]["attempts"]
        now = f"{attempts} attempts in all"
        step.note("N1548", "", now, f"each could be repeated {preset.retries} times more by the preset")
    return asked(step, step.old, settings)


def _fallback(step: Step, config: Section, settings: Settings, before: str) -> None:
    action = config.text("fallback_action")
    where = config.at("fallback_action") if action else config.path
    at = (*step.at, "fallback")
    match action:
        case "graceful_degradation":
            settings.step["fallback"] = {"value": {"text": _APOLOGY}}
            now = "`fallback` stands in after the last attempt, and the result is marked `degraded`"
        case "skip":
            settings.step["on_error"] = "continue"
            now = "the run goes on when the step has failed, and the step counts as failed"
        case None | "fail":
            now = "when all attempts fail, the step fails"
        case _:
            now = f"`{action[:60]}` has no counterpart: when all attempts fail, the step fails; or write a `fallback`"
            step.notes.add("W1520", where, now, before, at=step.at)
            return
    step.notes.add("N1549", where, now, before, at=at)


def claude_extract(step: Step) -> Made:
    """`claude_extract`: an answer, and what is taken out of it by tools."""
    preset = preset_of(step, step.old, "analysis")
    settings = settings_of(step, options_of(step, step.old), preset, typed="claude_extract")
    config = step.old.section("extraction_config") or Section(step.notes, {}, step.old.path)
    key, form = config.first("format", "output_format")
    prompt = prompt_of(step, step.old)
    if prompt is None:
        step.refuse("E1502", "", f"step `{step.name}` has no `prompt`", "refused as well")
    own = schemas.taken(step, step.old)
    if own is None and form in ("json", "structured"):
        own = {"type": "object"}
        now = f"`{form}`: the answer is a JSON object"
        step.notes.add("N1552", config.at(key), now, "sections of text, which made JSON invalid", at=step.at)
    elif key and form != "text" and own is None:
        now = f"`{str(form)[:60]}` is dropped: ask for it in the prompt"
        step.notes.add("W1520", config.at(key), now, "sections were found by patterns and appended", at=step.at)
    made = model_step(step, settings, prompt, own)
    _post_processing(step, config, made, is_text=schemas.merged(own, step.unit.promises.of(step.key)) is None)
    for name, (reason, before) in _EXTRACTION.items():
        if name in config:
            config.taken.add(name)
            step.notes.add_once("W1520", config.at(name), f"`{name}` is dropped: {reason}", before, at=step.at)
    report_left(step.notes, config, {}, "`extraction_config`", at=step.at)
    return made


def _post_processing(step: Step, config: Section, made: Made, *, is_text: bool) -> None:
    for name in config.texts("post_processing") or ():
        where = config.at("post_processing")
        found = _POST.get(name)
        if found is None or not is_text:
            now = f"`{name[:60]}` is dropped: ask for it in the prompt"
            step.notes.add("W1520", where, now, "found by patterns and appended to the answer", at=step.at)
            continue
        suffix, tool = found
        extra = step.scope.ids.make(f"{step.id}_{suffix}")
        made.steps[extra] = {"tool": tool, "with": {"text": f"${{{{ {step.expression}.output.text }}}}"}}
        now = f"`{name}` is the step `{extra}`"
        step.notes.add("N1559", where, now, "appended to the answer", at=(*step.scope.prefix, extra))


def gemini(step: Step) -> Made:
    """`gemini`: one call with a token budget."""
    settings = _gemini_settings(step, GEMINI_DEFAULT)
    own = schemas.taken(step, step.old)
    own = _functions(step, own)
    prompt = prompt_of(step, step.old)
    if prompt is None:
        step.refuse("E1502", "", f"step `{step.name}` has no `prompt`", "refused as well")
    return model_step(step, settings, prompt, own)


def gemini_instructor(step: Step) -> Made:
    """`gemini_instructor`: an answer that fits a schema; once it was always the same one."""
    settings = _gemini_settings(step, INSTRUCTOR_DEFAULT)
    own = schemas.taken(step, step.old)
    own = _functions(step, own)
    if "validation_mode" in step.old:
        step.drop(step.old, "validation_mode", "schemas are enforced in full", "ignored")
    prompt = prompt_of(step, step.old)
    if prompt is None:
        step.refuse("E1502", "", f"step `{step.name}` has no `prompt`", "refused as well")
    return model_step(step, settings, prompt, schemas.INSTRUCTOR if own is None else own)


def _gemini_settings(step: Step, default: str) -> Settings:
    made = Settings()
    model = step.old.text("model")
    if model is None:
        chosen = step.unit.default(step, "gemini_model")
        model = chosen if isinstance(chosen, str) else default
    made.llm["model"] = model if "/" in model else f"google/{model}"
    own = step.old.section("token_budget")
    shared = step.unit.defaults.section("gemini_token_budget")
    instructor = default == INSTRUCTOR_DEFAULT
    if own is not None and instructor:
        step.note("N1554", "token_budget", "`token_budget` limits the answer", "ignored by this type of step")
    options: dict[str, Any] = {}
    for budget in (own, shared):
        if budget is None:
            continue
        if budget is shared and any(key not in (own or {}) for key in budget.value):
            step.unit.applied.setdefault("gemini_token_budget", []).append(step.name)
        _budget(step, budget, made.llm, options)
    if options:
        made.llm["options"] = options
    _gemini_needless(step, made)
    return made


def _budget(step: Step, budget: Section, llm: dict[str, Any], options: dict[str, Any]) -> None:
    tokens, temperature = budget.whole("max_output_tokens"), budget.number("temperature")
    if tokens:
        llm.setdefault("max_tokens", tokens)
    if temperature is not None:
        llm.setdefault("temperature", max(0, min(temperature, 2)))
    for key in ("top_p", "top_k"):
        value = budget.number(key)
        if value is not None:
            options.setdefault(key, value)
    if "stop_sequences" in budget:
        options.setdefault("stop_sequences", budget.texts("stop_sequences"))
        step.notes.add("N1554", budget.at("stop_sequences"), "passed on to the provider", "ignored", at=step.at)
    known = {"max_input_tokens": "the model's own limit counts", "response_mime_type": "`output_schema` asks for JSON"}
    report_left(step.notes, budget, known, "`token_budget`", at=step.at)


def _gemini_needless(step: Step, made: Settings) -> None:
    instruction = step.old.text("system_instruction")
    if instruction is not None:
        made.system.append(step.text("system_instruction", instruction))
        step.note("N1554", "system_instruction", "the model is told", "ignored", at=(*step.at, "llm"))
    timeout_ms = step.old.whole("timeout_ms")
    if timeout_ms:
        made.step["timeout"] = duration(timeout_ms)
        set_deadline(made.step, timeout_ms)
        step.note("N1547", "timeout_ms", f"an attempt ends after {duration(timeout_ms)}", "no effect live")
    else:
        step.unit.unlimited.append(step.name)
    if "tools" in step.old:
        step.drop(step.old, "tools", "name registered tools in `llm.tools`", "no effect live")


def _functions(step: Step, own: dict[str, Any] | None) -> dict[str, Any] | None:
    """Functions described what the model should give; they were never sent to it."""
    listed = step.old.listed("functions")
    if not listed:
        return own
    found: dict[str, Any] = {}
    for index, entry in enumerate(listed):
        name = entry.get("name") if isinstance(entry, dict) else entry
        parameters = entry.get("parameters") if isinstance(entry, dict) else step.unit.functions.get(str(entry))
        if not isinstance(name, str) or not isinstance(parameters, dict):
            path = (*step.old.at("functions"), index)
            text = f"function `{str(name)[:60]}` is not in `gemini_functions`"
            step.notes.refuse("E1506", path, text, "refused as well")
        found[name] = parameters if schemas.is_schema(parameters) else schemas.short(parameters)
        schemas.checked(step, found[name], (*step.old.at("functions"), index))
    names = ", ".join(f"`{name}`" for name in found)
    before = "checked, but never sent to the model"
    if own is not None:
        step.note("W1525", "functions", f"{names} dropped: `output_schema` is there; or register a tool", before)
        return own
    now = f"the parameters of {names} are the schema of the answer; or register tools and list them in `llm.tools`"
    step.note("W1525", "functions", now, before, at=(*step.at, "llm", "output_schema"))
    if len(found) == 1:
        return dict(next(iter(found.values())))
    return {"type": "object", "minProperties": 1, "properties": found}
