"""`file_ops`, and results written to files: tools that stay inside of the run's workspace."""

import re
from collections.abc import Mapping
from typing import Any, Final

from headrace.pipeline.importer import paths
from headrace.pipeline.importer.ids import field, literal
from headrace.pipeline.importer.legacy import Section
from headrace.pipeline.importer.outputs import Members, Output, ValueOutput
from headrace.pipeline.importer.prompts import read_path
from headrace.pipeline.importer.unit import Made, Step, report_left

_FORMATS: Final = {
    "csv_to_json": ("csv", "json"),
    "json_to_csv": ("json", "csv"),
    "yaml_to_json": ("yaml", "json"),
    "json_to_yaml": ("json", "yaml"),
}
_WRITTEN: Final = frozenset({"path", "bytes", "sha256"})


def output_file(step: Step, made: Made) -> None:
    """`output_to_file`: a following step that writes what the step gives."""
    path = step.old.text("output_to_file")
    if path is None:
        return
    file_id = step.scope.ids.make(f"{step.id}_file")
    read = made.output.read(())
    made.steps[file_id] = write_step(step, step.old, path, read.cel, is_text=read.is_text)
    target = made.steps[file_id]["with"]["path"]
    now = f"the step `{file_id}` writes `{target}` in the run's workspace"
    step.note("N1550", "output_to_file", now, "a file below the output directory", at=(*step.scope.prefix, file_id))


def write_step(step: Step, section: Section, path: str, cel: str, *, is_text: bool) -> dict[str, Any]:
    """An `fs.write` step for a value."""
    folder = step.unit.default(step, "output_dir")
    target = path
    if isinstance(folder, str) and not paths.escapes(folder):
        target = f"{folder}/{path}"
    elif isinstance(folder, str):
        step.notes.add_once(
            "N1560",
            step.unit.defaults.at("output_dir"),
            "files land in the run's workspace",
            "any directory",
            at=step.at,
        )
    step.unit.uses_files = True
    where = section.at("output_to_file")
    target = target_path(step, target, where)
    return {"tool": "fs.write", "with": {"path": target, ("text" if is_text else "json"): f"${{{{ {cel} }}}}"}}


def target_path(step: Step, path: str, where: tuple[str | int, ...]) -> str:
    """A path that is written; outside of the workspace is refused."""
    if paths.escapes(path.replace("{{", "").replace("}}", "")):
        now = "a file outside of the run's workspace cannot be written; write a path below it"
        step.notes.refuse("E1511", where, now, "absolute paths and `..` were followed")
    if "{{" in path:
        return step.templates.text(path, where, at=step.at).removeprefix("./")
    return paths.tidy(path)


def file_ops(step: Step) -> Made:
    """`file_ops`: one `fs.*` tool call, or for `validate` a group that checks."""
    step.unit.uses_files = True
    operation = step.old.required("operation")
    match operation:
        case "copy" | "stream_copy":
            if operation == "stream_copy":
                step.note("N1560", "operation", "`stream_copy` is `fs.copy`", "a way of its own for large files")
            return _call(step, "fs.copy", {"from": _source(step), "to": _target(step)})
        case "move":
            source = target_path(step, _in_workspace(step, step.old.required("source")), step.old.at("source"))
            return _call(step, "fs.move", {"from": source, "to": _target(step)})
        case "delete":
            key, _ = step.old.first("path", "source")
            path = target_path(step, _in_workspace(step, step.old.required(key or "path")), step.old.at(key or "path"))
            return _call(step, "fs.delete", {"path": path}, frozenset({"path", "deleted"}))
        case "list":
            return _list(step)
        case "convert":
            return _convert(step)
        case "validate":
            return _validate(step)
        case "stream_process":
            for key in ("source", "destination", "processor", "pattern", "replacement"):
                step.old.taken.add(key)
            now = "`stream_process` is left out: read the file, `transform` its text, write it"
            step.note("W1524", "operation", now, "the text was changed on the way from file to file")
            return Made.nothing(f"`{step.name}` was left out, because `stream_process` has no counterpart")
    known = "copy, move, delete, validate, list, convert, stream_copy"
    step.refuse("E1510", "operation", f"no file operation `{operation[:60]}`; there are {known}", "an error as well")


def _in_workspace(step: Step, path: str) -> str:
    if "{{" in path or paths.escapes(path):
        return path
    return paths.in_workspace(path, step.unit.workspace_dir)


def _source(step: Step, key: str = "source") -> str:
    path = step.old.required(key)
    if "{{" in path:
        return step.text(key, path)
    return read_path(step, path, step.old.at(key))


def _target(step: Step, key: str = "destination") -> str:
    return target_path(step, _in_workspace(step, step.old.required(key)), step.old.at(key))


def _call(step: Step, tool: str, arguments: Mapping[str, Any], names: frozenset[str] = _WRITTEN) -> Made:
    output = ValueOutput(f"{step.expression}.output", names, frozenset({"result"}))
    return Made({step.id: {"tool": tool, "with": dict(arguments)}}, output)


def _list(step: Step) -> Made:
    key, _ = step.old.first("path", "source")
    directory = _source(step, key) if key else "."
    pattern = step.old.text("pattern")
    arguments: dict[str, Any] = {"pattern": "*"}
    if directory != ".":
        arguments["dir"] = directory
    output = ValueOutput(f"{step.expression}.output.paths", None, frozenset({"result", "files"}))
    if pattern is None:
        return Made({step.id: {"tool": "fs.glob", "with": arguments}}, output)
    glob = as_glob(pattern)
    if glob is not None:
        arguments["pattern"] = glob
        step.note("N1560", "pattern", f"the pattern is the glob `{glob}`", "a regular expression")
        return Made({step.id: {"tool": "fs.glob", "with": arguments}}, output)
    step.note("N1560", "pattern", "the listing is filtered by the regular expression", "a regular expression")
    listed = step.scope.ids.make(f"{step.id}_all")
    kept = f"{field('steps', listed)}.output.paths.filter(p, p.matches({literal(pattern)}))"
    steps: dict[str, dict[str, Any]] = {
        listed: {"tool": "fs.glob", "with": arguments},
        step.id: {"transform": f"${{{{ {kept} }}}}"},
    }
    return Made(steps, ValueOutput(f"{step.expression}.output", None, frozenset({"result", "files"})))


_GLOB: Final = re.compile(r"\^?(?P<head>(?:[\w-]|\\\.)*|\.\*)(?P<tail>\\\.\w+)\$")


def as_glob(pattern: str) -> str | None:
    r"""The glob for a regular expression such as `.*\.txt$`; None when no glob means the same."""
    match = _GLOB.fullmatch(pattern)
    if match is None or (not pattern.startswith("^") and match["head"] != ".*"):
        return None
    head = "*" if match["head"] == ".*" else match["head"].replace("\\.", ".")
    return head + match["tail"].replace("\\.", ".")


def _convert(step: Step) -> Made:
    form = step.old.required("format")
    found = _FORMATS.get(form)
    if found is None:
        now = f"no conversion `{form[:60]}`; there are {', '.join(_FORMATS)}"
        step.refuse("E1510", "format", now, "not implemented, or without an effect")
    if form == "csv_to_json":
        step.note("N1560", "format", "fields in quotes are read as CSV says", "quotes were broken")
    arguments = {"from": _source(step), "to": _target(step), "from_format": found[0], "to_format": found[1]}
    return _call(step, "fs.convert", arguments, _WRITTEN | {"records"})


def _validate(step: Step) -> Made:
    files = step.old.sections("files") or []
    if not files:
        step.refuse("E1502", "", "`files` is missing", "refused as well")
    scope = step.scope.body((*step.at, "steps"))
    inner: dict[str, Any] = {}
    checks: list[str] = []
    for number, section in enumerate(files, 1):
        stat = scope.ids.make(f"{step.id}_stat_{number}")
        path = section.required("path")
        plain = step.templates.text(path, section.at("path"), at=step.at) if "{{" in path else None
        target = plain or read_path(step, path, section.at("path"))
        inner[stat] = {"tool": "fs.stat", "with": {"path": target}}
        checks += _checks(section, f"{field('steps', stat)}.output")
        known = {"must_be_readable": "reading it says so", "must_be_writable": "the workspace is writable"}
        report_left(step.notes, section, known, "a file to validate", at=step.at)
    every = " && ".join(checks) or "true"
    check = scope.ids.make(f"{step.id}_check")
    inner[check] = {"transform": f'${{{{ {{"true": true}}[text({every})] }}}}'}
    now = f"the step `{check}` fails unless every check holds: the map in it has only `true`"
    step.note("N1560", "files", now, "the step failed", at=(*scope.prefix, check))
    output: Output = ValueOutput(field("steps", check) + ".output")
    body = {"steps": inner, "outputs": {"valid": f"${{{{ {field('steps', check)}.output }}}}"}}
    return Made({step.id: body}, Members(f"{step.expression}.output", {"valid": ("valid", output)}))


def _checks(section: Section, stat: str) -> list[str]:
    if section.flag("must_exist") is False:
        return []
    checks = [f"{stat}.exists"]
    if section.flag("must_be_file"):
        checks.append(f'{stat}.kind == "file"')
    if section.flag("must_be_dir"):
        checks.append(f'{stat}.kind == "directory"')
    for key, sign in (("min_size", ">="), ("max_size", "<=")):
        size = section.whole(key)
        if size is not None:
            checks.append(f"{stat}.bytes {sign} {size}")
    return checks
