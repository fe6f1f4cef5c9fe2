"""Expressions of CEL with how tightly they bind, and what old operators and functions are in CEL.

Truthiness has no counterpart in CEL, so it is spelled out: nil, false, "", [] and {} are false, 0 is true.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["bool", "text", "double", "any"]
FALSY: Final = '[null, false, "", [], {}]'
EMPTY: Final = '[null, "", [], {}]'
OR, AND, RELATION, SUM, PRODUCT, UNARY, ATOM = 1, 2, 3, 4, 5, 6, 7


@dataclass(slots=True, frozen=True)
class Cel:
    """An expression with how tightly it binds and what is known of its value."""

    text: str
    binds: int = ATOM
    kind: Kind = "any"

    def within(self, level: int) -> str:
        """In brackets where it binds less tightly than what is around it."""
        return self.text if self.binds >= level else f"({self.text})"

    def condition(self) -> "Cel":
        """The same as true or false."""
        if self.kind == "bool":
            return self
        return Cel(f"!({self.text} in {FALSY})", UNARY, "bool")


def as_text(cel: Cel) -> str:
    """The expression as text."""
    return cel.within(ATOM) if cel.kind == "text" else f"text({cel.text})"


def contains(left: Cel, right: Cel) -> Cel:
    """Part of a text, or member of a list: only the value tells, where it is not known to be text."""
    if left.kind == "text":
        return Cel(f"{left.within(ATOM)}.contains({as_text(right)})", ATOM, "bool")
    listed = f"type({left.text}) == list ? {right.within(SUM)} in {left.within(SUM)}"
    return Cel(f"{listed} : text({left.text}).contains({as_text(right)})", 0, "bool")


def alike(cel: Cel, other: Cel) -> Cel:
    """An integer beside a double as a double: CEL does not mix them."""
    return Cel(f"{cel.text}.0") if other.kind == "double" and cel.text.isdigit() else cel


def instant(cel: Cel, other: Cel) -> Cel:
    """Old results hold instants as text; beside `now()` they are compared as instants."""
    return Cel(f"timestamp({cel.text})") if "now()" in other.text and "now()" not in cel.text else cel


def between(value: Cel, low: Cel, high: Cel) -> Cel:
    """From `low` to `high`, both included."""
    text = f"{value.within(SUM)} >= {low.within(SUM)} && {value.within(SUM)} <= {high.within(SUM)}"
    return Cel(text, AND, "bool")


def exists(cel: Cel) -> Cel:
    """There is such a field, or something other than null."""
    if re.fullmatch(r"[\w.\[\]\"-]+\.[A-Za-z_]\w*", cel.text) and cel.text.count(".") > 1:
        return Cel(f"has({cel.text})", ATOM, "bool")
    return Cel(f"{cel.within(SUM)} != null", RELATION, "bool")


OVER_ITEMS: Final = frozenset({"any", "all", "count", "sum", "average", "min", "max"})
FUNCTIONS: Final[dict[str, tuple[int, Kind, str]]] = {
    "contains": (2, "bool", "contains"),
    "matches": (2, "bool", "{t0}.matches({1})"),
    "startsWith": (2, "bool", "{t0}.startsWith({1})"),
    "endsWith": (2, "bool", "{t0}.endsWith({1})"),
    "length": (1, "any", "size({0})"),
    "toLowerCase": (1, "text", "lower({t0})"),
    "toUpperCase": (1, "text", "upper({t0})"),
    "trim": (1, "text", "trim({t0})"),
    "isEmpty": (1, "bool", f"({{0}} in {EMPTY})"),
    "between": (3, "bool", "between"),
    "now": (0, "any", "now()"),
    "days": (1, "any", 'duration(text({0} * 24) + "h")'),
    "hours": (1, "any", 'duration(text({0}) + "h")'),
    "minutes": (1, "any", 'duration(text({0}) + "m")'),
    "seconds": (1, "any", 'duration(text({0}) + "s")'),
    "abs": (1, "any", "math.abs({0})"),
    "floor": (1, "any", "int(math.floor(double({0})))"),
    "ceil": (1, "any", "int(math.ceil(double({0})))"),
    "round": (1, "any", "int(math.round(double({0})))"),
    "sqrt": (1, "double", "math.sqrt(double({0}))"),
    "multiply": (2, "any", "{p0} * {p1}"),
    "add": (2, "any", "{p0} + {p1}"),
    "subtract": (2, "any", "{p0} - {p1}"),
    "divide": (2, "any", "{p0} / {p1}"),
}
"""Old function → number of arguments, kind of value, CEL. `{0}` the argument, `{t0}` as text, `{p0}` as an operand."""


def formatted(text: str, arguments: list[Cel], kind: Kind) -> Cel:
    """A function's form with its arguments in it."""
    if text == "contains":
        return contains(*arguments)
    if text == "between":
        return between(*arguments)
    made = text
    for index, argument in enumerate(arguments):
        forms = {f"{{{index}}}": argument.text, f"{{t{index}}}": as_text(argument)}
        forms[f"{{p{index}}}"] = argument.within(UNARY)
        made = re.sub(r"\{[tp]?" + str(index) + r"\}", lambda match, forms=forms: forms[match[0]], made)  # type: ignore[misc]  # the default binds this turn's map
    binds = PRODUCT if " * " in text and text[0] == "{" else SUM if text.startswith("{p0}") else ATOM
    return Cel(made, PRODUCT if text.startswith("{p0} /") else binds, kind)
