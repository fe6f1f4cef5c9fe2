"""`map` and `filter` outside of CEL: linear, ordered, bounded."""

import threading
import time

import pytest

from headrace.contracts.errors import ExpressionError
from headrace.pipeline import collecting
from headrace.pipeline.evaluation import compile_expression, evaluate


def test_nine_thousand_items_take_no_seconds() -> None:
    """The library's own macros take 2.7 s, and four times as long for twice as many."""
    expression = compile_expression("inputs.x.filter(a, a > 1).map(a, a + 1)")
    scope = {"inputs": {"x": list(range(4_900))}}
    began = time.perf_counter()
    assert len(evaluate(expression, scope)) == 4_898
    assert time.perf_counter() - began < 0.5


def test_a_map_is_run_over_by_sorted_keys() -> None:
    """CEL's own order differs from process to process."""
    keys = {f"k{index}": index for index in (5, 3, 1, 4, 2)}
    assert evaluate(compile_expression("inputs.m.map(k, inputs.m[k])"), {"inputs": {"m": keys}}) == [1, 2, 3, 4, 5]


def test_frames_that_failed_items_left_behind_are_dropped() -> None:
    """The frame below is the one that is asked for."""
    collecting.begin()
    collecting.mark([1], 1)
    collecting.mark([1], 2)
    assert collecting.push(1, "a")
    assert collecting.take(True, 1) == ["a"]


def test_an_evaluation_that_failed_leaves_nothing_to_the_next() -> None:
    """State is cleared before each."""
    bad, good = compile_expression("inputs.x.map(a, 1 / a)"), compile_expression("inputs.x.map(a, a)")
    for _ in range(3):
        with pytest.raises(ExpressionError, match="divide by zero"):
            evaluate(bad, {"inputs": {"x": [1, 0]}})
        assert evaluate(good, {"inputs": {"x": [1, 0]}}) == [1, 0]


def test_threads_do_not_see_each_other() -> None:
    """Executors evaluate in threads."""
    expression = compile_expression("inputs.x.map(a, inputs.x.map(b, a * b))")
    results: list[object] = []

    def work(factor: int) -> None:
        items = [factor, factor + 1]
        expected = [[a * b for b in items] for a in items]
        results.append(all(evaluate(expression, {"inputs": {"x": items}}) == expected for _ in range(200)))

    threads = [threading.Thread(target=work, args=(factor,)) for factor in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert results == [True] * 4
