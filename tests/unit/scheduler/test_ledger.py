"""Budgets under death: what was ever spent, known or not, stays within the limit."""

import random
from typing import Any

import msgspec
import pytest
from tests.builders import plan
from tests.unit.scheduler.stage import Stage
from tests.unit.scheduler.test_budgets import TABLE, ask, budget

from headrace.contracts import events as ev
from headrace.contracts import names
from headrace.contracts.codec import decode
from headrace.contracts.money import Amount
from headrace_scheduler import messages
from headrace_scheduler.ledger import affords_again
from headrace_scheduler.orders import content_for, make_order
from headrace_scheduler.records import Run

SEEDS = 240
STEPS_MAX = 400
LIMIT_USD = 0.006
"""Of about six attempts."""


def offered_again(stage: Stage, path: str) -> bool:
    """The owner has found that the order's holder died; False when the attempt may not be offered once more."""
    inst = stage.run.get(path)
    assert inst is not None
    if inst.lost + 1 >= names.HOLDERS_LOST_MAX or not affords_again(stage.run, stage.plan, inst):
        stage.settle(prices=TABLE, lost=frozenset({path}))
        return False
    content = content_for(stage.run, stage.plan, path, now_ms=inst.scheduled_ms)
    order = msgspec.structs.replace(make_order(stage.run, stage.plan, inst, content), offer=inst.offer + 1)
    made = decode(messages.ordered(stage.run, order, source="/scheduler/two").body)
    assert isinstance(made, ev.StepOrdered)
    stage.append(made, "hr.evt.default.p.00.r.order.scheduled.llm")
    return True


def restarted(stage: Stage, at: int) -> Run:
    """The state that another owner has: a snapshot after `at` messages, and the rest of the log."""
    return stage.folded(snapshot_at=at)


def test_a_holder_that_died_is_charged_and_the_next_one_has_the_reservation() -> None:
    """It may have made its call."""
    stage = Stage(plan({"a": ask()}, limits=budget(usd=0.0025)))
    stage.settle(prices=TABLE)
    reserved = stage.order("a").reserved
    assert reserved is not None
    assert offered_again(stage, "a")
    assert stage.run.ledger[""].spent == stage.run.ledger[""].reserved == reserved
    assert not offered_again(stage, "a"), "a third call would not be covered"
    assert stage.run.ledger[""].reserved == Amount() and stage.run.ledger[""].spent == reserved * 2


def test_an_attempt_that_was_put_off_keeps_its_reservation_and_a_cancelled_one_costs_its_most() -> None:
    """What is over without a word may have been paid."""
    stage = Stage(plan({"a": ask(), "b": ask()}, limits=budget(usd=1)))
    stage.settle(prices=TABLE)
    reserved = stage.order("a").reserved
    assert reserved is not None
    stage.defer("a")
    stage.settle(prices=TABLE)
    assert stage.run.ledger[""].reserved == reserved * 2
    stage.until_due()
    stage.settle(prices=TABLE)
    assert stage.run.ledger[""].reserved == reserved * 2 and stage.order("a").reserved == reserved
    stage.control("cancel")
    stage.settle(prices=TABLE)
    assert stage.run.ledger[""].spent == reserved * 2 and stage.run.ledger[""].reserved == Amount()


class Outside:
    """Executors and their provider: every call that was made, whether or not anybody heard of it."""

    def __init__(self, draw: random.Random) -> None:
        self.draw, self.paid, self.called = draw, 0, set[tuple[str, int, int]]()

    def call(self, order: ev.Order) -> ev.Cost:
        """Make an order's call, once; the provider honours the limit on its answer."""
        assert order.reserved is not None
        cost = self.draw.choice((0, order.reserved.usd_nanos // 3, order.reserved.usd_nanos))
        key = (order.path, order.attempt, order.offer)
        if key in self.called:
            cost = 0
        self.called.add(key)
        self.paid += cost
        return ev.Cost(usd_nanos=cost, tokens=1)


def lived(seed: int) -> tuple[Stage, Outside]:
    """A run among deaths: of executors during and after calls, of owners, of messages."""
    draw = random.Random(f"budget/{seed}")
    items: dict[str, Any] = {
        "foreach": [1, 2, 3, 4],
        "max_parallel": draw.choice((1, 2, 4)),
        "on_item_error": "continue",
    }
    retry = {"attempts": 4, "initial": "1ms"}
    steps = {
        "each": ask(retry=retry, **items, **(budget(usd=0.004) if draw.random() < 0.5 else {})),
        "group": {
            "steps": {"inner": ask(retry=retry)},
            "retry": {"attempts": 2, "initial": "1ms"},
            "on_error": "continue",
        },
        "last": ask(retry=retry, needs=["each"]),
    }
    stage, outside = Stage(plan(steps, limits=budget(usd=LIMIT_USD))), Outside(draw)
    for _ in range(STEPS_MAX):
        stage.settle(prices=TABLE)
        if stage.run.ended:
            break
        if draw.random() < 0.2:
            stage.run = restarted(stage, draw.randrange(1, len(stage.log) + 1))
        path = draw.choice([*stage.running(), ""])
        fate = draw.random()
        if not path or fate < 0.1:
            stage.until_due()
        elif fate < 0.3:
            outside.call(stage.order(path))
            offered_again(stage, path)
        elif fate < 0.4:
            stage.defer(path, ms=draw.choice((1, 1_000)))
        elif fate < 0.6:
            stage.fail(path, code=draw.choice(("unavailable", "fatal")), cost=outside.call(stage.order(path)))
        else:
            stage.succeed(path, cost=outside.call(stage.order(path)))
        for account, held in stage.run.ledger.items():
            most = 4_000_000 if account else 6_000_000
            assert held.spent.usd_nanos + held.reserved.usd_nanos <= most, (seed, account, held)
    return stage, outside


@pytest.mark.parametrize("part", range(4))
def test_promise_p10_spend_never_exceeds_the_limit_under_deaths_at_random_points(part: int) -> None:
    """Also what was paid by those who died; and a death never makes a budget whole again."""
    ends = set()
    for seed in range(part * SEEDS // 4, (part + 1) * SEEDS // 4):
        stage, outside = lived(seed)
        print(f"seed {seed}: {stage.run.status}, paid {outside.paid}; python -m pytest {__file__} -k p10")
        assert stage.run.ended, seed
        assert outside.paid <= LIMIT_USD * 10**9, seed
        counted = stage.run.ledger[""].spent.usd_nanos
        assert outside.paid <= counted <= LIMIT_USD * 10**9, (seed, outside.paid, counted)
        ends |= {event.failure.code for event in stage.events(ev.StepFailed)}
    assert "budget_exceeded" in ends, "no world came to its limit"
