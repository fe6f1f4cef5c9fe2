"""Expressions and templates, as everybody else uses them: compile, see what is read, evaluate, render.

A template is a JSON tree in which strings hold `${{ … }}`. A string that is exactly one expression, blanks around it
not counted, keeps the value's type; inside longer text it becomes text. What was rendered is never evaluated again.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

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
from headrace.pipeline.operations import JOINED, MARK, PER_ITEM, Operations
from headrace.pipeline.operations import run as run_operations

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


class Template(msgspec.Struct, frozen=True):
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
    bound: frozenset[str] = frozenset()
    """What the template itself gives it: the item of an operation."""


class _Text(msgspec.Struct, frozen=True):
    """A string with expressions inside."""

    parts: tuple[str | Expression, ...]


class _Branch(msgspec.Struct, frozen=True):
    """A map or a list that has an expression somewhere below."""

    keys: tuple[str, ...] | None
    children: tuple[Any, ...]


class _Constant(msgspec.Struct, frozen=True):
    value: Any


def compile_template(
    tree: Any, *, loops: Mapping[str, str] | None = None, per_item: Mapping[str, str] | None = None
) -> Template:
    """Compile every `${{ … }}` in the strings of a JSON tree, keys excepted. Errors as `compile_expression`.

    Args:
        loops: As of `compile_expression`; None for a tree that is the `source` of a template.
        per_item: Given for the operations of a `transform`, which the tree then is: `loops` of what is evaluated for
            each item.
    """
    compiler = _TemplateCompiler(loops)
    node, source = compiler.compile(tree, ()) if per_item is None else compiler.operations(tree, per_item)
    if compiler.faults:
        raise RefusedExpressionError(tree, tuple(compiler.faults))
    reads, required, uses_files = set[str](), set[str](), False
    for found in compiler.found:
        expression = found.expression
        reads |= expression.reads - found.bound
        required |= expression.reads - expression.optional - found.bound
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
    def __init__(self, loops: Mapping[str, str] | None) -> None:
        self.loops = loops
        self.bound = frozenset[str]()
        self.found: list[Found] = []
        self.faults: list[Fault] = []

    def compile(self, tree: Any, path: tuple[str | int, ...]) -> tuple[Any, Any]:
        """The compiled node and its source, in which the names of loops are those of compiled expressions."""
        keys: tuple[str, ...] | None = None
        match tree:
            case str() if scanner.OPEN in tree:
                return self._string(tree, path)
            case dict() if MARK in tree:
                return self._marked(tree)
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
        constants = [child.value for child in children if isinstance(child, _Constant)]
        if len(constants) == len(children):  # not the source: that has `$${{` where the value has `${{`
            return _Constant(constants if keys is None else dict(zip(keys, constants, strict=True))), source
        return _Branch(keys, children), source

    def _marked(self, tree: dict[str, Any]) -> tuple[Any, Any]:
        """Operations that were compiled before: their names are compiled ones."""
        item, index = tree["item"], tree["index"]
        return self.operations(tree[MARK], None, item=item, index=index)

    def operations(
        self, tree: Mapping[str, Any], per_item: Mapping[str, str] | None, *, item: str = "", index: str = ""
    ) -> tuple[Any, Any]:
        """The operations of a `transform`."""
        loops = self.loops
        if per_item is not None:
            item, index = per_item["item"], per_item["index"]
        nodes: dict[str, Any] = {}
        sources: dict[str, Any] = {}
        for key, value in tree.items():
            is_inner = key in PER_ITEM
            self.loops, self.bound = (per_item, frozenset({item, index})) if is_inner else (loops, frozenset())
            nodes[key], sources[key] = self._operation(key, value, (key,))
        self.loops, self.bound = loops, frozenset()
        join = nodes.get("join", {})
        made = Operations(
            source_list=nodes["from"],
            item_name=item,
            index_name=index,
            partners=join.get("with"),
            on=join.get("on", ""),
            joined=join.get("as", JOINED),
            keeps_lonely=join.get("kind") == "left",
            where=nodes.get("where"),
            select=nodes.get("select"),
            has_select="select" in nodes,
            unique=tree.get("unique"),
            group_by=tree.get("group_by"),
            aggregate=_aggregates(tree["aggregate"]) if "aggregate" in tree else None,
            sort_by=tree.get("sort_by"),
            limit=nodes.get("limit"),
            has_limit="limit" in nodes,
        )
        return made, {MARK: sources, "item": item, "index": index}

    def _operation(self, key: str, value: Any, path: tuple[str | int, ...]) -> tuple[Any, Any]:
        match key:
            case "from" | "where":
                return self._bare(value, path)
            case "join":
                node, source = self._bare(value["with"], (*path, "with"))
                return {**value, "with": node}, {**value, "with": source}
            case "select" | "limit":
                return self.compile(value, path)
        return value, value

    def _bare(self, value: Any, path: tuple[str | int, ...]) -> tuple[Any, Any]:
        """An expression that may stand without `${{ }}`, or a constant."""
        if not isinstance(value, str):
            return self.compile(value, path) if isinstance(value, list) else (constant_expression(value), value)
        try:
            source, start = scanner.sole(value)
            expression = compile_expression(source, loops=self.loops)
        except scanner.UnclosedExpressionError as error:
            self.faults.append(Fault(path, error.start, str(error)))
        except scanner.NotOneExpressionError as error:
            self.faults.append(Fault(path, 0, str(error), "write it as one"))
        except RefusedExpressionError as error:
            self.faults += [Fault(path, start + fault.offset, fault.text, fault.hint) for fault in error.faults]
        else:
            self.found.append(Found(path, start, source, expression, self.bound))
            return expression, f"${{{{{expression.source}}}}}"
        return constant_expression(None), value

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
                expression = compile_expression(piece.text, loops=self.loops)
            except RefusedExpressionError as error:
                self.faults += [
                    Fault(path, piece.start + fault.offset, fault.text, fault.hint) for fault in error.faults
                ]
                continue
            self.found.append(Found(path, piece.start, piece.text, expression, self.bound))
            parts.append(expression)
            sources.append(f"${{{{{expression.source}}}}}")
        if len(parts) == 1:
            only = parts[0]
            return (_Constant(only) if isinstance(only, str) else only), "".join(sources)
        return _Text(tuple(parts)), "".join(sources)


def _aggregates(tree: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    return {name: next(iter(spec.items())) for name, spec in tree.items()}


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
        case Operations():
            return run_operations(node, values, files, _rendered)
    raise AssertionError(node)
