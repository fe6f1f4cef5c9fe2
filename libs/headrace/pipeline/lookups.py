"""Compiling what is evaluated in a file, and looking up every name it reads. Problems go to the report."""

import re
from collections.abc import Mapping
from typing import Any, Final

from headrace.pipeline import scanner
from headrace.pipeline.cel_library import LOOP_NAMES
from headrace.pipeline.evaluation import Expression, compile_expression, constant_expression
from headrace.pipeline.expression_faults import RefusedExpressionError
from headrace.pipeline.expressions import Template, compile_template
from headrace.pipeline.positions import Path
from headrace.pipeline.references import Reference
from headrace.pipeline.scopes import Scope
from headrace.pipeline.validate import Report, near

EVENT_FIELDS: Final = ("id", "type", "source", "time", "subject", "data", "due")
"""Of what triggered a run; `due` is that of a schedule, the others are a CloudEvent's."""
RUN_FIELDS: Final = ("id", "started_at", "attempt", "labels")
_IN_LOOP: Final = {"item": "foreach", "index": "foreach", "carry": "while` or `until", "iteration": "while` or `until"}
_PER_ITEM: Final = ("where", "select")
"""Operations of a `transform` that are evaluated for each item."""
Found = tuple[str, str, str, str]
"""What is wrong with a reference: code, text, hint, and the word to point at."""


class Lookups:
    """The names that a document declares, and what is not served yet."""

    def __init__(self, report: Report, document: Mapping[str, Any], pending: Mapping[str, str]) -> None:
        self.report, self.pending = report, pending
        declared = {name: document.get(name, {}) for name in ("inputs", "vars")}
        self.declared = {name: found if isinstance(found, dict) else {} for name, found in declared.items()}
        self.hidden: dict[str, str] = {}
        """Id of a step inside of a step → the id of the one around it."""

    def template(self, tree: Any, path: Path, scope: Scope, *, operations: bool = False) -> Template:
        """A JSON tree with expressions; `operations` for those of a `transform`."""
        inner = scope.in_foreach("item") if operations else scope
        try:
            template = compile_template(tree, loops=scope.loops, per_item=inner.loops if operations else None)
        except RefusedExpressionError as error:
            for fault in error.faults:
                at = (*path, *fault.path)
                self.report.inside(at, _string_at(tree, fault.path), fault.offset, "E1301", fault.text, fault.hint)
            return Template(source=tree, reads=frozenset(), optional=frozenset(), uses_files=False, tree=None)
        for below, start, source, expression, _ in template.found:
            is_inner = operations and below[0] in _PER_ITEM
            self._references(
                expression, (*path, *below), _string_at(tree, below), source, start, inner if is_inner else scope
            )
            if operations and below == ("where",):
                self._boolean(expression, (*path, *below))
            elif operations and below in (("from",), ("join", "with")):
                self._listed(expression, (*path, *below), str(below[0]))
        return template

    def expression(self, value: str, path: Path, scope: Scope) -> Expression | None:
        """An expression that may stand bare."""
        try:
            source, start = scanner.sole(value)
        except scanner.UnclosedExpressionError as error:
            self.report.inside(path, value, error.start, "E1301", str(error))
            return None
        except scanner.NotOneExpressionError as error:
            self.report.value(path, "E1303", str(error), "write it as one")
            return None
        try:
            expression = compile_expression(source, loops=scope.loops)
        except RefusedExpressionError as error:
            for fault in error.faults:
                self.report.inside(path, value, start + fault.offset, "E1301", fault.text, fault.hint)
            return None
        self._references(expression, path, value, source, start, scope)
        return expression

    def condition(self, value: str | bool, path: Path, scope: Scope) -> Expression | None:
        """An expression that gives true or false."""
        if isinstance(value, bool):
            return constant_expression(value)
        expression = self.expression(value, path, scope)
        if expression is not None:
            self._boolean(expression, path)
        return expression

    def _boolean(self, expression: Expression, path: Path) -> None:
        if expression.result_type not in ("BOOL", "DYN"):
            text = f"a condition is true or false, this gives {expression.result_type.lower()}"
            self.report.value(path, "E1304", text, "compare it with something")

    def items(self, value: str | list[Any], path: Path, scope: Scope) -> Expression | None:
        """An expression that gives a list, or a list of constants."""
        if isinstance(value, list):
            if _holds_expression(value):
                text = "a list of constants cannot hold expressions"
                self.report.value(path, "E1302", text, "write the whole list as one expression")
                return None
            return constant_expression(value)
        expression = self.expression(value, path, scope)
        if expression is not None:
            self._listed(expression, path, "foreach")
        return expression

    def _listed(self, expression: Expression, path: Path, what: str) -> None:
        if expression.result_type != "DYN" and not expression.result_type.startswith("LIST"):
            text = f"`{what}` takes a list, this gives {expression.result_type.lower()}"
            self.report.value(path, "E1304", text, "for a map, take its `keys()`")

    # --- names ---

    def _references(self, expression: Expression, path: Path, text: str, source: str, start: int, scope: Scope) -> None:
        """Look up every name an expression reads."""
        for reference in expression.references:
            found = self._problem(reference, scope)
            if found is not None:
                code, what, hint, word = found
                at_word = re.search(rf"\b{re.escape(word)}(?![\w-])", source)
                self.report.inside(path, text, start + (at_word.start() if at_word else 0), code, what, hint)

    def _pending(self, what: str, entry: str) -> tuple[str, str, str]:
        return "E1401", f"{what} cannot be read in this release yet", f"it waits for: {self.pending[entry]}"

    def _problem(self, reference: Reference, scope: Scope) -> Found | None:
        root, below = reference.root, reference.path
        loop = root.partition("_")[0]
        if loop in LOOP_NAMES:
            if root in scope.loops.values():
                return None
            if not scope.roots >= {"steps"}:
                return self._out_of_scope(root, scope)
            return "E1206", f"`{loop}` is known only in a step with `{_IN_LOOP[loop]}`", "", loop
        if root not in scope.roots:
            if root == "secrets" and "steps" in scope.roots:
                hint = "secrets are handed over in `with` and in a provider's `options` only"
                return "E1305", "a secret cannot be read here", hint, root
            return self._out_of_scope(root, scope)
        match root:
            case "steps":
                return self._step_problem(reference, scope)
            case "run":
                return self._run_problem(below)
            case "event" | "secrets" if "steps" in scope.roots and f"name:{root}" in self.pending:
                return *self._pending(f"`{root}`", f"name:{root}"), root
            case "event" if below and below[0] not in EVENT_FIELDS:
                return "E1205", f"an event has no `{below[0]}`", near(below[0], EVENT_FIELDS), below[0]
            case "secrets" if not below:
                return "E1305", "`secrets` alone is no value", "name one: `secrets.<NAME>`", root
            case "inputs" | "vars" if below and below[0] not in self.declared[root]:
                what = "input" if root == "inputs" else "variable"
                return "E1205", f"no {what} `{below[0]}`", near(below[0], self.declared[root]), below[0]
        return None

    def _out_of_scope(self, root: str, scope: Scope) -> Found:
        return "E1206", f"`{root}` is not in scope here", f"in scope are {', '.join(sorted(scope.roots))}", root

    def _run_problem(self, below: tuple[str, ...]) -> Found | None:
        if below and below[0] not in RUN_FIELDS:
            return "E1205", f"a run has no `{below[0]}`", near(below[0], RUN_FIELDS), below[0]
        return None

    def _step_problem(self, reference: Reference, scope: Scope) -> Found | None:
        step, attribute, *below = reference.path
        if step == scope.own:
            return "E1202", f"step `{step}` reads itself", "", step
        if step in scope.around:
            return "E1215", f"step `{step}` cannot have run: this is a part of it", "", step
        visible = scope.steps.get(step)
        if visible is None:
            if step in self.hidden:
                hint = f"it is inside of `{self.hidden[step]}`; give that an output"
                return "E1201", f"no step `{step}` here", hint, step
            return "E1201", f"no step `{step}`", near(step, scope.steps), step
        if visible.standby:
            return "E1215", f"step `{step}` cannot be read: {visible.standby}", "", step
        if attribute == "items" and not visible.is_map:
            return "E1214", f"step `{step}` has no items", "only a step with `foreach` has", "items"
        is_needed = attribute == "output" and bool(below) and reference.optional_from > 2
        if is_needed and visible.fields is not None and below[0] not in visible.fields:
            hint = near(below[0], sorted(visible.fields)) or "it gives null"
            return "E1214", f"step `{step}` has no output `{below[0]}`", hint, below[0]
        return None


def _holds_expression(value: Any) -> bool:
    match value:
        case str():
            return scanner.OPEN in value
        case dict():
            return any(_holds_expression(inner) for inner in value.values())
        case list():
            return any(_holds_expression(inner) for inner in value)
    return False


def _string_at(tree: Any, path: tuple[str | int, ...]) -> str:
    for step in path:
        tree = tree[step]
    return str(tree)
