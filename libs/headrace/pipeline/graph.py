"""Steps with their expressions compiled, and what depends on what. Every name is looked up, every cycle is found."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from headrace.contracts import names
from headrace.contracts.events import ToolSpec
from headrace.pipeline.builtin_tools import BUILTIN_TOOLS
from headrace.pipeline.cache_rules import check_cache
from headrace.pipeline.cel_library import ROOTS
from headrace.pipeline.checked import Checked, CheckedBlock, CheckedStep
from headrace.pipeline.cycles import find_cycle
from headrace.pipeline.definitions import blocks_of
from headrace.pipeline.expressions import Expression, Template
from headrace.pipeline.lookups import Lookups
from headrace.pipeline.outputs import output_fields
from headrace.pipeline.pending import PENDING
from headrace.pipeline.positions import Path
from headrace.pipeline.problems import shown
from headrace.pipeline.schema import KINDS, MODEL_DEFAULT
from headrace.pipeline.scopes import Scope, Visible
from headrace.pipeline.standby import Standbys
from headrace.pipeline.tool_args import check_arguments
from headrace.pipeline.validate import Report, check_instant, near

_BUILTIN_NAMESPACES: Final = tuple(sorted({name.split(".")[0] + "." for name in BUILTIN_TOOLS}))


def check_graph(
    document: Mapping[str, Any],
    report: Report,
    catalogue: Mapping[str, ToolSpec] | None,
    *,
    pending: Mapping[str, str] = PENDING,
) -> Checked:
    """Compile everything that is evaluated and check every reference. Problems go to the report.

    Args:
        document: Looked at by `check_shapes`; what is broken in the report is passed over, but its names are known.
    """
    return _Graph(document, report, catalogue, pending).check()


class _Graph:
    def __init__(
        self,
        document: Mapping[str, Any],
        report: Report,
        catalogue: Mapping[str, ToolSpec] | None,
        pending: Mapping[str, str],
    ) -> None:
        self.report, self.catalogue, self.pending = report, catalogue, pending
        self.broken = frozenset(report.broken)
        """As the shapes left it: problems found here do not hide what comes after them."""
        self.document = {key: value for key, value in document.items() if (key,) not in self.broken or key == "steps"}
        self.lookups = Lookups(report, document, pending)
        self.count = 0

    def check(self) -> Checked:
        """All of it, steps by id."""
        steps = self.document.get("steps", {})
        self._hide(steps)
        root = self._block(steps, ("steps",), Scope(), owner="", prefix="", depth=1)
        root.outputs = self._outputs(self.document, (), root)
        if self.count > names.STEPS_MAX and len(root.steps) <= names.STEPS_MAX:
            text = f"{self.count} steps, those inside of steps included"
            self.report.value(("steps",), "E1104", text, f"1 to {names.STEPS_MAX} are allowed")
        triggers = self.document.get("triggers", [])
        conditions = [self._trigger(trigger, ("triggers", index)) for index, trigger in enumerate(triggers)]
        return Checked(root, conditions, self._concurrency_key())

    def _hide(self, steps: Mapping[str, Any]) -> None:
        """Where the ids inside of steps are, for hints."""
        for owner, _, block in blocks_of(steps):
            for inner in block:
                self.lookups.hidden.setdefault(str(inner), owner)

    def _trigger(self, trigger: Mapping[str, Any], path: Path) -> str:
        scope = Scope().only("event", "vars")
        condition = None
        if "when" in trigger:
            condition = self.lookups.condition(trigger["when"], (*path, "when"), scope)
        self.lookups.template(trigger.get("inputs", {}), (*path, "inputs"), scope)
        declared = self.lookups.declared["inputs"]
        for name in trigger.get("inputs", {}):
            if name not in declared:
                self.report.key((*path, "inputs", name), "E1205", f"no input `{name}`", near(name, declared))
        return "" if condition is None else condition.source.strip()

    def _concurrency_key(self) -> Template | None:
        limits = self.document.get("limits", {})
        if "concurrency" not in limits:
            return None
        path: Path = ("limits", "concurrency", "key")
        return self.lookups.template(limits["concurrency"]["key"], path, Scope().only("inputs", "vars", "event"))

    # --- blocks ---

    def _block(
        self, steps: Mapping[str, Any], at: Path, around: Scope, *, owner: str, prefix: str, depth: int
    ) -> CheckedBlock:
        """The steps of one map, with everything inside of them."""
        block = CheckedBlock(at, [], {}, around)
        if depth > names.NESTING_MAX:
            self.report.key(at, "E1211", f"steps nested deeper than {names.NESTING_MAX}")
            return block
        self.count += len(steps)
        for step_id in steps:
            if step_id in around.steps or step_id in around.around:
                text = f"the id `{shown(step_id)[1:-1]}` is taken by a step outside"
                self.report.key((*at, step_id), "E1213", text, "a step inside may not hide one that it can read")
        sound = {key: body for key, body in steps.items() if (*at, key) not in self.broken}
        standbys = Standbys(sound, steps, at, self.report)
        visible = {
            str(key): Visible(
                output_fields(body, self.catalogue) if key in sound else None,
                is_map=key not in sound or "foreach" in body,
                standby=standbys.reason(key),
            )
            for key, body in steps.items()
        }
        block.scope = scope = around.inside(owner, visible)
        for step_id, body in sorted(sound.items()):
            step = self._step(step_id, body, (*at, step_id), scope, prefix=prefix, depth=depth)
            step.standby_for = standbys.owner_of(step_id)
            block.steps.append(step)
        self._dependencies(block, standbys, scope)
        return block

    def _outputs(self, body: Mapping[str, Any], at: Path, block: CheckedBlock) -> dict[str, Template]:
        """The outputs of a block: they see its steps."""
        return {
            name: self.lookups.template(tree, (*at, "outputs", name), block.scope)
            for name, tree in body.get("outputs", {}).items()
        }

    # --- one step ---

    def _step(
        self, step_id: str, body: Mapping[str, Any], at: Path, scope: Scope, *, prefix: str, depth: int
    ) -> CheckedStep:
        kind = next(key for key in KINDS if key in body)
        outside = scope.part_of(step_id)
        inside = outside
        if "foreach" in body:
            inside = outside.in_foreach(self._alias(body, at))
        elif "while" in body or "until" in body:
            inside = outside.in_while()
        step = CheckedStep(step_id, kind, body, at, prefix + step_id, inside, spec=self._spec(body, kind, at, inside))
        lookups = self.lookups
        if "foreach" in body:
            step.items = lookups.items(body["foreach"], (*at, "foreach"), outside)
        if "when" in body:
            step.when = lookups.condition(body["when"], (*at, "when"), inside if "foreach" in body else outside)
        for key in ("while", "until"):
            if key in body:
                step.condition = lookups.condition(body[key], (*at, key), inside)
        if "carry" in body:
            step.start = lookups.template(body["carry"], (*at, "carry"), outside)
        if "cache" in body:
            step.cache_key = lookups.template(body["cache"]["key"], (*at, "cache", "key"), inside)
        if isinstance(body.get("fallback"), dict):
            path: Path = (*at, "fallback", "value")
            step.fallback_value = lookups.template(body["fallback"]["value"], path, outside.part_of(""))
        self._tool(step)
        check_cache(step, self.report)
        self._label(step)
        if kind == "wait":
            check_instant(body["wait"], (*at, "wait"), self.report)
        self._inner_blocks(step, inside, depth)
        return step

    def _label(self, step: CheckedStep) -> None:
        if str(step.body.get("queue", "")).partition("-")[0] == "ws":
            at, hint = (*step.at, "queue"), "it marks queues of workspaces"
            self.report.value(at, "E1107", "a label may not begin with `ws`", hint)

    def _alias(self, body: Mapping[str, Any], at: Path) -> str:
        alias = str(body.get("as", "item"))
        if alias != "item" and alias in ROOTS:
            self.report.value((*at, "as"), "E1107", f"`{alias}` is reserved", "it is a name in every expression")
            return "item"
        return alias

    def _spec(self, body: Mapping[str, Any], kind: str, at: Path, scope: Scope) -> Template:
        """What the attempt is given, defaults applied."""
        lookups = self.lookups
        match kind:
            case "tool" | "pipeline":
                secrets = scope.with_secrets() if kind == "tool" else scope
                return lookups.template(body.get("with", {}), (*at, "with"), secrets)
            case "llm":
                model = self.document.get("defaults", {}).get("model", MODEL_DEFAULT)
                return self._model_call({"model": model, **body["llm"]}, (*at, "llm"), scope)
            case "transform":
                operations = isinstance(body["transform"], dict) and "from" in body["transform"]
                return lookups.template(body["transform"], (*at, "transform"), scope, operations=operations)
            case "wait":
                return lookups.template(body["wait"], (*at, "wait"), scope)
            case "approval":
                shown_tree = {"message": body["approval"]["message"]}
                return lookups.template(shown_tree, (*at, "approval"), scope)
            case "emit":
                return lookups.template({"data": body["emit"].get("data")}, (*at, "emit"), scope)
        return lookups.template({}, at, scope)

    def _model_call(self, tree: Mapping[str, Any], path: Path, scope: Scope) -> Template:
        """A model call; secrets are handed over in the provider's options only."""
        template = self.lookups.template(tree, path, scope.with_secrets())
        for found in template.found:
            if found.path[0] != "options" and any(read.root == "secrets" for read in found.expression.references):
                hint = "secrets are handed over in `with` and in a provider's `options` only"
                self.report.value((*path, *found.path), "E1305", "a secret cannot be read here", hint)
        return template

    def _inner_blocks(self, step: CheckedStep, scope: Scope, depth: int) -> None:
        body, at = step.body, step.at
        if step.kind == "steps":
            self._inner(step, body, at, scope, prefix=f"{step.path}/", depth=depth)
        elif step.kind == "switch":
            for number, case in enumerate(body["switch"]):
                here = (*at, "switch", number)
                prefix = f"{step.path}:{number}/"
                if "default" in case:
                    if number != len(body["switch"]) - 1:
                        self.report.key((*here, "default"), "E1111", "`default` is the last of the list")
                    self._inner(step, case["default"], (*here, "default"), scope, prefix=prefix, depth=depth)
                    continue
                when = self.lookups.condition(case["when"], (*here, "when"), scope)
                self._inner(step, case, here, scope, prefix=prefix, depth=depth)
                step.blocks[-1].when = when

    def _inner(
        self, step: CheckedStep, body: Mapping[str, Any], at: Path, scope: Scope, *, prefix: str, depth: int
    ) -> None:
        block = self._block(body["steps"], (*at, "steps"), scope, owner=step.id, prefix=prefix, depth=depth + 1)
        block.outputs = self._outputs(body, at, block)
        step.blocks.append(block)

    def _tool(self, step: CheckedStep) -> None:
        if step.kind == "tool":
            step.tool = self._known_tool(step.body["tool"], (*step.at, "tool"))
            if step.tool is not None:
                check_arguments(step.tool, step.body.get("with", {}), step.at, self.report)
        elif step.kind == "llm":
            given = step.body["llm"].get("tools", ())
            found = (self._known_tool(name, (*step.at, "llm", "tools", place)) for place, name in enumerate(given))
            step.tools = tuple(tool for tool in found if tool is not None)

    def _known_tool(self, name: str, at: Path) -> ToolSpec | None:
        """The tool, as far as it is known here. `mcp.files.*` stands for tools that are known when the step runs."""
        known = self.catalogue if self.catalogue is not None else BUILTIN_TOOLS
        is_ours = name.startswith(_BUILTIN_NAMESPACES)
        tool = known.get(name)
        if tool is None and (is_ours or (self.catalogue is not None and not name.endswith(".*"))):
            self.report.value(at, "E1204", f"no tool `{shown(name)[1:-1]}`", near(name, sorted(known)))
        return tool

    # --- what waits for what ---

    def _dependencies(self, block: CheckedBlock, standbys: Standbys, scope: Scope) -> None:
        own = {step.id for step in block.steps}
        declared = set(_at(self.document, block.at))
        for step in block.steps:
            needed = self._needs(step, declared, scope)
            read = dict.fromkeys(needed, True)
            for name, is_needed in reads_of(step.parts()):
                read[name] = read.get(name, False) or is_needed
            inner = inner_reads(step)
            for name in sorted({*read, *inner} - {step.id}):  # sets have an order that differs by process
                if name in own:
                    if not read.get(name, False):
                        step.optional.add(name)
                    step.after[name] = None
                elif name not in declared and read.get(name, False) and name in scope.steps:
                    step.outer[name] = None
        standbys.connect(block.steps)
        after = {step.id: list(step.after) for step in block.steps}
        done: set[str] = set()
        for start in after:
            cycle = find_cycle(start, after, done)
            if cycle:
                text = f"the steps wait for each other: {' → '.join(cycle)}"
                self.report.key((*block.at, cycle[0]), "E1203", text)

    def _needs(self, step: CheckedStep, declared: set[str], scope: Scope) -> list[str]:
        needs = step.body.get("needs", [])
        found = []
        for index, name in enumerate([needs] if isinstance(needs, str) else needs):
            at = (*step.at, "needs") if isinstance(needs, str) else (*step.at, "needs", index)
            if name == step.id:
                self.report.value(at, "E1202", f"step `{step.id}` needs itself")
            elif name in scope.around:
                text = f"step `{name}` cannot have run: this is a part of it"
                self.report.value(at, "E1215", text)
            elif name not in declared and name not in scope.steps:
                self._unknown(at, name, scope)
            elif scope.steps[name].standby:
                self.report.value(at, "E1215", f"step `{name}` cannot be needed: {scope.steps[name].standby}")
            else:
                found.append(name)
        return found

    def _unknown(self, at: Path, name: str, scope: Scope) -> None:
        if name in self.lookups.hidden:
            hint = f"it is inside of `{self.lookups.hidden[name]}`; need that"
            self.report.value(at, "E1201", f"no step `{name}` here", hint)
        else:
            self.report.value(at, "E1201", f"no step `{shown(name)[1:-1]}`", near(name, scope.steps))


def reads_of(parts: Iterable[Expression | Template]) -> Iterator[tuple[str, bool]]:
    """The steps that parts read, and whether they need them."""
    for part in parts:
        for name in part.reads:
            if name.startswith("steps."):
                yield name.removeprefix("steps.").rpartition(".")[0], name not in part.optional


def inner_reads(step: CheckedStep) -> set[str]:
    """The steps outside that steps inside of this one read or need."""
    found: set[str] = set()
    for block in step.blocks:
        own = {inner.id for inner in block.steps}
        parts: list[Expression | Template] = [*block.outputs.values()]
        found |= {name for name, _ in reads_of(parts if block.when is None else [*parts, block.when])} - own
        for inner in block.steps:
            found |= {name for name, _ in reads_of(inner.parts())} - own
            found |= {*inner.outer} | (inner_reads(inner) - own)
    return found


def _at(document: Mapping[str, Any], path: Path) -> Any:
    found: Any = document
    for step in path:
        found = found[step]
    return found
