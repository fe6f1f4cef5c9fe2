"""Graphs of steps: every cycle is found, whatever the order."""

import graphlib
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.pipeline.bundle import load_text
from headrace.pipeline.problems import RefusedDefinitionError

EDGES = st.dictionaries(st.integers(0, 7), st.sets(st.integers(0, 7), max_size=3), max_size=8)


@settings(max_examples=100, deadline=None)
@given(EDGES)
def test_a_cycle_is_reported_exactly_when_there_is_one(edges: dict[int, set[int]]) -> None:
    """As the standard library sees it; the cycle that is printed exists."""
    needs = {f"s{node}": {f"s{other}" for other in edges.get(node, ()) if other != node} for node in range(8)}
    body = "".join(
        f"  {name}: {{wait: {{for: 1s}}, needs: [{', '.join(sorted(after))}]}}\n" for name, after in needs.items()
    )
    try:
        order = list(graphlib.TopologicalSorter(needs).static_order())
    except graphlib.CycleError:
        order = []
    try:
        plan = load_text(f"pipeline: p\nsteps:\n{body}").plan
    except RefusedDefinitionError as error:
        assert not order
        for problem in error.found:
            cycle = problem.text.removeprefix("the steps wait for each other: ").split(" → ")
            assert problem.code == "E1203"
            assert cycle[0] == cycle[-1]
            assert all(later in needs[earlier] for earlier, later in itertools.pairwise(cycle))
        return
    assert order
    assert all({plan.nodes[index].id for index in node.needs} == needs[node.id] for node in plan.nodes)
