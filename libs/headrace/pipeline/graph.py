"""Steps with their expressions compiled, and what depends on what. Every name is looked up, every cycle is found."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from headrace.contracts.events import ToolSpec
from headrace.pipeline import scanner
from headrace.pipeline.builtin_tools import BUILTIN_TOOLS
from headrace.pipeline.expression_faults import RefusedExpressionError
from headrace.pipeline.expressions import (
    Expression,
    Template,
    compile_expression,
    compile_template,
    constant_expression,
)
from headrace.pipeline.positions import Path
from headrace.pipeline.problems import shown
from headrace.pipeline.schema import KINDS, MODEL_DEFAULT
from headrace.pipeline.tool_args import check_arguments
from headrace.pipeline.validate import Report, check_instant, near

_BUILTIN_NAMESPACES: Final = tuple(sorted({name.split(".")[0] + "." for name in BUILTIN_TOOLS}))


@dataclass(slots=True)
class CheckedStep:
    """A step whose parts compile. `after` holds the steps it waits for; those in `optional` may be skipped."""

    id: str
    kind: str
    body: Mapping[str, Any]
    spec: Template
    when: Expression | None = None
    items: Expression | None = None
    tool: ToolSpec | None = None
    after: dict[str, None] = field(default_factory=dict)
    optional: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Checked:
    """A document's steps and outputs, compiled."""

    steps: list[CheckedStep]
    outputs: dict[str, Template]
    triggers: list[str]
    """The condition of each trigger as a bare expression, empty where there is none."""


def check_graph(
    document: Mapping[str, Any],
    sound: Mapping[str, Any],
    report: Report,
    catalogue: Mapping[str, ToolSpec] | None,
) -> Checked:
    """Compile everything that is evaluated and check every reference. Problems go to the report.

    Args:
        document: Whole, for the names it declares.
        sound: What of it can be looked at, see `check_shapes`.
    """
    return _Graph(document, sound, report, catalogue).check()


class _Graph:
    def __init__(
        self,
        document: Mapping[str, Any],
        sound: Mapping[str, Any],
        report: Report,
        catalogue: Mapping[str, ToolSpec] | None,
    ) -> None:
        self.document, self.report, self.catalogue = sound, report, catalogue
        self.ids: Mapping[str, Any] = document["steps"]
        self.order = {step_id: index for index, step_id in enumerate(sorted(self.ids))}
        """By id, not by place in the file: files that differ only in order are one definition with one digest."""
        declared = {name: document.get(name, {}) for name in ("inputs", "vars")}
        self.known = {name: found if isinstance(found, dict) else {} for name, found in declared.items()}

    def check(self) -> Checked:
        """All of it, steps by id."""
        steps = [self._step(step_id, body) for step_id, body in sorted(self.document["steps"].items())]
        outputs = {
            name: self._template(tree, ("outputs", name)) for name, tree in self.document.get("outputs", {}).items()
        }
        triggers = self.document.get("triggers", [])
        conditions = [self._trigger(trigger, ("triggers", index)) for index, trigger in enumerate(triggers)]
        self._cycles(steps)
        return Checked(steps, outputs, conditions)

    def _trigger(self, trigger: Mapping[str, Any], path: Path) -> str:
        only = frozenset({"event", "vars"})
        condition = self._condition(trigger["when"], (*path, "when"), only=only) if "when" in trigger else None
        self._template(trigger.get("inputs", {}), (*path, "inputs"), only=only)
        for name in trigger.get("inputs", {}):
            if name not in self.known["inputs"]:
                self.report.key(
                    (*path, "inputs", name), "E1205", f"no input `{name}`", near(name, self.known["inputs"])
                )
        return "" if condition is None else condition.source.strip()

    def _step(self, step_id: str, body: Mapping[str, Any]) -> CheckedStep:
        path: Path = ("steps", step_id)
        kind = next(key for key in KINDS if key in body)
        item = str(body.get("as", "item")) if "foreach" in body else ""
        step = CheckedStep(step_id, kind, body, self._spec(body, kind, path, item))
        if "foreach" in body:
            step.items = self._items(body["foreach"], (*path, "foreach"))
        if "when" in body:
            step.when = self._condition(body["when"], (*path, "when"), item=item)
        self._tool(step, path)
        if kind == "wait":
            check_instant(body["wait"], (*path, "wait"), self.report)
        self._dependencies(step, path)
        return step

    def _spec(self, body: Mapping[str, Any], kind: str, path: Path, item: str) -> Template:
        """What the attempt is given, defaults applied."""
        if kind in ("tool", "pipeline"):
            return self._template(body.get("with", {}), (*path, "with"), item=item)
        tree = body[kind]
        if kind == "llm":
            model = self.document.get("defaults", {}).get("model", MODEL_DEFAULT)
            tree = {"model": model, **tree}
        return self._template(tree, (*path, kind), item=item)

    def _dependencies(self, step: CheckedStep, path: Path) -> None:
        needs = step.body.get("needs", [])
        for index, name in enumerate([needs] if isinstance(needs, str) else needs):
            at = (*path, "needs") if isinstance(needs, str) else (*path, "needs", index)
            if name == step.id:
                self.report.value(at, "E1202", f"step `{step.id}` needs itself")
            elif name not in self.ids:
                self.report.value(at, "E1201", f"no step `{shown(name)[1:-1]}`", near(name, self.ids))
            else:
                step.after[name] = None
        read: dict[str, bool] = {}
        parts = [part for part in (step.when, step.items, step.spec) if part is not None]
        for part in parts:
            for name in part.reads:
                if name.startswith("steps."):
                    other = name.removeprefix("steps.").rpartition(".")[0]
                    read[other] = read.get(other, False) or name not in part.optional
        known = [other for other in read if other in self.order and other != step.id]
        for other in sorted(known, key=self.order.__getitem__):  # sets have an order that differs by process
            if not read[other] and other not in step.after:
                step.optional.add(other)
            step.after[other] = None

    # --- expressions ---

    def _template(self, tree: Any, path: Path, *, item: str = "", only: frozenset[str] = frozenset()) -> Template:
        try:
            template = compile_template(tree, item_name=item or "item")
        except RefusedExpressionError as error:
            for fault in error.faults:
                at = (*path, *fault.path)
                self.report.inside(at, _string_at(tree, fault.path), fault.offset, "E1301", fault.text, fault.hint)
            return Template(source=tree, reads=frozenset(), optional=frozenset(), uses_files=False, tree=None)
        for below, start, source, expression in template.found:
            if expression.references:
                text = _string_at(tree, below)
                self._references(expression, (*path, *below), text, source, start, item=item, only=only)
        return template

    def _bare(self, value: str, path: Path) -> tuple[str, int] | None:
        """The source of an expression that may stand bare or inside `${{ }}`, and where in the text it begins."""
        if scanner.OPEN not in value:
            return value, 0
        try:
            pieces = [piece for piece in scanner.pieces(value) if piece.is_expression or piece.text.strip()]
        except scanner.UnclosedExpressionError as error:
            self.report.inside(path, value, error.start, "E1301", str(error))
            return None
        if len(pieces) != 1 or not pieces[0].is_expression:
            self.report.value(
                path, "E1303", "one expression is expected, this is text with expressions", "write it as one"
            )
            return None
        return pieces[0].text, pieces[0].start

    def _expression(
        self, value: str, path: Path, *, item: str = "", only: frozenset[str] = frozenset()
    ) -> Expression | None:
        bare = self._bare(value, path)
        if bare is None:
            return None
        source, start = bare
        try:
            expression = compile_expression(source, item_name=item or "item")
        except RefusedExpressionError as error:
            for fault in error.faults:
                self.report.inside(path, value, start + fault.offset, "E1301", fault.text, fault.hint)
            return None
        self._references(expression, path, value, source, start, item=item, only=only)
        return expression

    def _condition(
        self, value: str | bool, path: Path, *, item: str = "", only: frozenset[str] = frozenset()
    ) -> Expression | None:
        if isinstance(value, bool):
            return constant_expression(value)
        expression = self._expression(value, path, item=item, only=only)
        if expression is not None and expression.result_type not in ("BOOL", "DYN"):
            text = f"a condition is true or false, this gives {expression.result_type.lower()}"
            self.report.value(path, "E1304", text, "compare it with something")
        return expression

    def _items(self, value: str | list[Any], path: Path) -> Expression | None:
        if isinstance(value, list):
            if scanner.OPEN in json.dumps(value, ensure_ascii=False):
                text = "a list of constants cannot hold expressions"
                self.report.value(path, "E1302", text, "write the whole list as one expression")
                return None
            return constant_expression(value)
        expression = self._expression(value, path)
        if expression is not None and expression.result_type != "DYN" and not expression.result_type.startswith("LIST"):
            text = f"`foreach` takes a list, this gives {expression.result_type.lower()}"
            self.report.value(path, "E1304", text, "for a map, take its `keys()`")
        return expression

    def _references(
        self, expression: Expression, path: Path, text: str, source: str, start: int, *, item: str, only: frozenset[str]
    ) -> None:
        """Look up every name an expression reads."""
        for reference in expression.references:
            found = self._reference_problem(reference.root, reference.path, path, item, only)
            if found is not None:
                word = reference.path[0] if found[0] != "E1206" and reference.path else reference.root
                at = re.search(rf"\b{re.escape(word)}(?![\w-])", source)
                self.report.inside(path, text, start + (at.start() if at else 0), *found)

    def _reference_problem(
        self, root: str, below: tuple[str, ...], path: Path, item: str, only: frozenset[str]
    ) -> tuple[str, str, str] | None:
        if only and root not in only:
            return "E1206", f"`{root}` is not in scope here", f"in scope are {', '.join(sorted(only))}"
        if root in ("item", "index") and not item:
            return "E1206", f"`{root}` is known only in a step with `foreach`", ""
        if root == "steps":
            if below[0] not in self.ids:
                return "E1201", f"no step `{below[0]}`", near(below[0], self.ids)
            if path[:2] == ("steps", below[0]):
                return "E1202", f"step `{below[0]}` reads itself", ""
        if root in self.known and below and below[0] not in self.known[root]:
            what = "input" if root == "inputs" else "variable"
            return "E1205", f"no {what} `{below[0]}`", near(below[0], self.known[root])
        return None

    # --- tools ---

    def _tool(self, step: CheckedStep, path: Path) -> None:
        if step.kind != "tool":
            return
        name = step.body["tool"]
        known = self.catalogue if self.catalogue is not None else BUILTIN_TOOLS
        step.tool = known.get(name)
        if step.tool is None:
            if self.catalogue is not None or name.startswith(_BUILTIN_NAMESPACES):
                self.report.value((*path, "tool"), "E1204", f"no tool `{shown(name)[1:-1]}`", near(name, sorted(known)))
            return
        check_arguments(step.tool, step.body.get("with", {}), path, self.report)

    # --- cycles ---

    def _cycles(self, steps: Iterable[CheckedStep]) -> None:
        after = {step.id: list(step.after) for step in steps}
        done: set[str] = set()
        for start in after:
            cycle = _find_cycle(start, after, done)
            if cycle:
                self.report.key(("steps", cycle[0]), "E1203", f"the steps wait for each other: {' → '.join(cycle)}")


def _find_cycle(start: str, after: Mapping[str, list[str]], done: set[str]) -> list[str]:
    """A cycle reachable from a step, as `a, b, c, a` in the order of waiting; empty when there is none."""
    if start in done:
        return []
    trail = [start]
    open_ = [iter(after[start])]
    on_trail = {start}
    while trail:
        following = next(open_[-1], None)
        if following is None:
            done.add(trail[-1])
            on_trail.discard(trail.pop())
            open_.pop()
        elif following in on_trail:
            done.update(trail)
            return [*trail[trail.index(following) :], following]
        elif following not in done and following in after:
            trail.append(following)
            on_trail.add(following)
            open_.append(iter(after[following]))
    return []


def _string_at(tree: Any, path: tuple[str | int, ...]) -> str:
    for step in path:
        tree = tree[step]
    return str(tree)
