"""The old condition and template language, read with its documented meaning and written as CEL.

One parser for both, because both documents describe one language: paths, comparisons with words and signs, `and`,
`or`, `not`, arithmetic, functions. The old evaluator split text at spaces and gave false, 0 or "" for whatever it did
not understand; where it did so, the parser notes a quirk, so that the report can show both values.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from headrace.pipeline.importer.cel_forms import (
    AND,
    ATOM,
    EMPTY,
    FALSY,
    FUNCTIONS,
    OR,
    OVER_ITEMS,
    PRODUCT,
    RELATION,
    SUM,
    UNARY,
    Cel,
    Kind,
    alike,
    as_text,
    between,
    contains,
    exists,
    formatted,
    instant,
)
from headrace.pipeline.importer.ids import literal
from headrace.pipeline.importer.outputs import Read

SOURCE_CHARS_MAX: Final = 4_000
"""Of one condition or template; expressions of Headrace stop at 500 nodes."""
DEPTH_MAX: Final = 40
"""Brackets in brackets; far beyond what people write, far below what the interpreter's stack holds."""
_TOKEN = re.compile(
    r"""\s*(?:(?P<number>\d+\.\d+|\d+)
    |(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<name>[^\W\d]\w*)
    |(?P<sign>==|!=|>=|<=|&&|\|\||[-+*/%<>!()\[\].,?:]))""",
    re.VERBOSE,
)


class FormulaError(Exception):  # becomes a refusal where the place is known
    """The text has no meaning; says why."""


class Token(NamedTuple):
    """A piece of a formula. `glued`: no space before it."""

    kind: str
    text: str
    start: int
    glued: bool


Resolver = Callable[[tuple[str | int, ...]], Read]


@dataclass(slots=True)
class Formula:
    """A parsed formula, and in which ways the old evaluator misread it."""

    cel: Cel
    quirks: list[str] = field(default_factory=list)


def parse(source: str, resolve: Resolver, odd_names: Sequence[str] = ()) -> Formula:
    """The formula in a text.

    Args:
        resolve: Gives the expression for a path.
        odd_names: Names of steps with characters that would be operators or separators, longest first.

    Raises:
        FormulaError: it cannot be read.
    """
    if len(source) > SOURCE_CHARS_MAX:
        msg = f"a formula of {len(source)} characters; {SOURCE_CHARS_MAX} are allowed"
        raise FormulaError(msg)
    return _Parser(source, resolve, odd_names).whole()


def _tokens(source: str, odd_names: Sequence[str]) -> list[Token]:
    found: list[Token] = []
    at = 0
    while at < len(source):
        start = at + len(source[at:]) - len(source[at:].lstrip())
        odd = next((name for name in odd_names if _stands(source, name, start)), None)
        if odd is not None:
            found.append(Token("odd", odd, start, start == at))
            at = start + len(odd)
            continue
        match = _TOKEN.match(source, at)
        if match is None:
            if not source[at:].strip():
                break
            msg = f"`{source[start : start + 12]}` is not understood"
            raise FormulaError(msg)
        kind = str(match.lastgroup)
        found.append(Token(kind, match[kind], match.start(kind), match.start(kind) == at))
        at = match.end()
    return found


def _stands(source: str, name: str, at: int) -> bool:
    """Whether a name stands here, and not as a part of a longer word."""
    end = at + len(name)
    return source.startswith(name, at) and not (end < len(source) and (source[end].isalnum() or source[end] in "_-"))


_COMPARISONS: Final = frozenset({"==", "!=", ">", "<", ">=", "<="})
_FALSE_WORDS: Final = frozenset({"starts_with", "ends_with", "in", "not_in", "exists", "empty", "is_empty"})
"""Documented operators for which the old evaluator gave false."""
_TEXT_TESTS: Final = {"starts_with": "startsWith", "ends_with": "endsWith"}


class _Parser:
    def __init__(self, source: str, resolve: Resolver, odd_names: Sequence[str]) -> None:
        self.source, self.resolve, self.odd_names = source, resolve, odd_names
        self.tokens = _tokens(source, odd_names)
        self.at = 0
        self.depth = 0
        self.quirks: dict[str, None] = {}
        self.row: str | None = None
        """The variable whose fields bare names are, inside `any(list, '…')`."""

    def whole(self) -> Formula:
        """All of the text."""
        if not self.tokens:
            msg = "it is empty"
            raise FormulaError(msg)
        cel = self._choice()
        if self.at < len(self.tokens):
            msg = f"`{self._peek()}` is not expected here"
            raise FormulaError(msg)
        return Formula(cel, list(self.quirks))

    def _peek(self, ahead: int = 0) -> str:
        index = self.at + ahead
        return self.tokens[index].text if index < len(self.tokens) and self.tokens[index].kind != "text" else ""

    def _next(self) -> Token:
        if self.at >= len(self.tokens):
            msg = "it ends too early"
            raise FormulaError(msg)
        self.at += 1
        return self.tokens[self.at - 1]

    def _expect(self, text: str) -> None:
        token = self._next()
        if token.text != text or token.kind == "text":
            msg = f"`{text}` is expected before `{token.text}`"
            raise FormulaError(msg)

    def _quirk(self, text: str) -> None:
        self.quirks.setdefault(text)

    # --- operators, loosest first ---

    def _choice(self) -> Cel:
        self.depth += 1
        if self.depth > DEPTH_MAX:
            msg = f"more than {DEPTH_MAX} brackets in brackets"
            raise FormulaError(msg)
        test = self._or()
        if self._peek() == "?":
            self._next()
            yes = self._choice()
            self._expect(":")
            no = self._choice()
            test = Cel(f"{test.condition().within(OR)} ? {yes.within(OR)} : {no.within(OR)}", 0, yes.kind)
        self.depth -= 1
        return test

    def _or(self) -> Cel:
        return self._logic(("or", "||"), " || ", OR, self._and)

    def _and(self) -> Cel:
        return self._logic(("and", "&&"), " && ", AND, self._not)

    def _logic(self, words: tuple[str, str], sign: str, binds: int, below: Callable[[], Cel]) -> Cel:
        parts = [below()]
        while self._peek() in words:
            self._quirk("`and` and `or` inside text were not understood: false")
            self._next()
            parts.append(below())
        if len(parts) == 1:
            return parts[0]
        return Cel(sign.join(part.condition().within(binds + 1) for part in parts), binds, "bool")

    def _not(self) -> Cel:
        negations = 0
        while self._peek() in ("not", "!"):
            self._quirk("`not` inside text was not understood: false")
            self._next()
            negations += 1
        cel = self._comparison()
        if negations % 2:
            return Cel(f"!{cel.condition().within(UNARY + 1)}", UNARY, "bool")
        return cel.condition() if negations else cel

    def _comparison(self) -> Cel:
        left = self._sum()
        token = self.tokens[self.at] if self.at < len(self.tokens) else None
        if token is None or token.kind == "text":
            return left
        if token.text in _COMPARISONS:
            self._next()
            right = self._sum()
            following = self.tokens[self.at - 1] if self.at <= len(self.tokens) else None
            if token.glued or (following is not None and following.start == token.start + len(token.text)):
                self._quirk("a comparison without spaces around it was not understood: false")
            if "bool" in (left.kind, right.kind) and "false" in (left.text, right.text) and "exists(" in left.text:
                self._quirk("a function compared with `false` was true whatever the data")
            left, right = instant(left, right), instant(right, left)
            left, right = alike(left, right), alike(right, left)
            return Cel(f"{left.within(SUM)} {token.text} {right.within(SUM)}", RELATION, "bool")
        return self._worded(left, token.text)

    def _worded(self, left: Cel, word: str) -> Cel:
        if word == "not" and self._peek(1) == "in":
            self._next()
            word = "not_in"
        if word == "is" and self._peek(1) in ("empty", "not"):
            self._next()
            word = self._peek()
        if word in _FALSE_WORDS:
            self._quirk(f"`{word}` was not understood: false")
        match word:
            case "contains":
                self._next()
                return contains(left, self._sum())
            case "matches":
                self._next()
                return Cel(f"{as_text(left)}.matches({self._sum().text})", ATOM, "bool")
            case "between":
                self._next()
                low = self._sum()
                self._expect("and")
                return between(left, low, self._sum())
            case "starts_with" | "ends_with":
                self._next()
                return Cel(f"{as_text(left)}.{_TEXT_TESTS[word]}({self._sum().text})", ATOM, "bool")
            case "in" | "not_in":
                self._next()
                test = Cel(f"{left.within(SUM)} in {self._sum().within(SUM)}", RELATION, "bool")
                return test if word == "in" else Cel(f"!({test.text})", UNARY, "bool")
            case "exists":
                self._next()
                return exists(left)
            case "empty" | "is_empty":
                self._next()
                return Cel(f"{left.within(SUM)} in {EMPTY}", RELATION, "bool")
        return left

    def _sum(self) -> Cel:
        return self._arithmetic(("+", "-"), SUM, self._product)

    def _product(self) -> Cel:
        return self._arithmetic(("*", "/", "%"), PRODUCT, self._unary)

    def _arithmetic(self, signs: tuple[str, ...], binds: int, below: Callable[[], Cel]) -> Cel:
        cel = below()
        while self._peek() in signs:
            sign = self._next().text
            if sign == "/":
                self._quirk("a division by 0 gave 0")
            right = below()
            cel, right = alike(cel, right), alike(right, cel)
            kind: Kind = "double" if "double" in (cel.kind, right.kind) else "any"
            cel = Cel(f"{cel.within(binds)} {sign} {right.within(binds + 1)}", binds, kind)
        return cel

    def _unary(self) -> Cel:
        if self._peek() == "-":
            self._next()
            return Cel(f"-{self._unary_operand().within(ATOM)}", UNARY)
        return self._atom()

    def _unary_operand(self) -> Cel:
        if self._peek() == "-":
            msg = "two signs in a row"
            raise FormulaError(msg)
        return self._atom()

    # --- atoms ---

    def _atom(self) -> Cel:
        token = self._next()
        match token.kind:
            case "number":
                return _number(token.text)
            case "text":
                return Cel(literal(_unquoted(token.text)), ATOM, "text")
            case "odd":
                if "-" in token.text:
                    self._quirk("a `-` in a step's name was read as minus: false")
                return self._path([token.text])
            case "name":
                return self._named(token)
        if token.text == "(":
            inner = self._choice()
            self._expect(")")
            return Cel(f"({inner.text})", ATOM, inner.kind) if inner.binds < ATOM else inner
        if token.text == "[":
            return self._list()
        msg = f"`{token.text}` is not expected here"
        raise FormulaError(msg)

    def _list(self) -> Cel:
        entries: list[str] = []
        while self._peek() != "]":
            entries.append(self._choice().text)
            if self._peek() != "]":
                self._expect(",")
        self._next()
        return Cel(f"[{', '.join(entries)}]")

    def _named(self, token: Token) -> Cel:
        word = token.text
        if word in ("true", "false"):
            return Cel(word, ATOM, "bool")
        if word in ("nil", "null"):
            return Cel("null")
        if self._peek() == "(":
            return self._call(word)
        return self._path([word])

    def _path(self, start: list[str | int]) -> Cel:
        path = list(start)
        while self._peek() in (".", "["):
            if self._next().text == ".":
                name = self._next()
                if name.kind not in ("name", "number", "odd"):
                    msg = f"a name is expected after `.`, not `{name.text}`"
                    raise FormulaError(msg)
                path += _indices(name)
            else:
                index = self._next()
                if index.kind not in ("number", "text") or "." in index.text * (index.kind == "number"):
                    msg = "only a number or a text can stand in `[…]`"
                    raise FormulaError(msg)
                path.append(int(index.text) if index.kind == "number" else _unquoted(index.text))
                self._expect("]")
        if path[0] == "steps":
            self._quirk("`steps.` at the front of a condition was not understood: false")
        if path[0] in ("state", "inputs", "global_vars", "variables"):
            self._quirk(f"`{path[0]}.` was not understood in a condition: false")
        if self.row is not None:
            read = Read(f"{self.row}{''.join(_selected(name) for name in path)}")
        else:
            read = self.resolve(tuple(path))
        if read.is_bool:
            return Cel(read.cel, ATOM if read.cel in ("true", "false") else RELATION, "bool")
        return Cel(read.cel, ATOM, "text" if read.is_text else "any")

    # --- functions ---

    def _call(self, name: str) -> Cel:
        self._expect("(")
        arguments: list[Cel] = []
        conditions: list[str] = []
        while self._peek() != ")" or (self.at < len(self.tokens) and self.tokens[self.at].kind == "text"):
            if arguments and name in OVER_ITEMS and self.at < len(self.tokens) and self.tokens[self.at].kind == "text":
                conditions.append(_unquoted(self._next().text))
            else:
                arguments.append(self._choice())
            if self._peek() != ")":
                self._expect(",")
        self._next()
        if name in OVER_ITEMS:
            return self._over_items(name, arguments, conditions)
        made = FUNCTIONS.get(name)
        if made is None:
            msg = f"there is no function `{name}`; known are {', '.join(sorted({*FUNCTIONS, *OVER_ITEMS}))}"
            raise FormulaError(msg)
        count, kind, text = made
        if len(arguments) != count:
            msg = f"`{name}` takes {count} argument{'s' * (count != 1)}, got {len(arguments)}"
            raise FormulaError(msg)
        return formatted(text, arguments, kind)

    def _over_items(self, name: str, arguments: list[Cel], conditions: list[str]) -> Cel:
        if (len(arguments) != 1 and not (name in ("min", "max") and arguments)) or len(conditions) > 1:
            msg = f"`{name}` takes a list and a condition or field in quotes"
            raise FormulaError(msg)
        items = arguments[0].within(ATOM)
        if len(arguments) > 1:
            return Cel(f"{name}([{', '.join(argument.text for argument in arguments)}])")
        if name in ("any", "all", "count"):
            if not conditions:
                if name == "count":
                    return Cel(f"size({arguments[0].text})")
                test = f"!(it in {FALSY})"
            else:
                test = self._row_condition(conditions[0])
            if name == "count":
                return Cel(f"size({items}.filter(it, {test}))")
            return Cel(f"{items}.{'exists' if name == 'any' else 'all'}(it, {test})", ATOM, "bool")
        function = "avg" if name == "average" else name
        kind: Kind = "double" if function == "avg" else "any"
        if not conditions:
            return Cel(f"{function}({arguments[0].text})", ATOM, kind)
        inner = _Parser(conditions[0], self.resolve, self.odd_names)
        inner.row = "it"
        return Cel(f"{function}({items}.map(it, {inner.whole().cel.text}))", ATOM, kind)

    def _row_condition(self, source: str) -> str:
        inner = _Parser(source, self.resolve, self.odd_names)
        inner.row, inner.depth = "it", self.depth
        return inner.whole().cel.condition().text


def _selected(name: str | int) -> str:
    from_field = f".{name}" if isinstance(name, str) and re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) else ""
    return from_field or f"[{literal(name)}]"


def _indices(token: Token) -> list[str | int]:
    """`.0` is an index, and `.0.1`, read as one number, is two."""
    return [int(part) for part in token.text.split(".")] if token.kind == "number" else [token.text]


def _number(text: str) -> Cel:
    if "." not in text and int(text) >= 2**63:
        msg = f"{text[:30]} is outside the 64-bit range"
        raise FormulaError(msg)
    return Cel(text if "." in text else str(int(text)))


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", lambda match: {"n": "\n", "t": "\t"}.get(match[1], match[1]), text[1:-1], flags=re.DOTALL)
