"""Steps that ask several things at once: `parallel_claude` and `claude_batch`."""

from typing import Any

from headrace.pipeline import scanner
from headrace.pipeline.importer.claude_options import Preset, preset_of, set_deadline, settings_of
from headrace.pipeline.importer.file_steps import write_step
from headrace.pipeline.importer.ids import Ids, literal
from headrace.pipeline.importer.legacy import Section
from headrace.pipeline.importer.model_steps import model_step, options_of
from headrace.pipeline.importer.outputs import ListOutput, Members, ModelOutput, Output
from headrace.pipeline.importer.prompts import Prompt, file_read, prompt_of
from headrace.pipeline.importer.schemas import taken
from headrace.pipeline.importer.unit import Made, Step, duration, report_left

_TASK_KEYS = {"condition": "a condition belongs to a step", "role": "it said nothing to anybody"}


def parallel_claude(step: Step) -> Made:
    """`parallel_claude`: a group with one `llm` step a task."""
    tasks = step.old.sections("parallel_tasks") or []
    if not tasks:
        step.refuse("E1502", "", f"step `{step.name}` has no `parallel_tasks`", "refused as well")
    for key in ("parallel_config", "prompt", "config"):
        if key in step.old:
            step.drop(step.old, key, "each task has its own", "documented, but without effect")
    step.note("N1551", "parallel_tasks", "a task that fails fails the step", "always a success, whatever the tasks did")
    return _group(step, [(_name(step, task, "id", "task_id"), task) for task in tasks], None, "parallel_claude", None)


def _name(step: Step, task: Section, *keys: str) -> str:
    key, name = task.first(*keys)
    if not isinstance(name, str) or not name.strip():
        step.notes.refuse("E1502", task.path if not key else task.at(key), "a task needs an `id`", "refused as well")
    return name


def _group(
    step: Step, tasks: list[tuple[str, Section]], preset: Preset | None, typed: str, common: Prompt | None
) -> Made:
    scope = step.scope.body((*step.at, "steps"))
    inner: dict[str, Any] = {}
    outputs: dict[str, str] = {}
    members: dict[str, tuple[str, Output]] = {}
    keys = Ids()
    for name, section in tasks:
        if name in members:
            now = f"two tasks are called `{name[:60]}`"
            step.notes.refuse("E1505", section.path, now, "the later result replaced the earlier")
        task = step.task(section, name, scope.ids.make(name, "task"), scope)
        settings = settings_of(task, options_of(task, section, *([step.old] if common else [])), preset, typed=typed)
        prompt = _task_prompt(task, section, common)
        made = model_step(task, settings, prompt, taken(task, section))
        inner |= made.steps
        read = made.output.read(())
        key = keys.make(name, "task")
        outputs[key] = f"${{{{ {read.cel} }}}}"
        members[name] = (key, made.output)
        _task_file(task, section, read.cel, inner, is_text=read.is_text)
        report_left(step.notes, section, _TASK_KEYS, "a task", at=task.at)
    return Made({step.id: {"steps": inner, "outputs": outputs}}, Members(f"{step.expression}.output", members))


def _task_file(task: Step, section: Section, cel: str, inner: dict[str, Any], *, is_text: bool) -> None:
    path = section.text("output_to_file")
    if path is None:
        return
    file_id = task.scope.ids.make(f"{task.id}_file")
    inner[file_id] = write_step(task, section, path, cel, is_text=is_text)
    now = f"the step `{file_id}` writes the file"
    task.notes.add("N1554", section.at("output_to_file"), now, "ignored in a task", at=(*task.scope.prefix, file_id))


def _task_prompt(task: Step, section: Section, common: Prompt | None) -> Prompt:
    own = prompt_of(task, section)
    texts = [prompt.text for prompt in (common, own) if prompt is not None and prompt.text]
    if "file" in section:
        texts.append(f"${{{{ {file_read(task, section, 'file')} }}}}")
    if not texts:
        task.notes.refuse("E1502", section.path, f"task `{task.name}` has no `prompt`", "refused as well")
    return Prompt("\n".join(texts), {} if own is None else own.session)


def claude_batch(step: Step) -> Made:
    """`claude_batch`: a bounded map over the tasks where they differ in text only, else a group."""
    preset = preset_of(step, step.old, "development")
    config = step.old.section("batch_config") or Section(step.notes, {}, step.old.path)
    tasks = step.old.sections("tasks")
    if tasks is None:
        tasks = config.sections("tasks")
        if tasks is not None:
            step.notes.add("N1564", config.at("tasks"), "`batch_config.tasks` is read", "ignored", at=step.at)
    if not tasks:
        step.refuse("E1502", "", f"step `{step.name}` has no `tasks`", "refused as well")
    if "config" in step.old and "tasks" not in step.old:
        step.drop(step.old, "config", "the tasks say it", "ignored")
    named = [(_task_name(step, task, index), task) for index, task in enumerate(tasks)]
    common = prompt_of(step, step.old)
    if common is not None and any("prompt" in task for _, task in named):
        step.note("N1551", "prompt", "stands before the prompt of every task", "ignored where tasks had prompts")
    parallel = config.whole("max_parallel") or 3
    timeout_ms = config.whole("timeout_per_task") or 60_000
    config.taken.add("consolidate_results")
    if config.value.get("consolidate_results") is not None:
        now = "`output.items`, `output.failed` and `output.counts` hold the results"
        before = "one map with results and counts of another shape"
        step.notes.add("N1551", config.at("consolidate_results"), now, before, at=step.at)
    report_left(step.notes, config, {}, "`batch_config`", at=step.at)
    now = "the step fails when a task fails; `on_item_error: continue` lets the others count"
    step.note("N1549", "tasks" if "tasks" in step.old else "", now, "a success even if all tasks failed")
    if _alike(step, named):
        return _mapped(step, named, preset, common, parallel, timeout_ms)
    now = f"the tasks differ in their options: a group; `limits.max_parallel` bounds it, not {parallel}"
    step.note("N1551", "", now, f"{parallel} at a time")
    return _group(step, named, preset, "claude_batch", common or Prompt(""))


def _task_name(step: Step, task: Section, index: int) -> str:
    key, name = task.first("task_id", "id")
    if key == "id":
        step.notes.add("N1564", task.at("id"), "`id` names the task", "lost: only `task_id` was read", at=step.at)
    return name if isinstance(name, str) and name.strip() else f"task_{index + 1}"


def _alike(step: Step, tasks: list[tuple[str, Section]]) -> bool:
    """Whether the tasks have nothing of their own but text, a file, and switches without a meaning here."""
    needless = {"output_format", "verbose", "print", "debug_mode"}
    for _, task in tasks:
        own = task.value.get("claude_options") or task.value.get("options") or {}
        if not isinstance(own, dict) or set(own) - needless:
            return False
        if set(task.value) & {"output_schema", "schema", "response_schema", "output_to_file"}:
            return False
    return len({name for name, _ in tasks}) == len(tasks)


def _mapped(
    step: Step, tasks: list[tuple[str, Section]], preset: Preset, common: Prompt | None, parallel: int, timeout_ms: int
) -> Made:
    entries: list[dict[str, str]] = []
    expressions: list[str] = []
    is_constant = True
    for name, section in tasks:
        task = step.task(section, name, step.id, step.scope)
        parts = _parts(task, section)
        options_of(task, section).find("output_format")
        section.taken |= {"claude_options", "options"}
        report_left(step.notes, section, _TASK_KEYS, "a task", at=step.at)
        is_constant = is_constant and all(is_literal for is_literal, _ in parts)
        text = "".join(part for _, part in parts).replace("$${{", "${{")
        entries.append({"id": name, "prompt": text})
        cel = " + ".join(literal(part.replace("$${{", "${{")) if plain else f"text({part})" for plain, part in parts)
        expressions.append(f'{{"id": {literal(name)}, "prompt": {cel or literal("")}}}')
    settings = settings_of(step, options_of(step, step.old), preset, typed="claude_batch")
    settings.step["timeout"] = duration(timeout_ms)
    settings.step.pop("deadline", None)
    set_deadline(settings.step, timeout_ms)
    made = model_step(
        step, settings, Prompt("\n".join([*([common.text] if common else []), "${{ task.prompt }}"])), None
    )
    output = ModelOutput(step.expression, step.unit.promises, step.key, None, raw=True)
    loop: dict[str, Any] = {
        "foreach": entries if is_constant and "${{" not in str(entries) else f"${{{{ [{', '.join(expressions)}] }}}}",
        "as": "task",
        "max_parallel": min(max(parallel, 1), 10_000),
        "on_item_error": "fail",
    }
    by_name = {name: index for index, (name, _) in enumerate(tasks)}
    return Made({step.id: loop | made.steps[step.id]}, ListOutput(step.expression, output, by_name))


def _parts(task: Step, section: Section) -> list[tuple[bool, str]]:
    """A task's prompt as literal text, escaped for a template, and expressions."""
    if "prompt" not in section and "file" not in section:
        task.notes.refuse("E1502", section.path, f"task `{task.name}` has no `prompt`", "refused as well")
    prompt = _task_prompt(task, section, None)
    return [
        (not piece.is_expression, piece.text.strip() if piece.is_expression else piece.text.replace("${{", "$${{"))
        for piece in scanner.pieces(prompt.text)
    ]
