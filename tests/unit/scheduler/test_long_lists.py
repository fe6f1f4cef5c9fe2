"""A `foreach` over more than 1,000 items: results leave the state in parts, and nobody can tell."""

import random
from typing import Any

import msgspec
import pytest
from tests.builders import plan, tool
from tests.unit.scheduler.stage import Stage, state_hash

from headrace.contracts import events as ev
from headrace.contracts import names
from headrace.contracts.envelope import ItemResult, Value
from headrace_scheduler.records import Run
from headrace_scheduler.values import is_small

PART = names.ITEMS_PART_MAX
LISTS = {
    "inputs": {"xs": {"type": "array"}},
    "limits": {"max_parallel": 500},
    "outputs": {"r": "${{ steps.f.output }}"},
}


def mapped(count: int, *, top: dict[str, Any] | None = None, **over: Any) -> Stage:
    """A run that maps a tool over so many items, none of which has been answered."""
    step = tool(foreach="inputs.xs", max_parallel=50, **{"with": {"x": "${{ item }}"}}) | over
    stage = Stage(plan({"f": step}, **LISTS | (top or {})), {"xs": list(range(count))})
    stage.settle()
    return stage


def answer(stage: Stage, chance: random.Random, *, failing: int = 0, most: int = 0) -> int:
    """Executors answer in any order, every `failing`-th item with an error; gives how many results the state held at
    most. Stops when the window has opened `most` items, when that is given."""
    held = 0
    while (inst := stage.run.get("f")) is not None and inst.fan is not None and inst.status == "fanned":
        if most and inst.fan.cursor >= most:
            break
        running = [path for path in stage.running() if path.startswith("f[")]
        for path in chance.sample(running, min(40, len(running))):
            index = int(path[2:-1])
            if failing and index % failing == 0:
                stage.fail(path, "broken", retryable=False)
            else:
                stage.succeed(path, {"n": index})
        stage.settle()
        held = max(held, 0 if inst.fan is None else len(inst.fan.results))
    return held


@pytest.mark.parametrize("count", [PART, PART + 1, 2 * PART])
def test_otp_n4_a_list_in_parts_gives_what_a_short_one_gives(count: int) -> None:
    """Around the size from which results are stored in parts the output is one function of the data."""
    stage = mapped(count, on_item_error="continue")
    answer(stage, random.Random(count), failing=7)
    output = stage.output("f")
    assert output["items"] == [None if n % 7 == 0 else {"n": n} for n in range(count)]
    assert [failed["index"] for failed in output["failed"]] == list(range(0, count, 7))
    assert output["counts"]["failed"] == len(output["failed"]) and output["counts"]["total"] == count
    inst = stage.run.get("f")
    assert inst is not None and inst.degraded and inst.output is not None
    assert len(inst.output.parts) == (0 if count <= PART else -(-count // PART))


def test_the_state_holds_no_more_results_than_the_window_leaves_open() -> None:
    """Two parts and some: what has been stored is forgotten, and each item is stored once."""
    stage = mapped(2 * PART + 5)
    held = answer(stage, random.Random(1))
    assert held < PART + 100
    stored = stage.events(ev.ItemsStored)
    assert sorted((event.first, event.results.count) for event in stored) == [
        (0, PART), (PART, PART), (2 * PART, 5)
    ]  # fmt: skip
    for event in stored:
        data = stage.blobs[event.results.ref]
        assert len(data) == event.results.size
        assert len(msgspec.json.decode(data, type=list[ItemResult])) == event.results.count


def test_one_slow_item_keeps_its_own_part_open_and_no_other() -> None:
    """Later parts do not wait for it."""
    stage = mapped(2 * PART + 10)
    while running := [path for path in stage.running() if path.startswith("f[") and path != "f[3]"]:
        for path in running:
            stage.succeed(path, 1)
        stage.settle()
    assert [event.first for event in stage.events(ev.ItemsStored)] == [PART, 2 * PART]
    inst = stage.run.get("f")
    assert inst is not None and inst.fan is not None and len(inst.fan.results) == PART - 1
    stage.succeed("f[3]", 1)
    stage.settle()
    assert stage.output("f")["items"] == [1] * (2 * PART + 10)


@pytest.mark.parametrize("upto", [PART + 300])
def test_the_fold_of_the_log_and_a_snapshot_in_the_middle_give_one_state(upto: int) -> None:
    """Whoever takes over reads either, and goes on to the same end."""
    stage = mapped(2 * PART - 300)
    answer(stage, random.Random(upto), most=upto)
    digest = state_hash(stage.run)
    assert state_hash(stage.folded()) == digest
    assert state_hash(stage.folded(snapshot_at=len(stage.log) * 2 // 3)) == digest
    stage.run = msgspec.json.decode(msgspec.json.encode(stage.run), type=Run)
    answer(stage, random.Random(upto))
    assert stage.output("f")["items"] == [{"n": n} for n in range(2 * PART - 300)]


def test_a_failed_item_ends_a_long_list_as_it_ends_a_short_one() -> None:
    """After a part was stored, and with others in flight."""
    stage = mapped(2 * PART)
    answer(stage, random.Random(3), most=PART + 200)
    assert stage.events(ev.ItemsStored)
    (first, *_) = stage.running()
    stage.fail(first, "broken", retryable=False)
    stage.settle()
    assert stage.run.status == "failed" and stage.run.failure is not None and stage.run.failure.code == "broken"
    assert state_hash(stage.folded()) == state_hash(stage.run)


def test_what_reads_a_list_in_parts_is_an_executors_work() -> None:
    """The scheduler loads none of it: the order names the parts."""
    stage = mapped(PART + 1)
    answer(stage, random.Random(4))
    value = stage.order("?outputs").bindings["steps.f.output"]
    assert isinstance(value, Value) and len(value.parts) == 2 and not is_small({"x": value})


def test_what_a_result_keeps_is_its_own_bytes() -> None:
    """Not the message that it came in, which is twenty times as large."""
    stage = mapped(3)
    stage.succeed("f[0]", "x")
    stage.settle()
    inst = stage.run.get("f")
    assert inst is not None and inst.fan is not None
    value = inst.fan.results[0].value
    assert value is not None and isinstance(value.json, msgspec.Raw)
    assert memoryview(value.json).obj is not None and len(memoryview(value.json).obj) == len(b'"x"')
