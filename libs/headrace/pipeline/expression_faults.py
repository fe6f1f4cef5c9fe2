"""What is wrong with an expression, and where: CEL's complaints in our words."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from headrace.contracts.errors import ExpressionError
from headrace.pipeline.cel_library import FUNCTION_NAMES, ROOTS

_CEL_ERROR = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*?)(?=\n \||\nERROR|\s*\[[A-Z_]+\]$|$)", re.DOTALL)
_CEL_CODE = re.compile(r"^[A-Z_]+: |\s*\[[A-Z_]+\]$")


_ECHO: Final = "<<nil>> parsetree"
"""What the parser adds to a syntax error that it has already told."""
_ELSEWHERE: Final[Mapping[str, str]] = {
    "and": "&&", "or": "||", "not": "!", "=": "==", "len": "size", "length": "size", "count": "size", "any": "exists",
    "average": "avg", "toLowerCase": "lower", "toUpperCase": "upper", "toString": "text", "parseInt": "int",
    "concat": "join", "first": "[0]", "isEmpty": "size(…) == 0", "default": "orValue",
}  # fmt: skip
"""What other languages call it → what to write."""


@dataclass(slots=True, frozen=True)
class Fault:
    """One thing wrong with an expression. `offset` counts characters in the string at `path`."""

    path: tuple[str | int, ...]
    offset: int
    text: str
    hint: str = ""


class RefusedExpressionError(ExpressionError):
    """An expression does not compile. `faults` say where; the text has line, column and a caret line."""

    def __init__(self, tree: Any, faults: tuple[Fault, ...]) -> None:
        self.faults = faults
        super().__init__("\n".join(_shown(_string_at(tree, fault.path), fault) for fault in faults))


def _string_at(tree: Any, path: tuple[str | int, ...]) -> str:
    for step in path:
        tree = tree[step]
    return str(tree)


def _shown(source: str, fault: Fault) -> str:
    """The fault with line, column and the line with a caret under the place."""
    before = source[: fault.offset]
    line, column = before.count("\n") + 1, fault.offset - (before.rfind("\n") + 1) + 1
    shown = (source.split("\n")[line - 1 : line] or [""])[0]
    if len(shown) > 120:
        cut = max(0, column - 60)
        shown, column_shown = shown[cut : cut + 120], column - cut
    else:
        column_shown = column
    hint = f"; {fault.hint}" if fault.hint else ""
    return f"{line}:{column}: {fault.text}{hint}\n  {shown}\n  {' ' * (column_shown - 1)}^"


def faults_of(message: str, source: str) -> tuple[Fault, ...]:
    """Every complaint in a compiler's message, at its place in the source."""
    faults = [
        _fault(source, _offset(source, int(line), int(column)), text.strip())
        for line, column, text in _CEL_ERROR.findall(message)
        if not text.startswith(_ECHO)
    ]
    return tuple(faults) or (Fault((), 0, without_code(message)),)


def without_code(message: str) -> str:
    """The library's message without its status words."""
    return _CEL_CODE.sub("", message).strip()


def _offset(source: str, line: int, column: int) -> int:
    starts = [0] + [match.end() for match in re.finditer("\n", source)]
    start = starts[min(max(line, 1), len(starts)) - 1]
    return min(start + max(column, 1) - 1, len(source))


def _fault(source: str, offset: int, text: str) -> Fault:
    """The complaint in our words, with what to do about it."""
    undeclared = re.match(r"undeclared reference to '([^']+)'", text)
    if undeclared:
        name = undeclared[1].split(".")[0]
        start = source.rfind(name, 0, offset + len(name))
        place = start if start >= 0 else offset
        if re.search(r"\bsteps(\.\w+)*\.\w+\s*-\s*$", source[:place]):
            return Fault((), place, f"`-{name}` is a subtraction here", 'write `steps["my-step"]` for ids with `-`')
        if name in FUNCTION_NAMES:
            return Fault((), place, f"`{name}` does not take these arguments")
        near = [_ELSEWHERE[name]] if name in _ELSEWHERE else []
        near = near or difflib.get_close_matches(name, [*ROOTS, *FUNCTION_NAMES], n=1)
        hint = f"did you mean `{near[0]}`?" if near else "known are " + ", ".join(ROOTS)
        return Fault((), place, f"unknown name `{name}`", hint)
    if "found no matching overload" in text and "double" in text and re.search(r"\bu?int\b", text):
        return Fault((), offset, text, "integers and doubles don't mix: write `double(x)`")
    if "Syntax error: " in text:
        word = _word_at(source, offset)
        hint = f"write `{_ELSEWHERE[word]}`" if word in _ELSEWHERE else ""
        return Fault((), offset, text.split(" expecting ")[0].replace("'<EOF>'", "end of the expression"), hint)
    return Fault((), offset, text)


def _word_at(source: str, offset: int) -> str:
    """The word of another language at a place or just before it; empty when there is none."""
    for word in (re.match(r"\w+|=(?!=)", source[offset:]), re.search(r"(\w+)\s+$", source[:offset])):
        if word is not None and word[0].strip() in _ELSEWHERE:
            return word[0].strip()
    return ""
