"""What steered the Claude program, as settings of a step: presets, tools, limits, retries."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from headrace.pipeline.importer import paths
from headrace.pipeline.importer.legacy import Section
from headrace.pipeline.importer.unit import Step, duration, report_left
from headrace.pipeline.positions import Path

CLAUDE_MODELS: Final = {
    "opus": "anthropic/claude-opus-4-1",
    "sonnet": "anthropic/claude-sonnet-4-5",
    "haiku": "anthropic/claude-haiku-4-5",
}
"""What the short names of the Claude program mean; it took the newest of its time."""
MODEL_DEFAULT: Final = CLAUDE_MODELS["sonnet"]
TOOLS: Final = {
    "Read": "fs.read",
    "Write": "fs.write",
    "Edit": "fs.write",
    "MultiEdit": "fs.write",
    "Glob": "fs.glob",
    "LS": "fs.glob",
    "Grep": "fs.grep",
    "Search": "fs.grep",
    "WebFetch": "http.request",
}
RETRY_CODES: Final = {
    "timeout": "timeout",
    "rate_limit": "rate_limited",
    "rate_limited": "rate_limited",
    "temporary_error": "unavailable",
    "api_error": "unavailable",
    "network_error": "unavailable",
    "connection_error": "unavailable",
    "overloaded": "unavailable",
    "parsing_error": "output_invalid",
    "validation_error": "output_invalid",
}
ATTEMPTS_MAX: Final = 100


@dataclass(slots=True, frozen=True)
class Preset:
    """What a preset set. Turns count model calls; tools by their old names; None: the program's own choice."""

    turns: int
    tools: tuple[str, ...]
    models: tuple[str, ...] = ()
    timeout_ms: int = 60_000
    retries: int = 0
    backoff: str = "exponential"


PRESETS: Final[Mapping[str, Preset]] = {
    "development": Preset(20, ("Write", "Edit", "Read", "Bash", "Search", "Glob", "Grep"), ("sonnet",), 300_000, 3),
    "production": Preset(10, ("Read",), ("opus", "sonnet"), 120_000, 2, "linear"),
    "analysis": Preset(5, ("Read", "Glob", "Grep"), ("opus",), 180_000, 2),
    "chat": Preset(15, (), (), 60_000, 1),
    "test": Preset(3, ("Read",), (), 30_000, 0),
}
_OVERWRITING: Final = ("production", "analysis", "chat", "test")
"""Presets that replaced the `allowed_tools` of the file."""
_NEEDLESS: Final = {
    "output_format": "the answer is text, or a value where `output_schema` is given",
    "verbose": "`watch`, `events` and `logs` are there anyway",
    "print": "it told the Claude program not to ask",
    "debug_mode": "`watch`, `events` and `logs` are there anyway",
    "telemetry_enabled": "every call is measured",
    "cost_tracking": "every call's usage is in the log",
    "async_streaming": "answers are streamed where somebody watches",
    "pass_through_streaming": "answers are streamed where somebody watches",
    "stream_handler": "answers are streamed where somebody watches",
    "stream_handler_opts": "answers are streamed where somebody watches",
    "stream_buffer_size": "answers are streamed where somebody watches",
}
_PROGRAM: Final = {
    "permission_mode": "it steered the Claude program; `tools` is the allow-list, `approve` lets a person decide",
    "permission_prompt_tool": "`approve: [write, exec]` lets a person decide",
    "mcp_servers": "register the servers; their tools are `mcp.<server>.<tool>`",
    "mcp_config": "register the servers; their tools are `mcp.<server>.<tool>`",
    "strict_mcp_config": "only registered servers are there",
    "agents": "an agent is an `llm` step of its own",
    "agent": "an agent is an `llm` step of its own",
    "hooks": "what a hook forbade belongs in `tools`; what it logged is in `events`",
    "add_dir": "grant more directories with `--read-root`",
    "enable_skills": "what a skill knows belongs in `system` or in a file that the prompt reads",
    "setting_sources": "nothing is read but the file itself",
    "enable_context_management": "a conversation that stays is a `session`",
    "memory_config": "a conversation that stays is a `session`",
    "fork_session": "`headrace sessions` forks a conversation",
    "resume_session": "a conversation that stays is a `session`",
    "session_id": "a conversation that stays is a `session`",
}
PROGRAM_KEYS: Final = _PROGRAM
"""Keys about the program around the model → what takes their place."""


class Options:
    """Values from several maps, the first of which wins: the task's, the step's, the file's defaults."""

    def __init__(self, step: Step, layers: list[Section], defaults: Section | None) -> None:
        self.step, self.layers, self.defaults = step, layers, defaults

    def find(self, key: str, *, has_effect: bool = True) -> Section | None:
        """The map that has the key; it is taken in all of them. A default with an effect is noted as applied."""
        found: Section | None = None
        for layer in (*self.layers, *([self.defaults] if self.defaults else [])):
            layer.taken.add(key)
            if found is None and key in layer:
                found = layer
        if found is not None and found is self.defaults and has_effect:
            applied = self.step.unit.applied.setdefault(f"claude_options.{key}", [])
            applied.append(self.step.name)
        return found

    def report_left(self) -> None:
        """Say what nobody took, but for the defaults, which other steps may take."""
        for layer in self.layers:
            report_left(self.step.notes, layer, {}, "`claude_options`", at=self.step.at)


@dataclass(slots=True)
class Settings:
    """What the options come to: keys of `llm`, and modifiers of the step."""

    llm: dict[str, Any] = field(default_factory=dict)
    step: dict[str, Any] = field(default_factory=dict)
    system: list[str] = field(default_factory=list)


def preset_of(step: Step, section: Section, default: str) -> Preset:
    """The preset that a step names, or the file's default, or that of its type."""
    name = section.text("preset")
    if name is None:
        chosen = step.unit.default(step, "claude_preset")
        name = chosen if isinstance(chosen, str) else None
    if section.flag("environment_aware") and step.unit.mode:
        name = name or step.unit.mode
        step.note("N1556", "environment_aware", f"`environment.mode` is read now: `{name}`", "read when the step ran")
    name = name or default
    found = PRESETS.get(name)
    if found is None:
        step.note("N1556", "preset", f"no preset `{name[:60]}`: written out as `development`", "acted as `development`")
        return PRESETS["development"]
    model = f"{' then '.join(found.models)}, " if found.models else ""
    now = (
        f"preset `{name}` is written out where the file says nothing else: "
        f"{model}{found.timeout_ms // 1000} s a call, {found.retries + 1} attempts"
    )
    attempts = max(found.retries, 1)
    before = f"looked up when the step ran, with {attempts} attempt{'s' * (attempts != 1)}"
    step.note("N1556", "preset" if "preset" in section else "", now, before)
    return found


def settings_of(step: Step, options: Options, preset: Preset | None, *, typed: str) -> Settings:
    """Model, tools, limits and retries of a step.

    Args:
        typed: The old step type; some ignored what others obeyed.
    """
    made = Settings()
    _model(step, options, preset, made)
    _tools(step, options, preset, made)
    _system(step, options, made)
    _limits(step, options, preset, made, obeyed=typed not in ("claude", "parallel_claude"))
    _sampling(step, options, made)
    _program(step, options)
    options.report_left()
    return made


def model_name(name: str) -> str:
    """A Claude model as Headrace names it."""
    return name if "/" in name else CLAUDE_MODELS.get(name, f"anthropic/{name}")


def _model(step: Step, options: Options, preset: Preset | None, made: Settings) -> None:
    found = []
    for key in ("model", "fallback_model"):
        layer = options.find(key)
        if layer is not None:
            old = layer.required(key)
            found.append(model_name(old))
            if old in CLAUDE_MODELS:
                now = f"`{old}` is `{CLAUDE_MODELS[old]}`"
                step.notes.add(
                    "N1545", layer.at(key), now, "the newest model of that name", at=(*step.at, "llm", "model")
                )
    if not found and preset is not None:
        found = [CLAUDE_MODELS[name] for name in preset.models]
    if not found:
        found = [MODEL_DEFAULT]
        now = f"no model is named: `{MODEL_DEFAULT}`"
        step.note("N1545", "", now, "the Claude program chose", at=(*step.at, "llm", "model"))
    found = list(dict.fromkeys(found))
    made.llm["model"] = found[0] if len(found) == 1 else found


def _tools(step: Step, options: Options, preset: Preset | None, made: Settings) -> None:
    allowed, disallowed, turns = (options.find(key) for key in ("allowed_tools", "disallowed_tools", "max_turns"))
    at = (*step.at, "llm", "tools")
    where = step.old.path if allowed is None else allowed.at("allowed_tools")
    names: tuple[str, ...] = preset.tools if preset else ()
    if allowed is not None:
        names = tuple(allowed.texts("allowed_tools") or ())
        if (
            preset is not None
            and preset in (PRESETS[name] for name in _OVERWRITING)
            and set(names) != set(preset.tools)
        ):
            step.notes.add("N1546", where, "the file's own tools count", "the preset's tools replaced them", at=at)
    elif preset is None:
        step.note("N1546", "", "no tools: name those it needs in `llm.tools`", "the Claude program had its own tools")
    forbidden = set((disallowed.texts("disallowed_tools") or ()) if disallowed else ())
    made_tools = _tool_names(step, [name for name in names if name not in forbidden], where, at)
    rounds = turns.whole("max_turns") if turns is not None else (preset.turns if preset else 3)
    if made_tools:
        step.unit.uses_files |= any(tool.startswith("fs.") for tool in made_tools)
        made.llm["tools"] = made_tools
        made.llm["max_rounds"] = max(1, min(rounds or 1, 100))
    elif turns is not None and rounds is not None and rounds > 1:
        now = f"`max_turns: {rounds}` is dropped: without tools there is one turn"
        step.notes.add("N1546", turns.at("max_turns"), now, "the program might have taken more turns", at=step.at)


def _tool_names(step: Step, names: list[str], where: Path, at: Path) -> list[str]:
    made: dict[str, None] = {}
    for name in names:
        if name.startswith("mcp__"):
            made[".".join(["mcp", *name[5:].split("__")])] = None
        elif name == "Bash":
            now = "`Bash` is left out: `shell.run` is off until the operator enables it, then add it to `llm.tools`"
            step.notes.add("W1523", where, now, "any command ran", at=at)
        elif name in TOOLS:
            made[TOOLS[name]] = None
        else:
            step.notes.add(
                "W1522",
                where,
                f"no tool does what `{name[:60]}` did; it is left out",
                "a tool of the Claude program",
                at=at,
            )
    return list(made)


def _system(step: Step, options: Options, made: Settings) -> None:
    for key in ("system_prompt", "append_system_prompt"):
        layer = options.find(key)
        if layer is not None:
            made.system.append(step.templates.text(layer.text(key) or "", layer.at(key), at=step.at))
    layer = options.find("cwd")
    if layer is None:
        return
    cwd = layer.required("cwd")
    where = layer.at("cwd")
    if paths.escapes(cwd) or "{{" in cwd:
        now = "the tools work in the run's workspace; read other directories with `--read-root`"
        step.notes.add("W1527", where, now, "any directory", at=step.at)
        return
    folder = paths.in_workspace(cwd, step.unit.workspace_dir)
    if folder == ".":
        step.notes.add_once(
            "N1560", where, "the run's workspace takes the place of `cwd`", f"`{paths.tidy(cwd)}`", at=step.at
        )
        return
    made.system.append(f"Work in the directory {folder}: paths are relative to the one above it.")
    step.notes.add(
        "N1560", where, f"tools see the run's workspace; `system` names `{folder}`", "the working directory", at=step.at
    )


def _limits(step: Step, options: Options, preset: Preset | None, made: Settings, *, obeyed: bool) -> None:
    timeout_ms = preset.timeout_ms if preset else None
    for key, scale in (("timeout_seconds", 1000), ("timeout_ms", 1)):
        layer = options.find(key)
        if layer is None:
            continue
        value = layer.number(key) or 0
        timeout_ms = int(value * scale) or 1
        if key == "timeout_seconds" or not obeyed:
            now = f"`{key}` ends an attempt after {duration(timeout_ms)}"
            step.notes.add("N1554", layer.at(key), now, "ignored: no limit at all", at=(*step.at, "timeout"))
    if timeout_ms is None:
        step.unit.unlimited.append(step.name)
    else:
        made.step["timeout"] = duration(timeout_ms)
    layer = options.find("retry_config")
    config = layer.section("retry_config") if layer is not None else None
    if config is not None:
        made.step["retry"] = retry_of(step, config, obeyed=obeyed)
    elif preset is not None:
        made.step["retry"] = {"attempts": preset.retries + 1}
    set_deadline(made.step, timeout_ms)


def set_deadline(modifiers: dict[str, Any], timeout_ms: int | None) -> None:
    """Headrace ends a step after an hour over all attempts unless it says more; long attempts must say more."""
    attempts = modifiers.get("retry", {}).get("attempts", 4)
    if timeout_ms is not None and timeout_ms * attempts > 3_600_000:
        modifiers["deadline"] = duration(timeout_ms * attempts + 600_000)


def retry_of(step: Step, config: Section, *, obeyed: bool = True) -> dict[str, Any]:
    """A retry policy. `max_retries` are the attempts after the first, as documented."""
    key, _ = config.first("max_retries", "max_attempts")
    count = config.whole(key) if key else 3
    attempts = max(1, min((count or 0) + (key != "max_attempts"), ATTEMPTS_MAX))
    if key == "max_retries":
        now = f"`max_retries: {count}` is {attempts} attempts"
        before = f"{max(count or 0, 1)} attempts, one less than documented" if obeyed else "ignored"
        step.notes.add("N1548", config.at(key), now, before, at=(*step.at, "retry"))
    retry: dict[str, Any] = {"attempts": attempts}
    base_ms = config.whole("base_delay_ms")
    if base_ms:
        retry["initial"] = duration(base_ms)
    backoff = config.text("backoff_strategy") or config.text("backoff")
    if backoff is not None and backoff != "exponential":
        now = f"`{backoff[:60]}`: the wait doubles each time, with jitter"
        step.notes.add("N1548", config.at("backoff_strategy"), now, "the wait grew otherwise", at=(*step.at, "retry"))
    key, _ = config.first("retry_on", "retry_conditions")
    if key:
        retry["on"] = _retry_codes(step, config, key)
    return {name: value for name, value in retry.items() if value != []}


def _retry_codes(step: Step, config: Section, key: str) -> list[str]:
    codes: dict[str, None] = {}
    for name in config.texts(key) or ():
        code = RETRY_CODES.get(name)
        if code is None:
            now = f"`{name[:60]}` is no error of Headrace; it is left out"
            step.notes.add("W1522", config.at(key), now, "compared with the text of the error", at=(*step.at, "retry"))
        else:
            codes[code] = None
    if codes:
        now = f"repeated on the error codes {', '.join(codes)}"
        step.notes.add(
            "N1548", config.at(key), now, "words were looked for in the text of the error", at=(*step.at, "retry")
        )
    return list(codes)


def _sampling(step: Step, options: Options, made: Settings) -> None:
    for key, new in (("temperature", "temperature"), ("max_tokens", "max_tokens")):
        layer = options.find(key)
        if layer is None:
            continue
        value = layer.number(key)
        assert value is not None
        made.llm[new] = max(0, min(value, 2)) if key == "temperature" else max(1, int(value))
        step.notes.add("N1554", layer.at(key), f"`{key}` is passed on", "ignored", at=(*step.at, "llm", new))


def _program(step: Step, options: Options) -> None:
    for key, why in _NEEDLESS.items():
        layer = options.find(key, has_effect=False)
        if layer is not None:
            now = f"`{key}` is dropped: {why}"
            step.notes.add_once("N1555", layer.at(key), now, "a switch of the Claude program", at=step.at)
    for key, why in _PROGRAM.items():
        layer = options.find(key, has_effect=False)
        if layer is not None:
            now = f"`{key}` is dropped: {why}"
            step.notes.add("W1528", layer.at(key), now, "a setting of the Claude program", at=step.at)
