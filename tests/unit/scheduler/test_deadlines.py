"""What time brings: retries, deferrals, deadlines, lost holders, calls whose outcome is unknown."""

from typing import Any

import msgspec
import pytest
from tests.builders import NOON_MS, plan, tool
from tests.unit.scheduler.stage import LEFT_NONE, Stage

from headrace.contracts import events as ev
from headrace.contracts import names
from headrace_scheduler.deadlines import GRACE_MS, attempt_window_ms
from headrace_scheduler.orders import content_for, make_order
from headrace_scheduler.records import Run


def one(**over: Any) -> Stage:
    """A run of one step."""
    top = over.pop("top", {})
    stage = Stage(plan({"a": tool(**over)}, **top))
    stage.settle()
    return stage


def code(stage: Stage) -> str:
    """Why the run failed."""
    assert stage.run.status == "failed" and stage.run.failure is not None, stage.run.status
    return stage.run.failure.code


def again(stage: Stage) -> None:
    """The retry's delay passes and the next attempt is offered."""
    assert stage.status("a") == "sleeping"
    stage.until_due()
    stage.settle()


# --- retries -------------------------------------------------------------------------------------


def test_a_retryable_failure_is_followed_by_a_delay_and_another_attempt() -> None:
    """Delay and draw are in the event; the new attempt's order names its own decision, and its report counts."""
    stage = one()
    first = stage.order("a")
    stage.fail("a")
    stage.settle()
    (timer,) = stage.events(ev.TimerSet)
    assert (timer.timer, timer.attempt, timer.due_ms) == ("retry", 1, stage.now_ms + timer.delay_ms)
    assert 0 <= timer.jitter < 1 and timer.delay_ms == int(timer.jitter * names.RETRY_INITIAL_MS)
    again(stage)
    second = stage.order("a")
    assert (second.attempt, second.decision) == (2, stage.run.decision_id)
    assert second.decision != first.decision
    assert stage.succeed("a", "done")
    stage.settle()
    assert stage.run.status == "completed"


def test_an_attempt_is_not_made_before_its_time() -> None:
    """A timer never fires early."""
    stage = one(retry={"initial": "10s"})
    stage.fail("a", retry_after_ms=5_000)
    stage.settle()
    (timer,) = stage.events(ev.TimerSet)
    assert timer.delay_ms >= 5_000
    assert stage.later(timer.delay_ms - 1).decide() is None
    assert stage.later(1).decide() is not None


def test_the_last_attempt_fails_the_step() -> None:
    """All attempts count, the first included; the failure is the last one's."""
    stage = one(retry={"attempts": 3})
    for number in (1, 2, 3):
        assert stage.order("a").attempt == number
        stage.fail("a", f"error_{'x' * number}")
        stage.settle()
        if number < 3:
            again(stage)
    assert code(stage) == "error_xxx"
    assert [event.attempt for event in stage.events(ev.StepScheduled)] == [1, 2, 3]


def test_a_terminal_failure_is_not_tried_again() -> None:
    """Whether to retry is data of the failure."""
    stage = one()
    stage.fail("a", "denied", retryable=False)
    stage.settle()
    assert code(stage) == "denied"


@pytest.mark.parametrize(("failed", "tried"), [("rate_limited", True), ("unavailable", False)])
def test_a_policy_may_name_the_codes_worth_trying(failed: str, tried: bool) -> None:
    """`on` decides instead of the failure's own word."""
    stage = one(retry={"on": ["rate_limited"]})
    stage.fail("a", failed, retryable=not tried)
    stage.settle()
    assert (stage.status("a") == "sleeping") is tried


def test_no_attempt_is_planned_beyond_the_steps_deadline() -> None:
    """The step fails with its own failure rather than wait for nothing."""
    stage = one(deadline="30s", timeout="10s", retry={"initial": "60s"})
    stage.later(20_000)
    stage.fail("a", retry_after_ms=15_000)
    stage.settle()
    assert code(stage) == "unavailable"


def test_a_retry_waits_for_room() -> None:
    """Due, but the run is full or its queue is: it goes out when there is room, once."""
    stage = Stage(plan({"a": tool(), "b": tool()}, limits={"max_parallel": 1}))
    stage.settle()
    stage.fail("a")
    stage.settle()
    assert stage.running() == ["b"]
    stage.later(60_000).settle()
    assert stage.running() == ["b"]
    stage.succeed("b")
    stage.settle(left=LEFT_NONE)
    assert stage.running() == []
    stage.settle()
    assert stage.running() == ["a"]


# --- deferrals -----------------------------------------------------------------------------------


def test_a_deferred_order_is_offered_again_when_due_and_uses_no_attempt() -> None:
    """The same attempt, the next offer, the same decision."""
    stage = one()
    first = stage.order("a")
    stage.defer("a", 7_000)
    stage.settle()
    assert stage.running() == []
    assert stage.later(6_999).decide() is None
    stage.later(1).settle()
    second = stage.order("a")
    assert (second.attempt, second.offer, second.decision) == (1, 2, first.decision)
    assert stage.succeed("a")
    stage.settle()
    assert stage.run.status == "completed"


def test_a_deferred_order_does_not_exceed_max_parallel_when_it_comes_back() -> None:
    """While it slept another step took its place; it waits its turn."""
    stage = Stage(plan({"a": tool(), "b": tool()}, limits={"max_parallel": 1}))
    stage.settle()
    stage.defer("a")
    stage.settle()
    assert stage.running() == ["b"]
    stage.later(1_000).settle()
    assert stage.running() == ["b"]
    stage.succeed("b")
    stage.settle()
    assert stage.running() == ["a"]


def test_an_order_offered_again_may_be_begun_as_long_as_the_first_might() -> None:
    """A deferral of eleven minutes must not leave an order that expired before it went out."""
    stage = one()
    first = stage.order("a")
    stage.defer("a", 660_000)
    stage.settle()
    stage.later(660_000).settle()
    second = stage.order("a")
    assert second.not_after_ms - stage.now_ms == names.SCHEDULE_TO_START_MS
    assert second.due_ms - stage.now_ms == first.due_ms - first.scheduled_ms
    assert second.timeout_ms == first.timeout_ms


def test_deferring_for_ever_ends_at_the_steps_deadline() -> None:
    """Nothing waits for ever."""
    stage = one(deadline="5m", timeout="1m")
    for _ in range(20):
        if stage.run.ended:
            break
        if "a" in stage.running():
            stage.defer("a", 30_000)
        stage.settle()
        stage.until_due()
        stage.settle()
    assert code(stage) == "deadline_exceeded"
    assert stage.now_ms - NOON_MS == 300_000


def test_a_late_deferral_of_an_older_offer_changes_nothing() -> None:
    """A newer offer is out and may be running."""
    stage = one()
    stage.defer("a")
    stage.settle()
    stage.later(1_000).settle()
    assert stage.order("a").offer == 2
    assert not stage.defer("a", offer=1)
    assert stage.succeed("a")


def test_a_result_counts_also_while_another_holder_has_deferred_the_order() -> None:
    """Two executors had it, one thought dead: the first gave up, the other got a result. It is not thrown away."""
    stage = one()
    stage.defer("a")
    stage.settle()
    assert stage.succeed("a", "late but good", offer=1)
    stage.settle()
    assert stage.output("a") == "late but good"
    assert stage.run.status == "completed"


def test_a_result_that_crosses_the_decision_to_offer_again_is_kept() -> None:
    """The decision that fires the timer was made without it; the fold keeps it all the same."""
    stage = one()
    stage.defer("a")
    stage.settle()
    stage.later(1_000)
    decision = stage.propose()
    assert decision is not None
    assert stage.succeed("a", "good")
    stage.store(decision)
    assert stage.missing() == {}
    stage.settle()
    assert stage.output("a") == "good"


# --- deadlines -----------------------------------------------------------------------------------


def test_an_attempt_without_a_report_is_over_at_its_deadline() -> None:
    """Queueing time, the attempt's own timeout, and the grace in which its report of it should win."""
    stage = one(timeout="30s")
    assert stage.until_due() == NOON_MS + names.SCHEDULE_TO_START_MS + 30_000 + GRACE_MS
    stage.settle()
    assert stage.status("a") == "sleeping"
    (timer,) = stage.events(ev.TimerSet)
    assert timer.failure is not None and timer.failure.code == "timeout"


def test_a_report_after_the_deadline_of_its_attempt_counts_nothing() -> None:
    """Another attempt may be running."""
    stage = one(timeout="30s")
    old = stage.order("a")
    stage.until_due()
    stage.settle()
    again(stage)
    assert not stage.succeed("a", attempt=1, decision=old.decision, offer=1)
    assert stage.run.late == 1


def test_a_step_has_a_deadline_over_all_attempts() -> None:
    """It ends what is running, whatever attempt that is."""
    stage = one(deadline="2m", timeout="1m")
    assert stage.until_due() == NOON_MS + 120_000
    stage.settle()
    assert code(stage) == "deadline_exceeded"
    assert "the step's deadline" in (stage.run.failure.message if stage.run.failure else "")


def test_a_run_has_a_deadline_over_all() -> None:
    """It cancels what is in flight, also while paused."""
    for pause in (False, True):
        stage = one(top={"limits": {"deadline": "1m"}})
        if pause:
            stage.control("pause")
            stage.settle()
        assert stage.until_due() == NOON_MS + 60_000
        stage.settle()
        assert code(stage) == "deadline_exceeded"
        assert stage.ends() == {"a": 1}


def test_no_order_outlives_its_run() -> None:
    """`not_after` and `due` are never beyond the deadlines of step and run."""
    run = Run(run="r", tenant="default", pipeline="p", defdigest="", deadline_ms=NOON_MS + 5)
    window = attempt_window_ms(run, plan({"a": tool()}), "a", at_ms=NOON_MS)
    assert window == (NOON_MS + 5, NOON_MS + 5)
    stage = one(top={"limits": {"deadline": "1m"}})
    order = stage.order("a")
    assert order.not_after_ms == order.due_ms == stage.run.deadline_ms
    assert order.timeout_ms == 60_000


def test_time_passes_while_a_run_is_paused() -> None:
    """Attempts in flight still have their deadlines; what should follow them waits for the resume."""
    stage = one(timeout="30s")
    stage.control("pause")
    stage.settle()
    stage.until_due()
    stage.settle()
    assert stage.status("a") == "sleeping"
    stage.later(60_000).settle()
    assert stage.running() == []
    stage.control("resume", cause="two")
    stage.settle()
    assert stage.order("a").attempt == 2


def test_a_child_that_does_not_end_in_time_is_a_timeout() -> None:
    """The attempt is over for the parent, which asks for another child."""
    steps = {"c": {"pipeline": "publish", "with": {}, "timeout": "1m", "deadline": "10m"}}
    stage = Stage(plan(steps), definitions={"publish": "d"})
    stage.settle()
    first = stage.run.insts["c"].child
    assert stage.until_due() == NOON_MS + 60_000
    stage.settle()
    stage.until_due()
    stage.settle()
    assert stage.run.insts["c"].child != first and stage.run.insts["c"].attempt == 2


# --- holders that died ---------------------------------------------------------------------------


def test_an_order_whose_holders_died_too_often_fails_the_attempt() -> None:
    """`executor_lost`, which is worth another attempt."""
    stage = one()
    stage.settle(lost=frozenset({"a"}))
    (timer,) = stage.events(ev.TimerSet)
    assert timer.failure is not None and timer.failure.code == "executor_lost"
    again(stage)
    assert stage.order("a").attempt == 2


def test_offering_an_order_again_is_seen_in_the_log() -> None:
    """Each further offer counts as a lost holder; older copies of an order change nothing."""
    stage = one()
    order = stage.order("a")
    for offer in (2, 3, 2, 1):
        stage.publish(msgspec.structs.replace(order, offer=offer))
    inst = stage.run.insts["a"]
    assert (inst.offer, inst.want_offer, inst.lost) == (3, 3, 2)
    assert stage.succeed("a", offer=1)


def unsafe(on_unknown: str = "fail", **over: Any) -> Stage:
    """A step whose call must not happen twice."""
    return one(effect="at_most_once", on_unknown=on_unknown, **over)


def test_a_claimed_call_whose_holder_died_has_an_unknown_outcome() -> None:
    """It may have happened, so it is not tried again unless the pipeline says so."""
    stage = unsafe()
    stage.claim("a")
    stage.settle(lost=frozenset({"a"}))
    assert code(stage) == "outcome_unknown"


def test_an_unclaimed_call_whose_holder_died_is_tried_again() -> None:
    """It cannot have happened."""
    stage = unsafe()
    stage.settle(lost=frozenset({"a"}))
    again(stage)
    assert (stage.order("a").attempt, stage.order("a").claim_seq) == (2, 0)


@pytest.mark.parametrize("on", [[], ["rate_limited"]])
def test_on_unknown_retry_tries_again_whatever_the_policy_lists(on: list[str]) -> None:
    """The next attempt's claim follows the one whose outcome may stay unknown."""
    stage = unsafe("retry", retry={"on": on} if on else {})
    stage.claim("a")
    seq = len(stage.log)
    stage.until_due()
    stage.settle()
    again(stage)
    assert (stage.order("a").attempt, stage.order("a").claim_seq) == (2, seq)


def test_a_claimed_call_that_its_holder_reports_as_failed_may_follow_its_claim() -> None:
    """The holder knows that it did not happen."""
    stage = unsafe()
    stage.claim("a")
    seq = len(stage.log)
    stage.fail("a")
    stage.settle()
    again(stage)
    assert stage.order("a").claim_seq == seq


def test_a_claim_that_comes_after_its_holder_was_given_up_is_never_followed_by_another_call() -> None:
    """The holder was frozen, not dead: it claims while the retry's delay runs. The outcome is unknown."""
    stage = unsafe()
    order = stage.order("a")
    stage.settle(lost=frozenset({"a"}))
    stage.claim("a", attempt=1, decision=order.decision, offer=1)
    stage.until_due()
    stage.settle()
    assert code(stage) == "outcome_unknown"


def test_a_claim_that_crosses_the_next_attempt_makes_its_outcome_unknown() -> None:
    """The second order still expects no claim, so the broker refuses it; the owner concludes at the deadline."""
    stage = unsafe()
    first = stage.order("a")
    stage.settle(lost=frozenset({"a"}))
    stage.until_due()
    decision = stage.propose()
    assert decision is not None
    stage.claim("a", attempt=1, decision=first.decision, offer=1)
    stage.store(decision)
    second = stage.order("a")
    assert (second.attempt, second.claim_seq) == (2, 0)
    stage.until_due()
    stage.settle()
    assert code(stage) == "outcome_unknown"


def test_a_claim_of_the_current_attempt_does_not_move_what_its_order_expects() -> None:
    """Offering the same attempt again must not invite a second call."""
    stage = unsafe()
    stage.claim("a")
    inst = stage.run.insts["a"]
    assert (
        make_order(stage.run, stage.plan, inst, content_for(stage.run, stage.plan, "a", now_ms=stage.now_ms)).claim_seq
        == 0
    )
