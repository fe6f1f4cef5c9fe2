"""Pictures: every step once, nothing over anything else, groups around their steps, the same in every process."""

import itertools
import os
import subprocess
import sys
from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.pipeline.test_mermaid import TEXT

from headrace.pipeline.bundle import load_text
from headrace.pipeline.drawing import svg
from headrace.pipeline.plan import ROOT, Plan

NS = "{http://www.w3.org/2000/svg}"
Rect = tuple[float, float, float, float]


def rects(plan: Plan) -> dict[str, Rect]:
    """Static path → left, top, right, bottom."""
    root = ElementTree.fromstring(svg(plan))
    found = {}
    for rect in root.iter(f"{NS}rect"):
        title = rect.find(f"{NS}title")
        if title is not None:
            x, y, width, height = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
            assert title.text not in found
            found[str(title.text)] = (x, y, x + width, y + height)
    assert min(r[0] for r in found.values()) >= 0
    assert float(root.attrib["width"]) >= max(r[2] for r in found.values())
    assert float(root.attrib["height"]) >= max(r[3] for r in found.values())
    return found


def check(plan: Plan) -> None:
    found = rects(plan)
    assert set(found) == {node.path for node in plan.nodes}
    for block in plan.blocks:
        for one, other in itertools.combinations([found[plan.nodes[index].path] for index in block.nodes], 2):
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1], (one, other)
        if block.index != ROOT:
            around = found[plan.nodes[block.owner].path]
            for index in block.nodes:
                inner = found[plan.nodes[index].path]
                assert around[0] < inner[0] and around[1] < inner[1] and inner[2] < around[2] and inner[3] < around[3]
    for node in plan.nodes:
        for need in node.needs:
            assert found[plan.nodes[need].path][3] < found[node.path][1], "needs stand above"


def test_groups_and_cases_are_around_their_steps() -> None:
    """And arrows lead down."""
    plan = load_text(TEXT, pending={}).plan
    check(plan)
    assert svg(plan).count("<path") == sum(len(node.needs) for node in plan.nodes) + 2
    assert "inputs.mode != &quot;&lt;x&gt;&quot;" in svg(plan)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sets(st.integers(0, 11), max_size=4), min_size=1, max_size=12),
    st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_no_graph_makes_steps_overlap(needs: list[set[int]], groups: list[bool]) -> None:
    """Of any shape, with wide and narrow steps, apart or together."""
    body = ""
    for number, after in enumerate(needs):
        inner = "{x: {tool: " + "y" * (number * 5 + 1) + "}}"
        kind = f"steps: {inner}" if groups[number] else f"tool: {'x' * (number * 7 % 40 + 1)}"
        wanted = ", ".join(f"s{other}" for other in sorted(after) if other < number)
        body += f"  s{number}: {{{kind}, needs: [{wanted}]}}\n"
    check(load_text(f"pipeline: p\nsteps:\n{body}", pending={}).plan)


def test_two_hundred_steps_are_drawn() -> None:
    """In layers, with edges over many of them."""
    body = "".join(
        f"  s{n}: {{tool: x, needs: [{', '.join(f's{o}' for o in {n // 2, n // 3} if o < n)}]}}\n" for n in range(200)
    )
    check(load_text(f"pipeline: p\nsteps:\n{body}").plan)


def test_a_picture_is_the_same_in_every_process() -> None:
    """Hash seeds decide nothing."""
    code = (
        "import sys; from headrace.pipeline.bundle import load_text; from headrace.pipeline.drawing import svg; "
        "sys.stdout.write(svg(load_text(sys.stdin.read(), pending={}).plan))"
    )
    pictures = {
        subprocess.run(
            [sys.executable, "-c", code],
            input=TEXT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert pictures == {svg(load_text(TEXT, pending={}).plan)}
