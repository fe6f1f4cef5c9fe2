"""P13: a call that may happen once only, and whose outcome nobody knows. A person says what became of it."""

from typing import Any

from tests.builders import plan, tool
from tests.unit.scheduler.stage import Stage

from headrace.contracts import commands as cmd
from headrace.contracts import events as ev
from headrace.contracts.codec import decode, inline, plain
from headrace.contracts.errors import TerminalError
from headrace_scheduler import messages
from headrace_scheduler.answering import Question, check
from headrace_scheduler.damage import doubt


def once(**over: Any) -> dict[str, Any]:
    """A call that is made at most once."""
    return tool(effect="at_most_once", on_unknown="ask", timeout="10s", deadline="1m", **over)


def asking(**over: Any) -> Stage:
    """A run whose call was begun, and nobody knows how it went."""
    stage = Stage(plan({"s": once(**over)}, outputs={"s": "${{ steps.s.output }}"}))
    stage.settle()
    stage.claim("s")
    stage.settle(lost=frozenset({"s"}))
    return stage


def asked(stage: Stage) -> ev.ApprovalRequested:
    """The newest question."""
    found: ev.ApprovalRequested = stage.events(ev.ApprovalRequested)[-1]
    return found


def answer(stage: Stage, decision: str, *, cause: str = "one", **over: Any) -> bool:
    """Somebody answers it."""
    request = asked(stage)
    fields = {"step": "s", "hash": request.hash, "by": "ann", "at_ms": stage.now_ms, "attempt": request.attempt} | over
    target = messages.Target("default", stage.plan.pipeline, stage.run_id)
    out = messages.approval_given(target, ev.GivenAnswer(decision=decision, **fields), cause=cause, source="/x")
    made = decode(out.body)
    assert isinstance(made, ev.ApprovalGiven)
    return stage.append(made, out.subject)


def test_promise_p13_an_unknown_outcome_is_asked_for_and_nothing_is_called_meanwhile() -> None:
    """However long: the step's own deadline is not a person's; what is shown says which attempt of what it was."""
    stage = asking()
    request = asked(stage)
    shown = plain(request.shown.json)
    assert (
        shown["attempt"] == 1 and shown["call"] == "demo.echo" and "of `s` (demo.echo) is unknown" in shown["message"]
    )
    assert request.unknown is not None and request.unknown.code == "outcome_unknown"
    stage.later(20 * 60_000).settle()
    assert stage.status("s") == "sleeping" and not stage.events(ev.StepFailed)
    assert len(stage.events(ev.StepScheduled)) == 1


def test_complete_gives_the_value_that_was_answered() -> None:
    """As if the call had reported it."""
    stage = asking()
    assert answer(stage, "complete", value=inline({"id": 7}), comment="I looked")
    stage.settle()
    assert stage.outputs() == {"s": {"id": 7}}
    assert [(one.decision, one.by, one.comment) for one in stage.events(ev.OutcomeSettled)] == [
        ("complete", "ann", "I looked")
    ]


def test_fail_fails_the_step_as_unknown() -> None:
    """With what was known of it."""
    stage = asking()
    assert answer(stage, "fail")
    stage.settle()
    assert stage.run.failure is not None and stage.run.failure.code == "outcome_unknown"


def test_retry_makes_the_call_again_and_it_may_be_asked_for_again() -> None:
    """Also when no attempt was left, and with the time of a step that begins; each attempt has its own question."""
    stage = asking(retry={"attempts": 1})
    stage.later(20 * 60_000)
    assert answer(stage, "retry")
    stage.settle()
    assert [event.attempt for event in stage.events(ev.StepScheduled)] == [1, 2]
    assert (
        stage.order("s").claim_seq
        == stage.log.index(next(m for m in stage.log if isinstance(m, ev.AttemptStarted))) + 1
    )
    stage.claim("s")
    stage.settle(lost=frozenset({"s"}))
    assert asked(stage).attempt == 2
    assert not answer(stage, "retry", attempt=1, cause="late")
    assert answer(stage, "complete", value=inline(1), cause="two")
    stage.settle()
    assert stage.outputs() == {"s": 1}


def test_a_report_that_comes_after_all_is_the_truth() -> None:
    """It wins over an answer that no decision has taken."""
    stage = asking()
    assert stage.succeed("s", 5)
    answer(stage, "fail")
    stage.settle()
    assert stage.outputs() == {"s": 5}
    assert not stage.events(ev.OutcomeSettled)


def test_a_call_that_was_never_begun_is_no_question() -> None:
    """An executor that dies before the claim has called nobody."""
    stage = Stage(plan({"s": once()}))
    stage.settle()
    stage.settle(lost=frozenset({"s"}))
    assert not stage.events(ev.ApprovalRequested)


def test_cancelling_ends_the_question_and_a_log_without_its_answer_is_damaged() -> None:
    """As of any other wait."""
    stage = asking()
    said = len(stage.log)
    answer(stage, "fail")
    stage.settle()
    taken = next(made for made in stage.log[said:] if isinstance(made, ev.RunDecided))
    assert "which is missing" in doubt(stage.folded(upto=said), taken)
    assert doubt(stage.folded(upto=said + 1, snapshot_at=said + 1), taken) == ""
    stage = asking()
    stage.control("cancel")
    stage.settle()
    assert stage.run.status == "cancelled" and not answer(stage, "retry")


def test_what_a_command_is_told() -> None:
    """An outcome is no approval, and the other way round."""
    stage = asking()

    def told(decision: Any) -> str:
        question = Question("s")
        for made in stage.log:
            question.take(made)
        body = cmd.ApproveRun(runid="r1", step="s", hash=asked(stage).hash, by="ann", decision=decision)
        try:
            check(stage.plan, question, body, now_ms=stage.now_ms)
        except TerminalError as error:
            return error.code
        return ""

    assert told("approve") == told("reject") == "data_invalid"
    assert told("retry") == told("fail") == told("complete") == ""
    answer(stage, "retry")
    assert told("fail") == "already_answered"
    stage.settle()
    stage.claim("s")
    stage.settle(lost=frozenset({"s"}))
    assert told("fail") == ""
