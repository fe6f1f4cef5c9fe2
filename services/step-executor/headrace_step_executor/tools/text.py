"""`text.split`, `text.extract_code`, `text.extract_links`, `text.measure`: pure functions of text."""

import re
from typing import Any, Final

from headrace.contracts import names
from headrace.pipeline import builtin_tools
from headrace_step_executor.tools.call import ToolCall, in_thread, refuse
from headrace_step_executor.tools.fs_read import lines_of, text_of

HERE_CHARS_MAX: Final = 100_000
"""Longer text is worked on in a thread, so that the loop goes on turning."""
_SEPARATORS: Final = ("\n\n", "\n", " ")
_FENCE: Final = re.compile(r"^ {0,3}(`{3,}|~{3,})[ \t]*([^\s`]*)[^\n`]*$")
_LINK: Final = re.compile(
    r"\[([^\[\]\n]{0,500}+)\]\((https?://[^\s()<>]{1,2000}+)[^()\n]{0,200}+\)|(https?://[^\s<>\"'()\[\]]{1,2000}+)"
)
"""Possessive: what has matched is not tried in other lengths, so that half a link costs what it is long."""
_DEF: Final = re.compile(r"(?:async[ \t]+)?def[ \t]+\w")
_CLASS: Final = re.compile(r"class[ \t]+\w")


async def split(call: ToolCall) -> Any:
    """`text.split`."""
    args = call.args
    if args["overlap"] >= args["size"]:
        msg = "tool_args_invalid"
        raise refuse(msg, f"overlap {args['overlap']} must be less than size {args['size']}")
    return await _done(call, lambda: _counted("parts", parts_of(args["text"], args["size"], args["overlap"])))


async def extract_code(call: ToolCall) -> Any:
    """`text.extract_code`."""
    args = call.args
    return await _done(call, lambda: _counted("blocks", _code_blocks(args["text"], args.get("language"))))


async def extract_links(call: ToolCall) -> Any:
    """`text.extract_links`."""
    return await _done(call, lambda: _counted("links", _links(call.args["text"])))


async def measure(call: ToolCall) -> Any:
    """`text.measure`."""
    if "path" in call.args:
        return await in_thread(call, lambda: _measure_file(call))
    return await _done(call, lambda: measured(call.args["text"], "", call.args.get("language") or "text"))


async def _done(call: ToolCall, work: Any) -> Any:
    if len(call.args.get("text", "")) <= HERE_CHARS_MAX:
        return work()
    return await in_thread(call, work)


def _counted(name: str, found: list[Any]) -> dict[str, Any]:
    return {name: found, "count": len(found)}


def parts_of(text: str, size: int, overlap: int) -> list[str]:
    """Parts of at most `size` characters, cut where the text pauses; nothing is dropped.

    Raises:
        AttemptError: `too_large`: overlaps make more of the text than a value can hold.
    """
    parts: list[str] = []
    start, whole = 0, 0
    while start < len(text):
        end = min(start + size, len(text))
        if end < len(text):
            end = _pause(text, start, end, least=overlap)
        whole += end - start
        if whole > names.VALUE_BYTES_MAX:
            msg = "too_large"
            raise refuse(msg, f"more than {names.VALUE_BYTES_MAX} characters in parts; make `overlap` smaller")
        parts.append(text[start:end])
        if end == len(text):
            break
        start = end - overlap
    return parts


def _pause(text: str, start: int, end: int, *, least: int) -> int:
    """Where to end the part: after the last paragraph, line or word in its second half, else at `end`."""
    earliest = start + max(least, (end - start) // 2)
    for separator in _SEPARATORS:
        at = text.rfind(separator, earliest, end)
        if at >= 0 and at + len(separator) <= end and at + len(separator) > start + least:
            return at + len(separator)
    return end


def _code_blocks(text: str, language: str | None) -> list[dict[str, str]]:
    blocks: list[dict[str, str]] = []
    fence, named, inside = "", "", list[str]()
    for line in lines_of(text):
        match = _FENCE.match(line)
        if not fence:
            if match:
                fence, named, inside = match[1], match[2], []
        elif match and match[1].startswith(fence) and not match[2]:
            blocks.append({"language": named, "code": "\n".join(inside)})
            fence = ""
        else:
            inside.append(line)
    if fence:  # a block that is never closed ends with the text, as Markdown has it
        blocks.append({"language": named, "code": "\n".join(inside)})
    return [block for block in blocks if language is None or block["language"].lower() == language.lower()]


def _links(text: str) -> list[dict[str, str]]:
    found: dict[str, str] = {}
    for match in _LINK.finditer(text):
        url = match[2] or match[3].rstrip(".,;:!?*_`")
        found.setdefault(url, match[1] or url)
    return [{"url": url, "text": shown} for url, shown in found.items()]


def _measure_file(call: ToolCall) -> dict[str, Any]:
    path = call.args["path"]
    text = text_of(call.workspace.read(path, bytes_max=builtin_tools.READ_BYTES_MAX), path)
    language = call.args.get("language") or ("python" if path.lower().endswith(".py") else "text")
    return measured(text, path, language)


def measured(text: str, path: str, language: str) -> dict[str, Any]:
    """The numbers of `text.measure`."""
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    stripped = [line.strip() for line in lines]
    python = language == "python"
    return {
        "path": path,
        "language": language,
        "lines": len(lines),
        "blank_lines": sum(not line for line in stripped),
        "chars": len(text),
        "longest_line": max(map(len, lines), default=0),
        "words": len(text.split()),
        "functions": sum(_DEF.match(line) is not None for line in stripped) if python else 0,
        "classes": sum(_CLASS.match(line) is not None for line in stripped) if python else 0,
        "comment_lines": sum(line.startswith("#") for line in stripped) if python else 0,
    }
