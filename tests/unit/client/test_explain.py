"""Why a run or a step stands where it stands, told from histories that the scheduler's own core has made."""

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import pytest
from tests.builders import NOON_MS, plan, tool
from tests.unit.scheduler.stage import LEFT_NONE, Stage

from headrace.client.explain import explain
from headrace.client.reasons import REASONS_MAX, Reason
from headrace.contracts import codec, subjects
from headrace.contracts import events as ev
from headrace.contracts.errors import NotFoundError
from headrace.contracts.failure import Failure


def of(steps: dict[str, Any], inputs: dict[str, Any] | None = None, **top: Any) -> Stage:
    """A run of these steps, with everything decided that can be."""
    stage = Stage(plan(steps, **{"inputs": {name: {} for name in inputs or {}}} | top), inputs or {})
    stage.settle()
    return stage


def told(stage: Stage, step: str = "", **over: Any) -> list[Reason]:
    """The reasons; every sequence that proves one is in the history."""
    history = list(enumerate(stage.log, start=1))
    reasons = explain(history, stage.plan, step=step, now_ms=stage.now_ms, **over)
    for reason in reasons:
        assert all(1 <= seq <= len(history) for seq in reason.events), reason
        assert list(reason.events) == sorted(reason.events), reason
    return reasons


def proofs(stage: Stage, reason: Reason) -> list[str]:
    """What the events that prove a reason are: messages, and of decisions what they say about its step."""
    found = []
    for seq in reason.events:
        message = stage.log[seq - 1]
        if isinstance(message, ev.RunDecided):
            about = [e for e in message.data.events if getattr(e, "path", "") in ("", reason.path)]
            found.append("+".join(type(event).__name__ for event in about))
        else:
            found.append(type(message).__name__)
    return found


# --- P7: what holds a run up ---------------------------------------------------------------------


class Held(NamedTuple):
    """A run that is held up, and what is said about it."""

    make: Callable[[], Stage]
    code: str
    path: str
    text: str
    proof: list[str]
    served: frozenset[str] | None = None


def _paused() -> Stage:
    stage = of({"a": tool(), "b": tool(needs=["a"])})
    stage.control("pause")
    stage.settle()
    stage.succeed("a")
    stage.settle()
    return stage


def _deferred() -> Stage:
    stage = of({"a": tool()})
    stage.defer("a", 30_000)
    stage.settle()
    return stage


def _keyed() -> Stage:
    stage = Stage(plan({"a": tool()}, limits={"concurrency": {"key": "one", "max": 1}}), {}, key="one")
    stage.settle()
    return stage


def _failed_once() -> Stage:
    stage = of({"a": tool(retry={"attempts": 2, "initial": "10s"})})
    stage.fail("a")
    stage.settle()
    return stage


HELD = {
    "signal": Held(
        lambda: of({"go": {"signal": {"name": "go", "timeout": "1h"}}}),
        "signal",
        "go",
        "`go` waits for signal `go` until 2025-11-25T13:00:00Z",
        ["SignalAwaited"],
    ),
    "approval": Held(
        lambda: of({"ok": {"approval": {"message": "go?", "by": ["lead"], "timeout": "1h"}}}),
        "approval",
        "ok",
        "`ok` waits for the answer of lead until 2025-11-25T13:00:00Z; `headrace approve` gives it",
        ["ApprovalRequested"],
    ),
    "timer": Held(
        lambda: of({"nap": {"wait": {"for": "10m"}}}),
        "timer",
        "nap",
        "`nap` waits until 2025-11-25T12:10:00Z",
        ["TimerSet"],
    ),
    "pause": Held(
        _paused,
        "pause",
        "",
        "the run is paused: because; `headrace resume` lets it go on",
        ["PauseRequested", "RunPaused"],
    ),
    "breaker": Held(
        _deferred,
        "breaker",
        "a",
        "an executor could not run `a` yet (breaker_open: the executor could not run it yet); it is offered again at "
        "2025-11-25T12:00:30Z",
        ["AttemptDeferred", "TimerSet"],
    ),
    "concurrency": Held(
        _keyed,
        "concurrency",
        "",
        "the run waits for its turn: as many runs with key 'one' are live as may be at a time",
        ["RunCreated"],
    ),
    "no executor": Held(
        lambda: of({"a": tool()}),
        "no_executor",
        "a",
        "attempt 1 of `a` waits: no executor serves queue tool",
        ["StepScheduled"],
        frozenset({"llm"}),
    ),
    "an attempt": Held(
        lambda: of({"a": tool()}),
        "attempt",
        "a",
        "attempt 1 of `a` is out on queue tool since 2025-11-25T12:00:00Z; no report yet",
        ["StepScheduled"],
        frozenset({"tool"}),
    ),
    "a retry": Held(
        _failed_once,
        "retry",
        "a",
        "attempt 1 of `a` failed (unavailable: unavailable!); the next begins at ",
        ["AttemptFailed", "TimerSet"],
    ),
    "a child": Held(
        lambda: _with_child(),
        "child",
        "sub",
        "`sub` waits for its child run ",
        ["ChildStarted"],
    ),
}


def _with_child() -> Stage:
    stage = Stage(plan({"sub": {"pipeline": "other"}}), {}, definitions={"other": "0" * 64})
    stage.settle()
    return stage


@pytest.mark.parametrize("name", HELD)
def test_promise_p7_a_run_that_does_not_advance_says_why(name: str) -> None:
    """One sentence, and the events that prove it; asked about the step it says the same."""
    held = HELD[name]
    stage = held.make()
    (reason,) = told(stage, served=held.served)
    assert (reason.code, reason.path) == (held.code, held.path)
    assert reason.text.startswith(held.text), reason.text
    assert proofs(stage, reason) == held.proof
    if held.path:
        assert told(stage, held.path, served=held.served) == [reason]
    assert bool(reason.run) == (name == "a child")


def test_promise_p7_a_blocked_run_says_what_blocks_it_until_that_has_ended() -> None:
    """The reason is the engine's own."""
    stage = of({"a": tool()})
    history = list(enumerate(stage.log, start=1))
    blocked = ev.Decided(version=3, at_ms=NOON_MS, events=(ev.RunBlocked(reason="credential", path="a"),))
    last = stage.log[-1]
    assert isinstance(last, ev.RunDecided)
    history.append((len(history) + 1, msgspec.structs.replace(last, id="x", data=blocked)))
    first = explain(history, stage.plan, now_ms=NOON_MS)[0]
    assert (first.code, first.path, first.text) == ("blocked", "a", "`a` blocks the run: credential")
    assert first.events == (len(history),)


# --- what has not begun --------------------------------------------------------------------------


def test_a_step_that_has_not_begun_names_what_it_waits_for_and_why_that_waits() -> None:
    """From one to the next, down to the cause."""
    stage = of({"nap": {"wait": {"for": "1h"}}, "b": tool(needs=["nap"]), "c": tool(needs=["b"])})
    assert [(reason.code, reason.path) for reason in told(stage, "c")] == [
        ("needs", "c"),
        ("needs", "b"),
        ("timer", "nap"),
    ]


def test_a_ready_step_says_what_keeps_it_from_beginning() -> None:
    """The run's own limit, a pause, or no room on its queue."""
    stage = of({"a": tool(), "b": tool()}, limits={"max_parallel": 1})
    (reason,) = told(stage, "b")
    assert (reason.code, reason.text) == (
        "concurrency",
        "`b` may begin; 1 steps are in flight, as many as `max_parallel` of the run allows",
    )
    paused = _paused()
    assert [reason.code for reason in told(paused, "b")] == ["pause"]
    full = Stage(plan({"a": tool()}), {})
    full.settle(left=LEFT_NONE)
    assert [reason.code for reason in told(full, "a")] == ["ready"]
    assert [(reason.code, reason.path) for reason in told(full)] == [("ready", "a")]


def test_what_is_inside_of_something_that_waits_says_so() -> None:
    """A step of a group that has not begun; and a stand-by says when it runs."""
    stage = of(
        {
            "nap": {"wait": {"for": "1h"}},
            "g": {"needs": ["nap"], "steps": {"x": tool()}},
            "h": tool(needs=["nap"], fallback="other"),
            "other": tool(),
        }
    )
    assert [(reason.code, reason.path) for reason in told(stage, "g/x")] == [
        ("not_begun", "g/x"),
        ("needs", "g"),
        ("timer", "nap"),
    ]
    assert told(stage, "other")[0].text == "`other` runs only when `h` fails"


def test_a_run_that_ended_says_what_never_began() -> None:
    """And why it ended."""
    stage = of({"a": tool(), "b": tool(needs=["a"])})
    stage.fail("a", "denied", retryable=False)
    stage.settle()
    assert [reason.code for reason in told(stage, "b")] == ["not_begun", "failed"]


def test_an_unknown_step_is_refused_with_those_that_exist() -> None:
    """Not answered with nothing."""
    with pytest.raises(NotFoundError, match=r"no step 'nope' in pipeline `demo`; it has a, g, g/x"):
        told(of({"a": tool(), "g": {"steps": {"x": tool()}}}), "nope")


# --- what has ended ------------------------------------------------------------------------------


def test_a_failed_run_leads_to_the_step_that_failed_first_and_its_report() -> None:
    """Through the group that it was in."""
    stage = of({"g": {"steps": {"x": tool()}, "retry": {"attempts": 1}}})
    stage.fail("g/x", "denied", retryable=False)
    stage.settle()
    run, step = told(stage)
    assert (run.code, run.path) == ("failed", "g")
    assert (step.code, step.path, step.text) == ("failed", "g/x", "`g/x` failed: denied: denied!")
    assert proofs(stage, step)[0] == "AttemptFailed"
    assert [reason.path for reason in told(stage, "g")] == ["g/x", "g"]


def test_a_failure_found_by_an_evaluation_leads_there() -> None:
    """A condition without a verdict fails its step."""
    stage = of({"a": tool(when="1 / inputs.n > 0")}, {"n": 0})
    (reason,) = told(stage)
    assert (reason.code, reason.path) == ("failed", "a")
    assert "expr_eval" in reason.text


def test_a_skipped_step_leads_to_the_condition_that_was_false() -> None:
    """By needs and by needs of needs."""
    stage = of({"a": tool(when="inputs.go"), "b": tool(needs=["a"]), "c": tool(needs=["b"])}, {"go": False})
    reasons = told(stage, "c")
    assert [(reason.code, reason.path) for reason in reasons] == [("skipped", "c"), ("skipped", "b"), ("skipped", "a")]
    assert reasons[-1].text == "`a` was skipped: its condition `inputs.go` is false"


def test_retries_are_told_attempt_by_attempt_with_their_reports() -> None:
    """Also when the step succeeded in the end; each proof is the report and the decision that it led to."""
    stage = of({"a": tool(retry={"attempts": 3, "initial": "1s"})})
    for code in ("unavailable", "rate_limited"):
        stage.fail("a", code)
        stage.settle()
        stage.until_due()
        stage.settle()
    stage.succeed("a")
    stage.settle()
    first, second, end = told(stage, "a")
    assert first.text.startswith("attempt 1 of `a` failed: unavailable: unavailable!; it was tried again after ")
    assert second.text.startswith("attempt 2 of `a` failed: rate_limited")
    assert [proofs(stage, reason) for reason in (first, second)] == [["AttemptFailed", "TimerSet"]] * 2
    assert (end.code, end.text) == ("completed", "`a` completed in attempt 3")
    assert proofs(stage, end) == ["AttemptSucceeded", "StepCompleted+RunCompleted"]
    assert [reason.code for reason in told(stage)] == ["completed"]


def test_a_failure_that_is_tolerated_or_stood_in_for_says_so() -> None:
    """`on_error: continue`, and a fallback while it is under way."""
    stage = of({"a": tool(on_error="continue"), "b": tool(fallback="c"), "c": tool()})
    for path in ("a", "b"):
        stage.fail(path, "denied", retryable=False)
        stage.settle()
    assert told(stage, "a")[0].text == "`a` failed: denied: denied!; the pipeline goes on all the same"
    assert [(reason.code, reason.path) for reason in told(stage)] == [("fallback", "b"), ("attempt", "c")]


def test_how_a_run_was_cancelled_and_what_is_undone() -> None:
    """Who asked, and what is being done about it."""
    stage = of({"a": tool(compensate="undo"), "undo": tool(), "b": tool(needs=["a"])})
    stage.succeed("a")
    stage.settle()
    stage.control("cancel")
    stage.settle()
    reasons = told(stage)
    assert [(reason.code, reason.path) for reason in reasons] == [
        ("undone", "a"),
        ("cancelling", ""),
        ("attempt", "undo"),
    ]
    assert proofs(stage, reasons[1]) == ["CancelRequested", "RunCancelling"]
    stage.succeed("undo")
    stage.settle()
    assert told(stage)[0].text == "the run was cancelled: because"


def test_a_stalled_run_names_what_stalled_it() -> None:
    """The message that showed it, and the engine's word."""
    stage = of({"a": tool()})
    last = stage.log[-1]
    assert isinstance(last, ev.RunDecided)
    stalled = ev.RunStalled(failure=Failure(code="upgrade_required", message="newer"), seq=1)
    data = ev.Decided(version=stage.run.version + 1, at_ms=NOON_MS, events=(stalled,))
    history = [*enumerate(stage.log, start=1), (9, msgspec.structs.replace(last, id="x", data=data))]
    first = explain(history, stage.plan, now_ms=NOON_MS)[0]
    assert (first.code, first.events) == ("stalled", (1, 9))


# --- what holds others ---------------------------------------------------------------------------


def test_what_is_under_way_is_told_of_the_innermost() -> None:
    """Items, iterations and groups are told by what they wait for; a step in the file means all its instances."""
    stage = of(
        {"each": {"foreach": "inputs.xs", "max_parallel": 2, "steps": {"x": tool()}}},
        {"xs": [1, 2, 3]},
    )
    assert [(reason.code, reason.path) for reason in told(stage)] == [
        ("attempt", "each[0]/x"),
        ("attempt", "each[1]/x"),
    ]
    stage.succeed("each[0]/x")
    stage.settle()
    assert [(reason.code, reason.path) for reason in told(stage, "each/x")] == [
        ("attempt", "each[1]/x"),
        ("attempt", "each[2]/x"),
        ("completed", "each[0]/x"),
    ]
    assert [reason.path for reason in told(stage, "each[1]")] == ["each[1]/x"]


def test_many_reasons_are_bounded() -> None:
    """And the rest is counted."""
    stage = of(
        {"each": {"foreach": "inputs.xs", "max_parallel": 100, **tool()}},
        {"xs": list(range(60))},
        limits={"max_parallel": 100},
    )
    reasons = told(stage)
    assert len(reasons) == REASONS_MAX + 1
    assert reasons[-1].text == "there are 10 more reasons; ask about one step"


def test_a_lost_race_proves_nothing() -> None:
    """A decision out of line and its order are not in the story."""
    stage = of({"a": tool()})
    lost = stage.log[-1]
    before = told(stage)
    stage.append(codec.decode(codec.encode(lost)), subjects.decision("x", "progressed"))
    assert told(stage) == before


def test_a_step_that_was_taken_over_names_the_run_that_did_it() -> None:
    """Whatever became of it there; the run itself is told by what it waits for."""
    found = (
        ev.Taken(path="a", status="succeeded"),
        ev.Taken(path="b", status="skipped"),
        ev.Taken(path="c", status="failed", attempt=1, failure=Failure(code="denied", message="no")),
    )
    forked = ev.RunForked(origin="old", seq=9, version=3, step="d", taken=found)
    steps = {"a": tool(), "b": tool(), "c": tool(on_error="continue"), "d": tool()}
    stage = Stage(plan(steps), {}, forked=forked)
    stage.settle()
    assert [(told(stage, step)[0].code, told(stage, step)[0].events) for step in "abc"] == [
        ("completed", (1,)),
        ("skipped", (1,)),
        ("failed", (1,)),
    ]
    assert told(stage, "a")[0].text == "`a` completed in run old, which this one goes on from"
    assert [(reason.code, reason.path) for reason in told(stage)] == [("attempt", "d")]
