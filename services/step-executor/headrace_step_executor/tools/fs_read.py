"""`fs.read`, `fs.glob`, `fs.grep`, `fs.stat`: looking at files of the workspace and of granted read roots."""

import base64
import fnmatch
import functools
import os
import re
import stat
from collections.abc import Iterator
from typing import Any, Final

import jsonschema_rs

from headrace.contracts.canonical import sha256_hex
from headrace.contracts.errors import AttemptError
from headrace.pipeline import builtin_tools
from headrace.pipeline.functions import parse_json
from headrace_step_executor.tools.beneath import (
    DIRECTORY,
    TEMPORARY,
    checked_parts,
    directory,
    file_error,
    open_beneath,
)
from headrace_step_executor.tools.call import ToolCall, go_on, in_thread, refuse

ENTRIES_MAX: Final = 1_000_000
"""Directory entries looked at by one glob; a tree with more is searched in parts."""
DEPTH_MAX: Final = 64
LINE_CHARS_SHOWN: Final = 500
GREP_FILE_BYTES_MAX: Final = 4 * 1024 * 1024
"""`fs.grep` passes over larger files as over binary ones: they are data, not text that people search."""


async def read(call: ToolCall) -> Any:
    """`fs.read`."""
    return await in_thread(call, lambda: _read(call))


async def stat_(call: ToolCall) -> Any:
    """`fs.stat`."""
    return await in_thread(call, lambda: _stat(call))


async def glob(call: ToolCall) -> Any:
    """`fs.glob`."""
    return await in_thread(call, lambda: _glob(call))


async def grep(call: ToolCall) -> Any:
    """`fs.grep`."""
    return await in_thread(call, lambda: _grep(call))


def _read(call: ToolCall) -> dict[str, Any]:
    path = call.args["path"]
    data = call.workspace.read(path, bytes_max=call.args["max_bytes"])
    content = content_of(data, call.args["format"], path)
    return {"path": path, "content": content, "bytes": len(data), "sha256": sha256_hex(data)}


def content_of(data: bytes, form: str, path: str) -> Any:
    """The bytes of a file as `text`, `lines`, `json`, `jsonl` or `base64`."""
    match form:
        case "base64":
            return base64.b64encode(data).decode()
        case "json":
            return json_value(text_of(data, path), path)
        case "jsonl":
            lines = lines_of(text_of(data, path))
            return [json_value(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
        case "lines":
            return lines_of(text_of(data, path))
    return text_of(data, path)


def text_of(data: bytes, path: str) -> str:
    """UTF-8, a leading byte order mark dropped. Raises AttemptError `not_text`."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        msg = "not_text"
        raise refuse(msg, f"{path[:200]!a}: not UTF-8 at byte {error.start}; read it as base64") from error


def lines_of(text: str) -> list[str]:
    """Lines as editors count them: a form feed or U+2028 ends none, a carriage return before a newline is dropped."""
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def json_value(text: str, place: str) -> Any:
    """Strict JSON. Raises AttemptError `json_invalid`."""
    try:
        return parse_json(text)
    except ValueError as error:
        msg = "json_invalid"
        raise refuse(msg, f"{place[:200]!a}: {error}") from error


def _stat(call: ToolCall) -> dict[str, Any]:
    path = call.args["path"]
    try:
        with call.workspace.opened(path, os.O_PATH | os.O_CLOEXEC) as found:
            status = os.fstat(found)
    except AttemptError as error:
        if error.attempt_code != "not_found":
            raise
        return {"path": path, "exists": False, "kind": "missing", "bytes": 0}
    kind = "file" if stat.S_ISREG(status.st_mode) else "directory" if stat.S_ISDIR(status.st_mode) else "other"
    return {
        "path": path,
        "exists": True,
        "kind": kind,
        "bytes": status.st_size if kind == "file" else 0,
        "modified_ms": max(0, status.st_mtime_ns // 1_000_000),
    }


def _glob(call: ToolCall) -> dict[str, Any]:
    found = matching(call, call.args["pattern"], hidden=call.args["hidden"])
    limit = call.args["limit"]
    return {"paths": found[:limit], "count": min(len(found), limit), "truncated": len(found) > limit}


def matching(call: ToolCall, pattern: str, *, hidden: bool) -> list[str]:
    """Files that match, sorted; a file of the workspace hides one of the same path in a read root."""
    where = call.args["dir"]
    parts = _pattern_parts(pattern)
    if not parts:
        msg = "path_invalid"
        raise refuse(msg, "an empty pattern matches nothing")
    prefix = "" if where in (".", "./", "") else where.rstrip("/") + "/"
    found: set[str] = set()
    looked = _Budget(call)
    missing: AttemptError | None = None
    reached = False
    for root, below in call.workspace.candidates(where):
        try:
            with directory(root) as base:
                top = open_beneath(base, below, DIRECTORY)
        except AttemptError as error:
            if error.attempt_code != "not_found":
                raise
            missing = error
            continue
        reached = True
        try:
            found.update(prefix + path for path in _walk(top, parts, hidden=hidden, looked=looked, depth=0))
        finally:
            os.close(top)
    if not reached and missing is not None and prefix:
        msg = "not_found"
        raise refuse(msg, f"{where[:200]!a}: no such directory")
    if len(found) > builtin_tools.PATHS_MAX:
        msg = "too_large"
        raise refuse(msg, f"more than {builtin_tools.PATHS_MAX} files match")
    return sorted(found)


def _pattern_parts(pattern: str) -> tuple[str, ...]:
    """The pattern by directory. `**` after `**` adds nothing but work."""
    parts: list[str] = []
    for part in checked_parts(pattern):
        if part != "**" or parts[-1:] != ["**"]:
            parts.append(part)
    return tuple(parts)


class _Budget:
    def __init__(self, call: ToolCall) -> None:
        self._call, self._left = call, ENTRIES_MAX

    def spend(self) -> None:
        self._left -= 1
        if self._left < 0:
            msg = "too_large"
            raise refuse(msg, f"more than {ENTRIES_MAX} directory entries to look at")
        if self._left % 256 == 0:
            go_on(self._call)


@functools.lru_cache(maxsize=256)
def _name_matcher(part: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(part))  # wild cards only, translated without backtracking


def _walk(descriptor: int, parts: tuple[str, ...], *, hidden: bool, looked: _Budget, depth: int) -> Iterator[str]:
    """Paths of matching files below an open directory. Links are neither followed nor listed."""
    if depth > DEPTH_MAX:
        msg = "too_large"
        raise refuse(msg, f"directories nested deeper than {DEPTH_MAX}")
    head, rest = parts[0], parts[1:]
    deep = head == "**"
    if deep and rest:
        yield from _walk(descriptor, rest, hidden=hidden, looked=looked, depth=depth)
    for name, is_directory in _entries(descriptor, looked):
        if name.startswith(TEMPORARY) or (name.startswith(".") and not hidden and not head.startswith(".")):
            continue
        matches = deep or _name_matcher(head).match(name) is not None
        if not matches:
            continue
        if not is_directory:
            if not rest:
                yield name
            continue
        onward = parts if deep else rest
        if onward:
            try:
                deeper = open_beneath(descriptor, name, DIRECTORY)
            except AttemptError as error:
                if error.attempt_code in ("not_found", "path_denied"):
                    continue  # gone, or made a link since it was listed; or not ours to read
                raise
            try:
                for below in _walk(deeper, onward, hidden=hidden, looked=looked, depth=depth + 1):
                    yield f"{name}/{below}"
            finally:
                os.close(deeper)


def _entries(descriptor: int, looked: _Budget) -> list[tuple[str, bool]]:
    """(name, is a directory) of files and directories; everything else is left out."""
    kept = []
    try:
        with os.scandir(descriptor) as entries:
            for entry in entries:
                looked.spend()
                try:
                    entry.name.encode()
                except UnicodeEncodeError:
                    continue  # a name that is no UTF-8 has no form in a value
                is_directory = entry.is_dir(follow_symlinks=False)
                if is_directory or entry.is_file(follow_symlinks=False):
                    kept.append((entry.name, is_directory))
    except OSError as error:
        raise file_error(error, "a directory") from error
    return kept


def line_matcher(pattern: str, *, ignore_case: bool) -> jsonschema_rs.Validator:
    """Tells whether a line matches, in linear time. Raises AttemptError `pattern_invalid`."""
    whole = f"(?i:{pattern})" if ignore_case else pattern
    try:
        return jsonschema_rs.Draft202012Validator({"pattern": whole}, pattern_options=jsonschema_rs.RegexOptions())
    except (jsonschema_rs.ValidationError, ValueError) as error:
        message = f"{pattern[:200]!r} is no linear-time regular expression (no look-around, no back references)"
        msg = "pattern_invalid"
        raise refuse(msg, message) from error


def _grep(call: ToolCall) -> dict[str, Any]:
    matcher = line_matcher(call.args["pattern"], ignore_case=call.args["ignore_case"])
    limit = call.args["limit"]
    matches: list[dict[str, Any]] = []
    for path in matching(call, call.args["glob"], hidden=False):
        go_on(call)
        for number, line in enumerate(_text_lines(call, path), 1):
            if not matcher.is_valid(line):
                continue
            if len(matches) == limit:
                return {"matches": matches, "count": limit, "truncated": True}
            matches.append({"path": path, "line": number, "text": line[:LINE_CHARS_SHOWN]})
    return {"matches": matches, "count": len(matches), "truncated": False}


def _text_lines(call: ToolCall, path: str) -> list[str]:
    try:
        return lines_of(text_of(call.workspace.read(path, bytes_max=GREP_FILE_BYTES_MAX), path))
    except AttemptError as error:
        if error.attempt_code in ("not_text", "too_large", "not_found", "path_denied", "not_a_file"):
            return []  # by the tool's contract only UTF-8 files of text are searched
        raise
