"""A plan as a Mermaid flowchart: text that many editors and forges draw."""

from collections.abc import Iterator
from typing import Final

from headrace.pipeline.overview import what
from headrace.pipeline.plan import Node, Plan

_SHAPES: Final = {
    "llm": ("([", "])"),
    "tool": ("[", "]"),
    "transform": ("[/", "/]"),
    "pipeline": ("[[", "]]"),
    "wait": ("((", "))"),
    "signal": (">", "]"),
    "approval": ("{{", "}}"),
    "emit": ("[\\", "/]"),
}


def mermaid(plan: Plan) -> str:
    """The graph: groups are subgraphs, a dotted arrow is an order without a need, a thick one stands in or undoes."""
    lines = ["flowchart TD", *_block(plan, 0, "  ")]
    for node in plan.nodes:
        for other in node.needs:
            lines.append(f"  n{other} {'-.->' if other in node.optional else '-->'} n{node.index}")
        if node.fallback is not None and node.fallback.node is not None:
            lines.append(f"  n{node.index} ==>|fallback| n{node.fallback.node}")
        if node.compensate is not None:
            lines.append(f"  n{node.index} ==>|undone by| n{node.compensate}")
    return "\n".join(lines) + "\n"


def _block(plan: Plan, number: int, indent: str) -> Iterator[str]:
    for index in plan.blocks[number].nodes:
        node = plan.nodes[index]
        if not node.blocks:
            opening, closing = _SHAPES[node.kind]
            yield f'{indent}n{index}{opening}"{_label(node)}"{closing}'
            continue
        yield f'{indent}subgraph n{index}["{_label(node)}"]'
        for place, block in enumerate(node.blocks):
            inner = indent + "  "
            if node.kind == "switch":
                when = plan.blocks[block].when
                case = "default" if when is None else _short(when.shown)
                yield f'{inner}subgraph n{index}c{place}["{_escaped(case)}"]'
                yield from _block(plan, block, inner + "  ")
                yield f"{inner}end"
            else:
                yield from _block(plan, block, inner)
        yield f"{indent}end"


def _label(node: Node) -> str:
    return "<br/>".join(_escaped(line) for line in labels(node))


def labels(node: Node) -> list[str]:
    """What stands in a step's box: its id, what it does, and how often."""
    kind = {"steps": "group"}.get(node.kind, node.kind)
    found = [node.id, " ".join(filter(None, (kind, what(node))))]
    if node.foreach is not None:
        found.append("for each of " + _short(node.foreach.items.shown))
    if node.loop is not None:
        found.append(("until " if node.loop.is_until else "while ") + _short(node.loop.condition.shown))
    if node.when is not None:
        found.append("when " + _short(node.when.shown))
    return found


def _short(flat: str) -> str:
    return flat if len(flat) <= 40 else flat[:39] + "…"


def _escaped(text: str) -> str:
    for plain, written in (("&", "#amp;"), ('"', "#quot;"), ("<", "#lt;"), (">", "#gt;")):
        text = text.replace(plain, written)
    return text
