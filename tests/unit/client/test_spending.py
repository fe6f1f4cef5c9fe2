"""What a run has spent, by step, attempt and retry, and for nothing."""

from typing import Any

from tests.builders import NOON_MS, RUN, decided, failure, message, run_created, scheduled

from headrace.client.history import RunView
from headrace.contracts import events as ev
from headrace.contracts.codec import inline
from headrace.contracts.money import Amount


def cost(usd_nanos: int, **over: Any) -> ev.Cost:
    """What a report says."""
    return ev.Cost(usd_nanos=usd_nanos, tokens=10, table="t", **over)


def reported(by: ev.RunDecided, path: str, attempt: int, usd_nanos: int, *, failed: bool = False) -> Any:
    """A report about an attempt that a decision scheduled."""
    common: dict[str, Any] = {"decision": by.id, "offer": 1, "cost": cost(usd_nanos)}
    if failed:
        return message(
            ev.AttemptFailed, ev.Failed(failure=failure(retryable=True), **common), stepid=path, attempt=attempt
        )
    return message(ev.AttemptSucceeded, ev.Succeeded(output=inline("x"), **common), stepid=path, attempt=attempt)


def viewed(*messages: Any) -> RunView:
    """The view after these."""
    view = RunView(RUN)
    for seq, one in enumerate(messages, start=1):
        view.take(one, seq=seq)
    return view


def retried(path: str) -> ev.TimerSet:
    """Another attempt follows."""
    return ev.TimerSet(path=path, timer="retry", due_ms=NOON_MS, attempt=1, failure=failure())


def test_a_step_costs_what_all_its_attempts_cost_and_holds_what_its_parts_cost() -> None:
    """Retries are paid, too."""
    first = decided(1, run_created(), scheduled("each[0]"), scheduled("group#2/ask"))
    again = decided(3, scheduled("each[0]", attempt=2))
    view = viewed(
        first,
        reported(first, "each[0]", 1, 100, failed=True),
        decided(2, retried("each[0]")),
        again,
        done := reported(again, "each[0]", 2, 30),
        reported(first, "group#2/ask", 1, 5),
        decided(4, ev.StepCompleted(path="each[0]", attempt=2, report=done.id)),
    )
    assert {path: amount.usd_nanos for path, amount in view.spending.by_path.items()} == {
        "each[0]": 130, "each": 130, "group#2/ask": 5, "group": 5,
    }  # fmt: skip
    assert [attempt.amount.usd_nanos for attempt in view.spending.attempts["each[0]"]] == [100, 30]
    assert view.spending.total == Amount(usd_nanos=135, tokens=30)
    assert view.spending.orphaned == view.spending.estimated == Amount()


def test_otp_p5_a_report_that_came_too_late_is_orphan_spend() -> None:
    """It was paid, and changes nothing of what the run knows."""
    first = decided(1, run_created(), scheduled("ask"))
    late = reported(first, "ask", 1, 100)
    view = viewed(first, decided(2, retried("ask")), late, late)
    assert view.spending.total == Amount()
    assert view.spending.orphaned == Amount(usd_nanos=200, tokens=20)
    assert [(orphan.path, orphan.attempt) for orphan in view.spending.orphans] == [("ask", 1), ("ask", 1)]


def test_an_attempt_that_nobody_told_of_costs_what_was_reserved() -> None:
    """Once it is over; before that nothing is known."""
    reserved = Amount(usd_nanos=1_000, tokens=50)
    view = viewed(decided(1, run_created(), scheduled("ask", reserved=reserved)))
    assert view.spending.total == Amount()
    view.take(decided(2, retried("ask")))
    assert view.spending.total == view.spending.estimated == reserved


def test_a_report_of_a_decision_that_does_not_count_is_orphan_spend() -> None:
    """Two schedulers decided at once: only one decision is the run's, and both orders may have been run."""
    first = decided(1, run_created(), scheduled("ask"))
    other = reported(first, "ask", 1, 7)
    foreign = message(
        ev.AttemptSucceeded,
        ev.Succeeded(decision="another", offer=1, output=inline("x"), cost=cost(9)),
        stepid="ask",
        attempt=1,
    )
    view = viewed(first, foreign, other)
    assert (view.spending.total.usd_nanos, view.spending.orphaned.usd_nanos) == (7, 9)
