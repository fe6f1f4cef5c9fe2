"""A plan as an SVG picture. A layout library places the steps in layers and leads long edges around; groups are laid
out first and are boxes in the picture around them.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html import escape
from typing import Final

from fast_sugiyama import from_edges

from headrace.pipeline.mermaid import labels
from headrace.pipeline.plan import ROOT, Node, Plan

_CHAR: Final = 7.3
"""Width of a character of the monospaced 12 px font that is asked for; wider fonts stay inside the padding."""
_LINE, _PAD, _GAP_X, _GAP_Y, _MARGIN = 16.0, 12.0, 28.0, 40.0, 16.0
_WIDTH_MIN: Final = 96.0
_DUMMY: Final = 0.5
"""Room for an edge between two steps, as a share of that of a step: it passes without touching either."""

Point = tuple[float, float]


@dataclass(slots=True)
class Box:
    """A step with its place in the block around."""

    node: Node
    lines: list[str]
    width: float
    height: float
    x: float = 0.0
    y: float = 0.0
    """Of its upper left corner."""
    inside: list["Picture"] = field(default_factory=list)


@dataclass(slots=True)
class Edge:
    """An arrow through these points, from above to below."""

    points: list[Point]
    style: str


@dataclass(slots=True)
class Picture:
    """A block, laid out."""

    title: str
    boxes: list[Box]
    edges: list[Edge]
    width: float
    height: float


def svg(plan: Plan) -> str:
    """The picture as text. The same plan gives the same picture."""
    picture = _block(plan, ROOT, "")
    width, height = picture.width + 2 * _MARGIN, picture.height + 2 * _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(plan.pipeline)}">',
        _STYLE,
    ]
    _draw(picture, _MARGIN, _MARGIN, parts)
    return "\n".join([*parts, "</svg>"]) + "\n"


_STYLE: Final = """<style>
text { font: 12px ui-monospace, monospace; fill: #1b1f24; }
text.id { font-weight: bold; }
rect { fill: #ffffff; stroke: #57606a; }
rect.llm { fill: #ddf4ff; } rect.tool { fill: #dafbe1; } rect.transform { fill: #f6f8fa; }
rect.pipeline { fill: #fbefff; } rect.wait, rect.signal, rect.approval { fill: #fff8c5; } rect.emit { fill: #ffebe9; }
rect.steps, rect.switch, rect.case { fill: none; }
path { fill: none; stroke: #57606a; marker-end: url(#arrow); }
path.optional { stroke-dasharray: 4 3; } path.standby { stroke: #cf222e; stroke-dasharray: 1 3; }
</style>
<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">
<polygon points="0,0 8,4 0,8" fill="#57606a"/></marker></defs>"""


def _block(plan: Plan, number: int, title: str) -> Picture:
    boxes = {index: _box(plan, plan.nodes[index]) for index in plan.blocks[number].nodes}
    styles: dict[tuple[int, int], str] = {}
    for index in boxes:
        node = plan.nodes[index]
        for other in node.needs:
            styles[other, index] = "optional" if other in node.optional else "needed"
        for standby in (node.compensate, None if node.fallback is None else node.fallback.node):
            if standby is not None:
                styles[index, standby] = "standby"
    edges: list[Edge] = []
    x = y = 0.0
    connected = {index for edge in styles for index in edge}
    alone = [box for index, box in boxes.items() if index not in connected]
    for places, routes in _components(styles, boxes):
        width, height = _place(places, boxes, x)
        edges += [_edge(route, styles[route[0], route[-1]], places, boxes, x) for route in routes]
        x, y = x + width + _GAP_X, max(y, height)
    for box in alone:
        box.x = x
        x, y = x + box.width + _GAP_X, max(y, box.height)
    return Picture(title, list(boxes.values()), edges, max(x - _GAP_X, 0.0), y)


def _box(plan: Plan, node: Node) -> Box:
    lines = labels(node)
    inside = [_block(plan, block, _case(plan, node, block)) for block in node.blocks]
    head = _PAD + _LINE * len(lines)
    width = max(_WIDTH_MIN, max(map(len, lines)) * _CHAR + 2 * _PAD)
    if not inside:
        return Box(node, lines, width, head + _PAD / 2)
    widths = [max(picture.width, len(picture.title) * _CHAR) + 2 * _PAD for picture in inside]
    for picture, wide in zip(inside, widths, strict=True):
        picture.width = wide - 2 * _PAD
    width = max(width, sum(widths) + _PAD * (len(widths) + 1))
    height = head + _PAD + max(picture.height + _title(picture) for picture in inside) + 3 * _PAD
    return Box(node, lines, width, height, inside=inside)


def _case(plan: Plan, node: Node, block: int) -> str:
    if node.kind != "switch":
        return ""
    when = plan.blocks[block].when
    return "default" if when is None else when.shown[:40]


def _title(picture: Picture) -> float:
    return _LINE if picture.title else 0.0


Places = dict[int, Point]
"""Node, or number of a bend, → centre as the library gives it: layers from below."""


def _components(styles: Iterable[tuple[int, int]], boxes: dict[int, Box]) -> Iterator[tuple[Places, list[list[int]]]]:
    """Places of the steps that hang together, and each edge as the steps and bends it leads through."""
    spacing = max((box.width for box in boxes.values()), default=0.0) + _GAP_X
    for edges in _apart(sorted(styles)):
        numbers = sorted({index for edge in edges for index in edge})
        compact = {index: place for place, index in enumerate(numbers)}
        # Bends get numbers after those of the nodes, which holds for a graph of one part only.
        layout, *others = from_edges(
            [(compact[source], compact[target]) for source, target in edges],
            vertex_spacing=spacing,
            dummy_vertices=True,
            dummy_size=_DUMMY,
        )
        assert not others, edges
        positions, _, _, routed = layout
        names = {int(name): (numbers[int(name)] if int(name) < len(numbers) else -int(name)) for name, _ in positions}
        places = {names[int(name)]: (float(x), float(y)) for name, (x, y) in positions}
        yield places, _routes([(names[int(source)], names[int(target)]) for source, target in routed or ()])


def _apart(edges: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """The edges of each part of the graph that hangs together, in the order of their first."""
    part: dict[int, int] = {}
    parts: dict[int, list[tuple[int, int]]] = {}
    for edge in edges:
        found = sorted({part[index] for index in edge if index in part})
        into = found[0] if found else len(part)
        joined = parts.setdefault(into, [])
        for other in found[1:]:
            joined += parts.pop(other)
        joined.append(edge)
        part.update({index: into for one in joined for index in one})
    return [sorted(found) for _, found in sorted(parts.items())]


def _routes(steps: list[tuple[int, int]]) -> list[list[int]]:
    """The pieces of each edge put together; bends are negative, and each has one way on."""
    onward = {source: target for source, target in steps if source < 0}
    routes = []
    for source, target in sorted(step for step in steps if step[0] >= 0):
        route = [source, target]
        while route[-1] < 0:
            route.append(onward[route[-1]])
        routes.append(route)
    return routes


def _place(places: Places, boxes: dict[int, Box], left: float) -> tuple[float, float]:
    """Give each box of a component its corner; gives width and height. Layers are as high as their highest box."""
    layers = sorted({y for _, y in places.values()}, reverse=True)
    tops: dict[float, float] = {}
    top = 0.0
    for layer in layers:
        tops[layer] = top
        heights = [boxes[index].height for index, (_, y) in places.items() if y == layer and index >= 0]
        top += max(heights, default=_LINE) + _GAP_Y
    shift = -min(x - boxes[index].width / 2 for index, (x, _) in places.items() if index >= 0)
    shift = max(shift, -min(x for x, _ in places.values()))
    for index, (x, y) in places.items():
        if index >= 0:
            boxes[index].x, boxes[index].y = left + shift + x - boxes[index].width / 2, tops[y]
        places[index] = (shift + x, tops[y])
    width = max(x + (boxes[index].width / 2 if index >= 0 else 0.0) for index, (x, _) in places.items())
    return width, top - _GAP_Y


def _edge(route: list[int], style: str, places: Places, boxes: dict[int, Box], left: float) -> Edge:
    source, target = boxes[route[0]], boxes[route[-1]]
    start, end = (source.x + source.width / 2, source.y + source.height), (target.x + target.width / 2, target.y)
    bends = [(left + places[bend][0], places[bend][1] + _LINE) for bend in route[1:-1]]
    return Edge([start, *bends, end], style)


def _draw(picture: Picture, x: float, y: float, parts: list[str]) -> None:
    for edge in picture.edges:
        (at_x, at_y), *rest = [(x + px, y + py) for px, py in edge.points]
        path = f"M {at_x:.1f} {at_y:.1f}"
        for to_x, to_y in rest:
            middle = (at_y + to_y) / 2
            path += f" C {at_x:.1f} {middle:.1f} {to_x:.1f} {middle:.1f} {to_x:.1f} {to_y:.1f}"
            at_x, at_y = to_x, to_y
        parts.append(f'<path class="{edge.style}" d="{path}"/>')
    for box in picture.boxes:
        _draw_box(box, x + box.x, y + box.y, parts)


def _draw_box(box: Box, x: float, y: float, parts: list[str]) -> None:
    parts.append(
        f'<rect class="{box.node.kind}" x="{x:.1f}" y="{y:.1f}" width="{box.width:.1f}" '
        f'height="{box.height:.1f}" rx="6"><title>{escape(box.node.path)}</title></rect>'
    )
    for number, line in enumerate(box.lines):
        style = ' class="id"' if number == 0 else ""
        parts.append(f'<text{style} x="{x + _PAD:.1f}" y="{y + _PAD + 4 + _LINE * number:.1f}">{escape(line)}</text>')
    inner_x, inner_y = x + _PAD, y + _PAD + _LINE * len(box.lines) + _PAD / 2
    for picture in box.inside:
        wide, high = picture.width + 2 * _PAD, picture.height + _title(picture) + 2 * _PAD
        if picture.title:
            frame = f'x="{inner_x:.1f}" y="{inner_y:.1f}" width="{wide:.1f}" height="{high:.1f}" rx="4"'
            parts.append(f'<rect class="case" {frame}/>')
            parts.append(f'<text x="{inner_x + _PAD:.1f}" y="{inner_y + _LINE:.1f}">{escape(picture.title)}</text>')
        _draw(picture, inner_x + _PAD, inner_y + _PAD + _title(picture), parts)
        inner_x += wide + _PAD
