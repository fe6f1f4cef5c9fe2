"""What a step's result comes from: its own definition, and the inputs and constants that it reads. Pure.

Two steps with one meaning and equal values for what they read give results that stand for one another. What only says
how a result is come by (retry, timeouts, priority, queue, parallelism, compensation, what its failure does to others)
is no part of the meaning.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from headrace.contracts.canonical import sha256_hex
from headrace.contracts.codec import encode_value
from headrace.pipeline.builtin_tools import BUILTIN_TOOLS
from headrace.pipeline.expressions import Expression, Template
from headrace.pipeline.plan import Block, Node, Plan


def meaning(plan: Plan, node: Node) -> str:
    """A hash over all that a step's result comes from, what is inside of it included."""
    return sha256_hex(encode_value(_node(plan, node)))


def _node(plan: Plan, node: Node) -> dict[str, Any]:
    told: dict[str, Any] = {
        "kind": node.kind,
        "spec": node.spec.source,
        "tool": [node.tool, node.version],
        "when": _source(node.when),
        "emit": node.emit,
        "artifacts": list(node.artifacts),
        "blocks": [_block(plan, plan.blocks[index]) for index in node.blocks],
    }
    if node.child is not None:
        told["child"] = [node.child.pipeline, node.child.digest]
    if node.foreach is not None:
        told["foreach"] = [_source(node.foreach.items), node.foreach.continue_on_error]
    if node.loop is not None:
        loop = node.loop
        start = None if loop.start is None else loop.start.source
        told["loop"] = [_source(loop.condition), loop.is_until, loop.max_iterations, loop.ok_on_limit, start]
    if node.signal is not None:
        told["signal"] = [node.signal.name, _plain(node.signal.schema)]
    if node.approval is not None:
        told["approval"] = list(node.approval.by)
    if node.fallback is not None:
        value, standby = node.fallback.value, node.fallback.node
        told["fallback"] = [
            None if value is None else value.source,
            None if standby is None else [plan.nodes[standby].id, _node(plan, plan.nodes[standby])],
        ]
    return told


def _block(plan: Plan, block: Block) -> dict[str, Any]:
    nodes = [plan.nodes[index] for index in block.nodes]
    return {
        "when": _source(block.when),
        "outputs": {name: template.source for name, template in block.outputs.items()},
        "steps": {node.id: [_node(plan, node), [plan.nodes[need].id for need in node.needs]] for node in nodes},
    }


def _source(expression: Expression | None) -> str:
    return "" if expression is None else expression.source


def _plain(schema: Any) -> Any:
    return dict(schema) if hasattr(schema, "keys") else schema


# --- what it reads -----------------------------------------------------------------------------


def reads(plan: Plan, node: Node, root: str) -> frozenset[str] | None:
    """Which members of `inputs` or `vars` a step and what is inside of it read; None when it may be any of them."""
    names: set[str] = set()
    for expression in _expressions(plan, node):
        for reference in expression.references:
            if reference.root != root:
                continue
            if not reference.path:
                return None
            names.add(reference.path[0])
    return frozenset(names)


def _expressions(plan: Plan, node: Node) -> Iterator[Expression]:
    yield from _of_template(node.spec)
    yield from _present(node.when)
    if node.foreach is not None:
        yield node.foreach.items
    if node.loop is not None:
        yield node.loop.condition
        if node.loop.start is not None:
            yield from _of_template(node.loop.start)
    if node.fallback is not None:
        if node.fallback.value is not None:
            yield from _of_template(node.fallback.value)
        if node.fallback.node is not None:
            yield from _expressions(plan, plan.nodes[node.fallback.node])
    for index in node.blocks:
        block = plan.blocks[index]
        yield from _present(block.when)
        for template in block.outputs.values():
            yield from _of_template(template)
        for inner in block.nodes:
            yield from _expressions(plan, plan.nodes[inner])


def _present(expression: Expression | None) -> Iterable[Expression]:
    return () if expression is None else (expression,)


def _of_template(template: Template) -> Iterator[Expression]:
    return (found.expression for found in template.found)


# --- what it leaves behind ---------------------------------------------------------------------


def leaves_files(plan: Plan, node: Node) -> bool:
    """True when a step, or one inside of it, may write in the run's workspace, which is that run's own."""
    tools = [node.tool] if node.kind == "tool" else _offered(node)
    return (node.workspace and any(_writes(tool) for tool in tools)) or any(
        leaves_files(plan, plan.nodes[inner]) for index in node.blocks for inner in plan.blocks[index].nodes
    )


def _offered(node: Node) -> list[str]:
    """The tools that a model may call."""
    offered = node.spec.source.get("tools") if node.kind == "llm" and isinstance(node.spec.source, dict) else None
    return [str(tool) for tool in offered or ()]


def _writes(tool: str) -> bool:
    """Of tools that are not built in nobody knows here what they do."""
    return tool not in BUILTIN_TOOLS or BUILTIN_TOOLS[tool].risk != "read"


def undoes(plan: Plan, node: Node) -> bool:
    """True when a step, or one inside of it, is undone when its run fails or is cancelled."""
    return node.compensate is not None or any(
        undoes(plan, plan.nodes[inner]) for index in node.blocks for inner in plan.blocks[index].nodes
    )
