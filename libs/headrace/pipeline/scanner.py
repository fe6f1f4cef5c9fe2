"""Finding `${{ … }}` in text, and the tokens of an expression, without understanding it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|//[^\n]*)
  | (?P<string>[rRbB]{0,2}(?:\"\"\"(?:[^\\]|\\.)*?\"\"\"|'''(?:[^\\]|\\.)*?'''
               |"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
OPEN = "${{"


@dataclass(slots=True, frozen=True)
class Token:
    """A piece of an expression. `kind`: space, string, name, other (one character)."""

    kind: str
    text: str
    start: int


@dataclass(slots=True, frozen=True)
class Piece:
    """A part of a text: literal text, or the source of an expression. `start` is where its text begins."""

    is_expression: bool
    text: str
    start: int


class UnclosedExpressionError(ValueError):
    """A `${{` without its `}}`."""

    def __init__(self, start: int) -> None:
        self.start = start
        super().__init__("`${{` is never closed by `}}`")


def tokens(source: str, start: int = 0) -> Iterator[Token]:
    """The tokens from an offset on. Never fails: what is no string, name or space is `other`."""
    for match in _TOKEN.finditer(source, start):
        yield Token(match.lastgroup or "other", match.group(), match.start())


def _end_of_expression(text: str, start: int) -> int:
    """Offset of the `}}` that closes an expression: braces of maps are balanced, those inside strings don't count."""
    depth = 0
    previous_brace = -2
    for token in tokens(text, start):
        if token.text == "{":
            depth += 1
        elif token.text == "}" and depth > 0:
            depth -= 1
        elif token.text == "}":
            if previous_brace == token.start - 1:
                return previous_brace
            previous_brace = token.start
    raise UnclosedExpressionError(start - len(OPEN))


def pieces(text: str) -> list[Piece]:
    """Literal text and expressions, in order. `$${{` is the literal `${{`.

    Raises:
        UnclosedExpressionError: with the offset of the `${{`.
    """
    found: list[Piece] = []
    literal, literal_start, at = "", 0, 0
    while (opening := text.find(OPEN, at)) >= 0:
        if opening > 0 and text[opening - 1] == "$":
            literal += text[at : opening - 1] + OPEN
            at = opening + len(OPEN)
            continue
        literal += text[at:opening]
        if literal:
            found.append(Piece(is_expression=False, text=literal, start=literal_start))
        end = _end_of_expression(text, opening + len(OPEN))
        found.append(Piece(is_expression=True, text=text[opening + len(OPEN) : end], start=opening + len(OPEN)))
        at = literal_start = end + 2
        literal = ""
    literal += text[at:]
    if literal or not found:
        found.append(Piece(is_expression=False, text=literal, start=literal_start))
    return found


def renamed(source: str, old: str, new: str) -> str:
    """The expression with a variable called otherwise; functions, fields and strings of that name stay."""
    listed = [token for token in tokens(source) if token.kind != "space"]
    parts: list[str] = []
    at = 0
    for index, token in enumerate(listed):
        follows = listed[index + 1].text if index + 1 < len(listed) else ""
        is_field = index > 0 and listed[index - 1].text in (".", "?") and _is_select(listed, index)
        if token.kind == "name" and token.text == old and not is_field and follows != "(":
            parts.append(source[at : token.start] + new)
            at = token.start + len(old)
    return "".join(parts) + source[at:]


def _is_select(listed: list[Token], index: int) -> bool:
    """Whether the name follows `.` or `.?`, and not the `?` of a condition."""
    if listed[index - 1].text == ".":
        return True
    return index > 1 and listed[index - 2].text == "." and listed[index - 2].start + 1 == listed[index - 1].start


def with_ordered_ranges(source: str) -> str:
    """The expression with `._ordered()` before every `.map(` and `.filter(`."""
    listed = [token for token in tokens(source) if token.kind != "space"]
    parts: list[str] = []
    at = 0
    for dot, name, bracket in zip(listed, listed[1:], listed[2:], strict=False):
        if dot.text == "." and name.text in ("map", "filter") and bracket.text == "(":
            parts.append(source[at : dot.start] + "._ordered()")
            at = dot.start
    return "".join(parts) + source[at:]


def names_used(source: str) -> set[str]:
    """Every name in the expression, fields and functions included; text in strings is not."""
    return {token.text for token in tokens(source) if token.kind == "name"}
