"""The parts of an old prompt as one text: joined with one newline, as before."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from headrace.pipeline.importer import paths
from headrace.pipeline.importer.ids import literal, slug
from headrace.pipeline.importer.legacy import Section
from headrace.pipeline.importer.scope import UnknownNameError
from headrace.pipeline.importer.templates import split_source
from headrace.pipeline.importer.unit import Step, report_left
from headrace.pipeline.positions import Path

_FILE_KEYS: Final = {
    "variables": "write `${{ … }}` around `file()` instead",
    "inject_as": "the text stands where the part stands",
    "encoding": "files are UTF-8",
}
_PREVIOUS_KEYS: Final = {
    "extract_with": "put a step between that extracts what is wanted",
    "summary": "put an `llm` step between that summarises",
    "max_length": "`substring(0, n)` cuts a text",
    "format": "text is inserted as it is, everything else as JSON",
    "post_processing": "put a step between",
    "condition": "a condition belongs to a step",
    "inject_as": "the text stands where the part stands",
}
_PATH: Final = re.compile(r"steps(?:\.\w+|\[\"[^\"\\]*\"\]|\[\d+\])+", re.ASCII)


@dataclass(slots=True)
class Prompt:
    """The text, and the conversation it belongs to where a part says so."""

    text: str
    session: dict[str, Any] = field(default_factory=dict)


def prompt_of(step: Step, section: Section, key: str = "prompt") -> Prompt | None:
    """The prompt of a step or task; None when it has none."""
    value = section.take(key)
    path = section.at(key)
    match value:
        case None:
            return None
        case str():
            step.notes.add_once(
                "N1564", path, "a prompt may be plain text", "the loader rejected a prompt that is no list", at=step.at
            )
            return Prompt(step.templates.text(value, path, at=step.at))
        case list() if value:
            return _joined(step, value, path)
    section.wrong(key, "a list of parts or text")


def _joined(step: Step, parts: list[Any], path: Path) -> Prompt:
    texts: list[str] = []
    session: dict[str, Any] = {}
    for index, part in enumerate(parts):
        at = (*path, index)
        if isinstance(part, str):
            texts.append(step.templates.text(part, at, at=step.at))
            continue
        if not isinstance(part, dict):
            step.notes.refuse("E1503", at, "a part of a prompt is a map with a `type`")
        text = _part(step, Section(step.notes, part, at), session)
        if text is not None:
            texts.append(text)
    return Prompt("\n".join(texts), session)


def _part(step: Step, part: Section, session: dict[str, Any]) -> str | None:
    kind = part.required("type")
    known: Mapping[str, str] = {}
    text: str | None = None
    match kind:
        case "static":
            content = part.text("content")
            if content is None:
                step.notes.refuse("E1502", part.path, "`content` is missing", "refused as well")
            text = step.templates.text(content, part.at("content"), at=step.at)
        case "file":
            known, text = _FILE_KEYS, f"${{{{ {file_read(step, part)} }}}}"
        case "previous_response":
            known, text = _PREVIOUS_KEYS, f"${{{{ {_previous(step, part)} }}}}"
        case "session_context":
            _session(step, part, session)
            last = part.whole("include_last_n")
            session["include"] = f"last {last or 20}"
        case "claude_continue":
            _session(step, part, session)
            new_prompt = part.text("new_prompt")
            text = None if new_prompt is None else step.templates.text(new_prompt, part.at("new_prompt"), at=step.at)
        case _:
            hint = "static, file, previous_response, session_context, claude_continue"
            step.notes.refuse("E1504", part.at("type"), f"no part of a prompt is a `{kind[:60]}`; parts are {hint}")
    report_left(step.notes, part, known, f"a `{kind}` part", at=step.at)
    return text


def file_read(step: Step, part: Section, key: str = "path") -> str:
    """`file("…")` for the path at a key."""
    path = part.required(key)
    step.unit.uses_files = True
    if "{{" in path:
        cel = step.templates.cel(path, part.at(key), at=step.at)
        return f"file({cel})"
    return f"file({literal(read_path(step, path, part.at(key)))})"


def read_path(step: Step, path: str, where: Path) -> str:
    """A path that is read: relative to the workspace or a directory that the operator grants."""
    if paths.is_absolute(path):
        now = "an absolute path is read only below a directory given with `--read-root`"
        step.notes.add("W1527", where, now, "anything was read", at=step.at)
        return path
    if paths.escapes(path):
        kept = paths.beneath(path)
        now = (
            f"`{kept}` is looked for in the workspace, then below each `--read-root`: give the directory that holds it"
        )
        step.notes.add("W1527", where, now, "`..` led out of the working directory", at=step.at)
        return kept
    return paths.in_workspace(path, step.unit.workspace_dir)


def _previous(step: Step, part: Section) -> str:
    source = part.required("step")
    extract = part.text("extract") or ""
    strict = part.flag("strict")
    name, path = split_source(source, step.scope)
    path = (*path, *(int(bit) if bit.isdigit() else bit for bit in extract.split(".") if bit))
    where = part.at("extract" if extract else "step")
    try:
        read = step.scope.step(name, path)
    except UnknownNameError as error:
        step.notes.refuse(error.code, where, str(error), "the run crashed when it came here")
    step.templates.promised(read, ".".join(map(str, (name, *path))), where, step.at)
    if name in step.scope.skipped and strict is not False:
        now = f"skipped when `{name}` is, because it reads it"
        step.notes.add("N1541", where, now, "the run crashed", at=step.at)
    if strict is False and _PATH.fullmatch(read.cel):
        return f'{_optional(read.cel)}.orValue("")'
    return read.cel


def _optional(path: str) -> str:
    """`steps.a.output.b` as `steps.?a.?output.?b`."""
    return path.replace(".", ".?").replace("[", "[?")


def _session(step: Step, part: Section, session: dict[str, Any]) -> None:
    name = part.text("session_id")
    session["id"] = slug(name or step.name, "session")
    session["create"] = True
    now = f"the conversation `{session['id']}` is what the model sees"
    step.notes.add("N1562", part.path, now, "the part expanded to an empty text", at=step.at)
