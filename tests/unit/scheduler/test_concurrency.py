"""A run with a concurrency key: nothing starts before it has heard, and what it hears first counts."""

from typing import Any

import pytest
from tests.builders import KEY, NOON_MS, decided, folded, message, plan, run_created, tool

from headrace.contracts import events as ev
from headrace.contracts.errors import DataError, ExpressionError
from headrace_scheduler.concurrency import is_waiting, key_text
from headrace_scheduler.decide import Limits, decide

ONE = plan({"one": tool()}, limits={"concurrency": {"key": "${{ inputs.repo }}"}}, inputs={"repo": {"type": "string"}})


def after(*answers: bool) -> Any:
    """The run when it has heard this."""
    heard = [message(ev.KeyAnswered, ev.KeyAnswer(key=KEY, granted=granted)) for granted in answers]
    return folded(ONE, decided(1, run_created(key="main")), *heard)


def kinds(run: Any, *, at_ms: int = NOON_MS) -> list[str]:
    """What it decides."""
    decision = decide(run, ONE, now_ms=at_ms, limits=Limits(left={}))
    return [] if decision is None else [type(event).__name__ for event in decision.events]


def test_nothing_starts_before_the_key_is_granted() -> None:
    """Until then it only waits; its deadline counts all the same."""
    assert kinds(after()) == [] and is_waiting(after())
    assert kinds(after(), at_ms=NOON_MS + 86_400_000) == ["RunFailed"]
    assert kinds(after(True)) == ["StepScheduled"] and not is_waiting(after(True))


def test_a_refused_run_fails_and_the_first_answer_counts() -> None:
    """An answer that is given again, or another after it, changes nothing."""
    refused = after(False, True)
    decision = decide(refused, ONE, now_ms=NOON_MS, limits=Limits(left={}))
    assert decision is not None and decision.headline == "run-failed"
    (failed,) = decision.events
    assert isinstance(failed, ev.RunFailed) and failed.failure.code == "concurrency_limit"
    assert kinds(after(True, False)) == ["StepScheduled"]


def test_a_run_without_a_key_asks_nobody() -> None:
    """It starts at once."""
    free = plan({"one": tool()})
    run = folded(free, decided(1, run_created()))
    assert not is_waiting(run)
    assert decide(run, free, now_ms=NOON_MS, limits=Limits(left={})) is not None


def test_a_key_is_text_of_one_to_1024_characters() -> None:
    """A number becomes text; nothing and too much are refused, and so is an event where there was none."""
    numbered = plan({"one": tool()}, limits={"concurrency": {"key": "${{ 1 + 1 }}"}})
    assert key_text(numbered, {}, now_ms=NOON_MS) == "2" and key_text(plan({"one": tool()}), {}, now_ms=NOON_MS) == ""
    assert key_text(ONE, {"repo": "x" * 1024}, now_ms=NOON_MS) == "x" * 1024
    for repo in ("", "x" * 1025):
        with pytest.raises(DataError, match="1 to 1024 characters"):
            key_text(ONE, {"repo": repo}, now_ms=NOON_MS)
    triggered = plan({"one": tool()}, limits={"concurrency": {"key": "r-${{ event.data.repo }}"}})
    assert key_text(triggered, {}, {"data": {"repo": "main"}}, now_ms=NOON_MS) == "r-main"
    with pytest.raises(ExpressionError):
        key_text(triggered, {}, now_ms=NOON_MS)
