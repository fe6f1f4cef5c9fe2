"""Attempts under a budget: what they set aside, when they wait, when they fail."""

from typing import Any

import pytest
from tests.builders import plan
from tests.unit.scheduler.stage import Stage

from headrace.contracts import events as ev
from headrace.contracts.money import Amount, UnitPrices
from headrace.pipeline.prices import ModelPrice, PriceTable

UNIT = UnitPrices(input=1_000, output=1_000_000, cached=1_000, reasoning=1_000_000)
TABLE = PriceTable("t", {"echo/m": ModelPrice(unit=UNIT, context=1_000)})
"""A billionth of a dollar a byte, a millionth a token of output."""


def ask(**over: Any) -> dict[str, Any]:
    """A step of one call that can cost a little more than a thousandth of a dollar."""
    return {"llm": {"prompt": "x", "model": "echo/m", "max_tokens": 1_000}} | over


def budget(**over: Any) -> dict[str, Any]:
    return {"budget": {"on_exceed": "fail"} | over}


def staged(steps: dict[str, Any], **top: Any) -> Stage:
    """A run with these prices."""
    stage = Stage(plan(steps, **top))
    stage.settle(prices=TABLE)
    return stage


def cost(usd: float) -> ev.Cost:
    return ev.Cost(usd_nanos=round(usd * 10**9), tokens=10, table="t")


def goes_on(stage: Stage) -> None:
    stage.settle(prices=TABLE)


def test_an_attempt_sets_aside_the_most_that_it_can_cost_and_its_order_says_so() -> None:
    """Output at its longest, input as many tokens as bytes."""
    stage = staged({"a": ask()}, limits=budget(usd=1))
    (scheduled,) = stage.events(ev.StepScheduled)
    assert scheduled.reserved is not None and 1_000_000 < scheduled.reserved.usd_nanos < 1_001_000
    assert stage.order("a").reserved == scheduled.reserved
    assert stage.run.ledger[""].reserved == scheduled.reserved


def test_without_a_budget_nothing_is_set_aside() -> None:
    """Nor for what is no model call."""
    stage = staged({"a": ask(), "b": {"tool": "fs.read", "with": {"path": "x"}}})
    assert [event.reserved for event in stage.events(ev.StepScheduled)] == [None, None]
    assert stage.run.ledger == {}


def test_what_does_not_fit_beside_others_waits_for_them_and_takes_what_they_leave() -> None:
    """Two at a time fit into the budget of 2.5 attempts; what the first does not use lets the third begin."""
    stage = staged({name: ask() for name in "abc"}, limits=budget(usd=0.0025))
    assert stage.running() == ["a", "b"]
    stage.succeed("a", cost=cost(0.0001))
    goes_on(stage)
    assert stage.running() == ["b", "c"]


@pytest.mark.parametrize("limits", [{"usd": 0.0015}, {"tokens": 1_500}])
def test_a_step_for_which_too_little_is_left_fails(limits: dict[str, Any]) -> None:
    """In dollars and in tokens; the message has the figures."""
    stage = staged({"a": ask(), "b": ask(needs=["a"])}, limits=budget(**limits))
    stage.succeed("a", cost=ev.Cost(usd_nanos=900_000, tokens=900))
    goes_on(stage)
    assert stage.run.status == "failed" and stage.run.failure is not None
    assert stage.run.failure.code == "budget_exceeded"
    assert "$0.0009 and 900 tokens are spent" in stage.run.failure.message


def test_a_retry_spends_of_the_same_budget() -> None:
    """An attempt that failed after an answer is paid all the same."""
    stage = staged({"a": ask(retry={"attempts": 5, "initial": "1s"}, **budget(usd=0.0025))})
    for _ in range(2):
        stage.fail("a", cost=cost(0.001))
        goes_on(stage)
        stage.until_due()
        goes_on(stage)
    assert stage.run.failure is not None and stage.run.failure.code == "budget_exceeded"
    assert stage.run.ledger["a"].spent == Amount(usd_nanos=2_000_000, tokens=20)


def test_a_call_that_was_refused_costs_nothing() -> None:
    """The report says so."""
    stage = staged({"a": ask(retry={"attempts": 5, "initial": "1s"}, **budget(usd=0.0015))})
    stage.fail("a", code="rate_limited", cost=ev.Cost())
    goes_on(stage)
    stage.until_due()
    goes_on(stage)
    assert stage.order("a").attempt == 2
    assert stage.run.ledger["a"].spent == Amount()


def test_a_steps_budget_holds_for_all_items_and_for_every_attempt_of_its_group() -> None:
    """Whatever repeats it, the step is one."""
    inner = {"ask": ask(foreach=[1, 2, 3], max_parallel=1, **budget(usd=0.0035))}
    steps = {"g": {"steps": inner, "retry": {"attempts": 3, "initial": "1s", "on": ["fatal"]}}}
    stage = staged(steps)
    stage.succeed("g/ask[0]", cost=cost(0.001))
    goes_on(stage)
    stage.fail("g/ask[1]", code="fatal", retryable=False, cost=cost(0.001))
    goes_on(stage)
    stage.until_due()
    goes_on(stage)
    assert stage.running() == ["g#2/ask[0]"]
    stage.succeed("g#2/ask[0]", cost=cost(0.001))
    goes_on(stage)
    assert stage.run.ledger["g/ask"].spent.usd_nanos == 3_000_000
    assert stage.run.failure is not None and stage.run.failure.code == "budget_exceeded"


def test_both_budgets_must_have_room() -> None:
    """The run's and the step's."""
    stage = staged({"a": ask(**budget(usd=1)), "b": ask()}, limits=budget(usd=0.0015))
    assert stage.running() == ["a"]
    assert set(stage.run.ledger) == {"", "a"}


def test_a_model_that_only_an_executor_will_know_cannot_be_called_under_a_budget() -> None:
    """It is said, and not guessed."""
    spec = {"prompt": '${{ file("x") }}', "model": "${{ inputs.m }}"}
    stage = Stage(plan({"a": {"llm": spec}}, inputs={"m": {"type": "string"}}, limits=budget(usd=1)), {"m": "echo/m"})
    goes_on(stage)
    assert stage.run.failure is not None and stage.run.failure.code == "price_unknown"


def asking(**over: Any) -> dict[str, Any]:
    """A budget that asks somebody."""
    return {"budget": over}


def test_a_run_that_has_used_up_its_budget_asks_and_goes_on_when_it_is_raised() -> None:
    """Nothing begins while it waits, what is under way ends, and the figure that is lacking is said."""
    steps = {"a": ask(), "b": ask(needs=["a"]), "t": {"tool": "fs.read", "with": {"path": "x"}}}
    later = {"u": {"tool": "fs.read", "with": {"path": "y"}, "needs": ["t"]}}
    stage = staged(steps | later, limits=asking(usd=0.0015))
    stage.succeed("a", cost=cost(0.001))
    goes_on(stage)
    assert stage.run.status == "blocked"
    (blocked,) = stage.events(ev.RunBlocked)
    assert (blocked.path, blocked.budget) == ("b", "")
    assert "headrace approve" in blocked.reason and "--budget +0.000500113usd" in blocked.reason
    stage.succeed("t", "read")
    goes_on(stage)
    assert stage.running() == [] and stage.run.status == "blocked"
    stage.more(500_113)
    assert not stage.more(500_113), "the same command again is the same raise"
    goes_on(stage)
    assert stage.run.status == "running" and set(stage.running()) == {"b", "u"}
    assert stage.run.ledger[""].raised == Amount(usd_nanos=500_113)


def test_a_raise_that_is_too_small_asks_again_and_one_for_a_step_is_the_steps() -> None:
    """It counts for the budget that the run waits for."""
    stage = staged({"a": ask(**asking(tokens=500))})
    assert stage.run.status == "blocked" and stage.run.blocked_on == "a"
    stage.more(tokens=100)
    goes_on(stage)
    assert stage.run.status == "blocked" and len(stage.events(ev.RunBlocked)) == 2
    stage.more(tokens=10_000, cause="two")
    goes_on(stage)
    assert stage.running() == ["a"] and stage.run.ledger["a"].raised.tokens == 10_100


def test_a_blocked_run_can_be_cancelled_and_its_retries_wait() -> None:
    """A retry is a new attempt, with a reservation of its own."""
    stage = staged({"a": ask(retry={"attempts": 5, "initial": "1s"})}, limits=asking(usd=0.0015))
    stage.fail("a", cost=cost(0.001))
    goes_on(stage)
    stage.until_due()
    goes_on(stage)
    assert stage.run.status == "blocked" and stage.order("a").attempt == 1
    assert stage.folded(snapshot_at=3) == stage.run
    stage.control("cancel")
    goes_on(stage)
    assert stage.run.status == "cancelled"
