"""Expressions and templates, as everybody else uses them: compile, see what is read, evaluate, render.

A template is a JSON tree in which strings hold `${{ … }}`. A string that is exactly one expression, blanks around it
not counted, keeps the value's type; inside longer text it becomes text. What was rendered is never evaluated again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from headrace.pipeline import scanner
from headrace.pipeline.evaluation import (
    Expression,
    FileReader,
    compile_expression,
    constant_expression,
    evaluate,
    evaluate_condition,
)
from headrace.pipeline.expression_faults import Fault, RefusedExpressionError
from headrace.pipeline.functions import as_text

__all__ = [
    "Expression",
    "FileReader",
    "RefusedExpressionError",
    "Template",
    "compile_expression",
    "compile_template",
    "constant_expression",
    "evaluate",
    "evaluate_condition",
    "render",
]


@dataclass(slots=True, frozen=True)
class Template:
    """A JSON tree in which strings may hold `${{ … }}`."""

    source: Any
    """The tree as written, with defaults applied: an executor compiles it again from here."""
    reads: frozenset[str]
    optional: frozenset[str]
    uses_files: bool
    tree: Any
    found: tuple["Found", ...] = ()
    """Every expression with its place, for checks against what is declared."""


class Found(NamedTuple):
    """An expression of a template: which string it stands in, where its source begins there, and the source."""

    path: tuple[str | int, ...]
    start: int
    source: str
    expression: Expression


@dataclass(slots=True, frozen=True)
class _Text:
    """A string with expressions inside."""

    parts: tuple[str | Expression, ...]


@dataclass(slots=True, frozen=True)
class _Branch:
    """A map or a list that has an expression somewhere below."""

    keys: tuple[str, ...] | None
    children: tuple[Any, ...]


@dataclass(slots=True, frozen=True)
class _Constant:
    value: Any


def compile_template(tree: Any, *, item_name: str = "item") -> Template:
    """Compile every `${{ … }}` in the strings of a JSON tree, keys excepted. Raises as `compile_expression`."""
    compiler = _TemplateCompiler(item_name)
    node, source = compiler.compile(tree, ())
    if compiler.faults:
        raise RefusedExpressionError(tree, tuple(compiler.faults))
    reads, required, uses_files = set[str](), set[str](), False
    for _, _, _, expression in compiler.found:
        reads |= expression.reads
        required |= expression.reads - expression.optional
        uses_files |= expression.uses_files
    return Template(
        source=source,
        reads=frozenset(reads),
        optional=frozenset(reads - required),
        uses_files=uses_files,
        tree=node,
        found=tuple(compiler.found),
    )


class _TemplateCompiler:
    def __init__(self, item_name: str) -> None:
        self.item_name = item_name
        self.found: list[Found] = []
        self.faults: list[Fault] = []

    def compile(self, tree: Any, path: tuple[str | int, ...]) -> tuple[Any, Any]:
        """The compiled node and its source, in which an item has its own name again."""
        keys: tuple[str, ...] | None = None
        match tree:
            case str() if scanner.OPEN in tree:
                return self._string(tree, path)
            case dict():
                made = [self.compile(value, (*path, key)) for key, value in tree.items()]
                source: Any = dict(zip(tree, (source for _, source in made), strict=True))
                keys = tuple(tree)
            case list() | tuple():
                made = [self.compile(value, (*path, index)) for index, value in enumerate(tree)]
                source = [source for _, source in made]
            case _:
                return _Constant(tree), tree
        children = tuple(node for node, _ in made)
        if all(isinstance(child, _Constant) for child in children):
            return _Constant(source), source
        return _Branch(keys, children), source

    def _string(self, text: str, path: tuple[str | int, ...]) -> tuple[Any, str]:
        try:
            pieces = scanner.pieces(text)
        except scanner.UnclosedExpressionError as error:
            self.faults.append(Fault(path, error.start, str(error)))
            return _Constant(text), text
        if [piece.is_expression for piece in pieces if piece.is_expression or piece.text.strip()] == [True]:
            pieces = [piece for piece in pieces if piece.is_expression]  # blanks around a lone expression are layout
        parts: list[str | Expression] = []
        sources: list[str] = []
        for piece in pieces:
            if not piece.is_expression:
                parts.append(piece.text)
                sources.append(piece.text.replace(scanner.OPEN, "$" + scanner.OPEN))
                continue
            try:
                expression = compile_expression(piece.text, item_name=self.item_name)
            except RefusedExpressionError as error:
                self.faults += [
                    Fault(path, piece.start + fault.offset, fault.text, fault.hint) for fault in error.faults
                ]
                continue
            self.found.append(Found(path, piece.start, piece.text, expression))
            parts.append(expression)
            sources.append(f"${{{{{expression.source}}}}}")
        if len(parts) == 1:
            only = parts[0]
            return (_Constant(only) if isinstance(only, str) else only), "".join(sources)
        return _Text(tuple(parts)), "".join(sources)


def render(template: Template, values: Mapping[str, Any], *, files: FileReader | None = None) -> Any:
    """The tree with every expression replaced: a string that is exactly one expression takes the value's type."""
    return _rendered(template.tree, values, files)


def _rendered(node: Any, values: Mapping[str, Any], files: FileReader | None) -> Any:
    match node:
        case _Constant(value=value):
            return value
        case Expression():
            return evaluate(node, values, files=files)
        case _Text(parts=parts):
            return "".join(
                part if isinstance(part, str) else as_text(evaluate(part, values, files=files)) for part in parts
            )
        case _Branch(keys=keys, children=children):
            made = [_rendered(child, values, files) for child in children]
            return made if keys is None else dict(zip(keys, made, strict=True))
    raise AssertionError(node)
