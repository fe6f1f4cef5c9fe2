"""Large runs cost a step what small ones do. `make scale` measures the bounds of the issue; here, at a tenth of the
size and with room for a loaded machine, what would be quadratic shows as a multiple.
"""

import pytest
from tests.benchmarks.scale import chain, graphs, maps, wide

RATIO_MAX = 1.6
"""A line that every decision walked over gave 4.6 at this size."""


@pytest.mark.parametrize("shape", [wide, chain])
def test_a_step_of_a_large_graph_costs_what_one_of_a_small_graph_costs(shape: object) -> None:
    """By CPU time, small and large in turn, the best of each."""
    found = graphs(shape, 100, 1_000, rounds=2)
    assert found["ratio"] < RATIO_MAX, found
    assert found["load_many_us"] < RATIO_MAX * found["load_few_us"], found


def test_an_item_of_a_long_list_costs_what_one_of_a_short_one_costs() -> None:
    """And the snapshot holds the window and one part, not all results."""
    found = maps(300, 3_000)
    assert found["ratio"] < RATIO_MAX, found
    assert found["snapshot_bytes"] < 200_000, found
