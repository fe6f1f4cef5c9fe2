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
_BRACES = re.compile(
    r"""//[^\n]*|[rRbB]{0,2}(?:\"\"\"(?:[^\\]|\\.)*?\"\"\"|'''(?:[^\\]|\\.)*?'''|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|[{}]""",
    re.DOTALL,
)
"""What matters for finding the end of an expression: braces, and what may hide them."""
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
    for match in _BRACES.finditer(text, start):
        brace = match[0]
        if brace == "{":
            depth += 1
        elif brace == "}" and depth > 0:
            depth -= 1
        elif brace == "}":
            if previous_brace == match.start() - 1:
                return previous_brace
            previous_brace = match.start()
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


class NotOneExpressionError(ValueError):
    """Text with expressions inside, where one expression is expected."""


def sole(text: str) -> tuple[str, int]:
    """The source of an expression that may stand bare or inside `${{ }}`, and where in the text it begins.

    Raises:
        UnclosedExpressionError: with the offset of the `${{`.
        NotOneExpressionError: there is text beside it, or there are several.
    """
    if OPEN not in text:
        return text, 0
    found = [piece for piece in pieces(text) if piece.is_expression or piece.text.strip()]
    if len(found) != 1 or not found[0].is_expression:
        msg = "one expression is expected, this is text with expressions"
        raise NotOneExpressionError(msg)
    return found[0].text, found[0].start


def places_of(source: str, variable: str) -> list[int]:
    """Where a variable of this name stands; functions, fields and texts of that name are something else."""
    listed = [token for token in tokens(source) if token.kind != "space"]
    places = []
    for index, token in enumerate(listed):
        if token.text != variable or token.kind != "name":
            continue
        follows = listed[index + 1].text if index + 1 < len(listed) else ""
        if follows != "(" and not (index > 0 and listed[index - 1].text in (".", "?") and _is_select(listed, index)):
            places.append(token.start)
    return places


Renaming = tuple[int, str, str]
"""Where a variable stands, what it is called, and what it is to be called."""


def renamed(source: str, edits: list[Renaming]) -> str:
    """The expression with variables called otherwise; edits are in order of place."""
    parts: list[str] = []
    at = 0
    for start, old, new in edits:
        parts.append(source[at:start] + new)
        at = start + len(old)
    return "".join(parts) + source[at:]


def offset_before(edits: list[Renaming], offset: int) -> int:
    """Where a character of the renamed expression stood before."""
    grown = 0
    for start, old, new in edits:
        if start + grown >= offset:
            break
        grown += len(new) - len(old)
    return offset - grown


def _is_select(listed: list[Token], index: int) -> bool:
    """Whether the name follows `.` or `.?`, and not the `?` of a condition."""
    if listed[index - 1].text == ".":
        return True
    return index > 1 and listed[index - 2].text == "." and listed[index - 2].start + 1 == listed[index - 1].start


def with_collected_lists(source: str) -> str:
    """The expression with `map` and `filter` done in linear time and in a fixed order.

    `x.map(v, e)` becomes `x._mark(7).all(v, _push(7, e))._take(7)`, and `x.filter(v, c)` the same with
    `(c) ? _push(7, v) : true` inside; see `collecting`. The expression compiles, so brackets match and arguments fit.
    """
    listed = [token for token in tokens(source) if token.kind != "space"]
    edits: list[tuple[int, int, int, str]] = []
    for index in range(len(listed) - 2):
        dot, name, bracket = listed[index : index + 3]
        if dot.text == "." and name.text in ("map", "filter") and bracket.text == "(":
            edits += _collected(source, listed, index)
    parts: list[str] = []
    at = 0
    for start, _, length, text in sorted(edits):
        parts.append(source[at:start] + text)
        at = start + length
    return "".join(parts) + source[at:]


def _collected(source: str, listed: list[Token], index: int) -> list[tuple[int, int, int, str]]:
    """Edits (offset, rank, deleted, inserted) for one macro. At one offset, what ends the inner macro comes first."""
    dot, name = listed[index], listed[index + 1]
    commas, end = _arguments(listed, index + 2)
    number = dot.start
    if not commas:
        return []
    variable = source[listed[index + 2].start + 1 : commas[0]].strip()
    edits = [
        (dot.start, 0, 0, f"._mark({number})"),
        (name.start, 0, len(name.text), "all"),
        (end + 1, -index, 0, f"._take({number})"),
    ]
    if name.text == "filter":
        edits += [(commas[0] + 1, 0, 0, " ("), (end, -index, 0, f") ? _push({number}, {variable}) : true")]
    elif len(commas) == 1:
        edits += [(commas[0] + 1, 0, 0, f" _push({number}, "), (end, -index, 0, ")")]
    else:
        edits += [(commas[0] + 1, 0, 0, " ("), (commas[1], -index, 1, f") ? _push({number}, ")]
        edits.append((end, -index, 0, ") : true"))
    return edits


def _arguments(listed: list[Token], opening: int) -> tuple[list[int], int]:
    """Offsets of the commas between a call's arguments, and of its closing bracket."""
    depth = 0
    commas: list[int] = []
    for token in listed[opening:]:
        if token.text in ("(", "[", "{"):
            depth += 1
        elif token.text in (")", "]", "}"):
            depth -= 1
            if depth == 0:
                return commas, token.start
        elif token.text == "," and depth == 1:
            commas.append(token.start)
    return [], listed[-1].start
