"""CEL behind one module: compile, see what is read, evaluate. Nothing else in Headrace knows which library it is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True, frozen=True)
class Expression:
    """A compiled expression."""

    source: str
    reads: frozenset[str]
    """Dotted names whose values are needed: `inputs`, `vars`, `item`, `index`, `run`, `event`, `steps.<id>.output|status|attempts|error|usage`."""
    optional: frozenset[str]
    """Those of `reads` that the expression can do without (`steps.?a.?output`)."""
    uses_files: bool
    """Calls `file(path)`: only an executor can evaluate it."""
    program: Any


@dataclass(slots=True, frozen=True)
class Template:
    """A JSON tree in which strings may hold `${{ … }}`."""

    source: Any
    """The tree as written, with defaults applied: an executor compiles it again from here."""
    reads: frozenset[str]
    optional: frozenset[str]
    uses_files: bool
    tree: Any


FileReader = Callable[[str], str]


def compile_expression(source: str) -> Expression:
    """Compile one expression (without `${{ }}`).

    Raises:
        ExpressionError: syntax, unknown name, wrong overload; the text has line and column inside the source.
    """
    raise NotImplementedError


def compile_template(tree: Any) -> Template:
    """Compile every `${{ … }}` in the strings of a JSON tree. Raises as `compile_expression`."""
    raise NotImplementedError


def evaluate(expression: Expression, values: Mapping[str, Any], *, files: FileReader | None = None) -> Any:
    """The expression's JSON value.

    Args:
        values: Dotted name (as in `reads`) → JSON value. A missing optional one is absent.
        files: How `file(path)` reads; None where files may not be read.

    Raises:
        ExpressionError: no value: `expr_eval`, `expr_cost`, `type_mismatch`.
    """
    raise NotImplementedError


def evaluate_condition(expression: Expression, values: Mapping[str, Any]) -> bool:
    """As `evaluate`, for conditions: a value that is not a boolean is `type_mismatch`."""
    raise NotImplementedError


def render(template: Template, values: Mapping[str, Any], *, files: FileReader | None = None) -> Any:
    """The tree with every expression replaced: a string that is exactly one expression takes the value's type."""
    raise NotImplementedError
