"""Steps that ask a person: answered, rejected, not in time, twice; and what a command about them is told."""

from typing import Any

import pytest
from tests.builders import message, plan, tool
from tests.unit.scheduler.stage import Stage

from headrace.contracts import commands as cmd
from headrace.contracts import events as ev
from headrace.contracts.codec import decode, plain
from headrace.contracts.errors import TerminalError
from headrace.pipeline.plan import Plan, approval_hash
from headrace_scheduler import messages
from headrace_scheduler.answering import AnsweredError, ExpiredError, HashDiffersError, Question, check
from headrace_scheduler.damage import doubt

SHOWN = approval_hash({"message": "Publish?"})


def asking(text: str = "Publish?", **over: Any) -> dict[str, Any]:
    """A step that asks."""
    step = {key: over.pop(key) for key in ("needs", "fallback", "foreach", "max_parallel") if key in over}
    return {"approval": {"message": text, **over}, **step}


def of(steps: dict[str, Any], **top: Any) -> Stage:
    """A run of these steps, with everything decided that can be."""
    stage = Stage(plan(steps, **top))
    stage.settle()
    return stage


def answer(stage: Stage, step: str = "ok", **over: Any) -> bool:
    """Somebody answers; True when a decision may follow."""
    cause = over.pop("cause", "one")
    fields = {"step": step, "hash": SHOWN, "decision": "approve", "by": "ann", "at_ms": stage.now_ms} | over
    target = messages.Target("default", stage.plan.pipeline, stage.run_id)
    out = messages.approval_given(target, ev.GivenAnswer(**fields), cause=cause, source="/x")
    made = decode(out.body)
    assert isinstance(made, ev.ApprovalGiven)
    return stage.append(made, out.subject)


def test_an_approval_shows_its_message_and_gives_who_when_and_what() -> None:
    """Time alone approves nothing; the hash is that of the rendered message."""
    steps = {"a": {"transform": {"n": 3}}, "ok": asking("Publish ${{ steps.a.output.n }}?", by=["ann", "bob"])}
    stage = of(steps, outputs={"ok": "${{ steps.ok.output }}"})
    (asked,) = stage.events(ev.ApprovalRequested)
    assert plain(asked.shown.json) == {"message": "Publish 3?"}
    assert asked.hash == approval_hash({"message": "Publish 3?"})
    assert asked.by == ("ann", "bob")
    stage.later(60_000).settle()
    assert stage.status("ok") == "sleeping"
    assert answer(stage, hash=asked.hash, comment="fine")
    stage.settle()
    at = stage.events(ev.ApprovalGranted)
    assert [(event.path, event.by, event.comment) for event in at] == [("ok", "ann", "fine")]
    shown = stage.outputs()["ok"]
    assert {key: shown[key] for key in ("decision", "by", "comment")} == {
        "decision": "approved",
        "by": "ann",
        "comment": "fine",
    }
    assert shown["at"].endswith("Z")


def test_a_rejection_fails_the_step_with_a_code_of_its_own() -> None:
    """Who and why are in the message; something may stand in."""
    stage = of({"ok": asking(), "then": tool(needs=["ok"])})
    answer(stage, decision="reject", comment="not today")
    stage.settle()
    assert stage.run.failure is not None
    assert stage.run.failure.code == "rejected" and "ann: not today" in stage.run.failure.message
    stage = of({"ok": asking(fallback={"value": "no"})}, outputs={"ok": "${{ steps.ok.output }}"})
    answer(stage, decision="reject")
    stage.settle()
    assert stage.outputs() == {"ok": "no"}


@pytest.mark.parametrize(("over", "status"), [({}, "failed"), ({"on_timeout": "skip"}, "skipped")])
def test_an_approval_that_nobody_gives_in_time_fails_or_skips_its_step(over: dict[str, Any], status: str) -> None:
    """An answer after its time changes nothing; one that came in time counts, though it is seen late."""
    stage = of({"ok": asking(timeout="1m", **over)})
    assert stage.until_due() == stage.decisions[0].at_ms + 60_000
    stage.later(60_001)
    assert not answer(stage)
    stage.settle()
    assert stage.status("ok") == status
    if status == "failed":
        assert stage.run.failure is not None and stage.run.failure.code == "timeout"
    stage = of({"ok": asking(timeout="1m", **over)})
    assert answer(stage)
    stage.later(60_001).settle()
    assert stage.status("ok") == "succeeded"


def test_the_first_answer_counts_and_only_to_what_is_shown() -> None:
    """A second one, one before the question, and one with another hash change nothing."""
    stage = of({"a": tool(), "ok": asking(needs=["a"])})
    assert not answer(stage, cause="early")
    stage.succeed("a")
    stage.settle()
    assert not answer(stage, hash="0" * 64, cause="other")
    assert answer(stage, cause="one")
    assert not answer(stage, decision="reject", by="bob", cause="two")
    stage.settle()
    assert stage.run.status == "completed"
    assert [event.by for event in stage.events(ev.ApprovalGranted)] == ["ann"]


def test_every_item_asks_for_itself_and_a_paused_run_hears_too() -> None:
    """Answers belong to instances."""
    stage = of({"ok": asking("Item ${{ item }}?", foreach=[1, 2])}, outputs={"by": "${{ steps.ok.output.items }}"})
    stage.control("pause")
    for number, by in ((2, "bob"), (1, "ann")):
        shown = approval_hash({"message": f"Item {number}?"})
        assert answer(stage, f"ok[{number - 1}]", hash=shown, by=by, cause=by)
    stage.settle()
    assert [event.path for event in stage.events(ev.ApprovalGranted)] == ["ok[0]", "ok[1]"]
    stage.control("resume", cause="again")
    stage.settle()
    assert [item["by"] for item in stage.outputs()["by"]] == ["ann", "bob"]


def test_an_answer_survives_a_snapshot_and_a_log_without_it_is_damaged() -> None:
    """A reader never goes on with a guess."""
    stage = of({"ok": asking()})
    asked = len(stage.log)
    answer(stage)
    stage.settle()
    taken = next(
        made
        for made in stage.log[asked:]
        if isinstance(made, ev.RunDecided) and any(isinstance(event, ev.ApprovalGranted) for event in made.data.events)
    )
    assert "which is missing" in doubt(stage.folded(upto=asked), taken)
    assert doubt(stage.folded(upto=asked + 1, snapshot_at=asked + 1), taken) == ""


def test_a_message_that_nobody_could_read_is_not_shown() -> None:
    """Its step fails with the size and the bound."""
    stage = of({"ok": asking("x" * 70_000)})
    assert stage.run.failure is not None
    assert stage.run.failure.code == "too_large" and "65536" in stage.run.failure.message


# --- commands ----------------------------------------------------------------------------------


def told(stage: Stage, *, upto: int | None = None, **over: Any) -> str:
    """The code of the refusal of a command, empty when it may be stored."""
    fields = {"runid": "r1", "step": "ok", "hash": SHOWN, "by": "ann"} | over
    question = Question(fields["step"])
    for made in stage.log[:upto]:
        question.take(made)
    try:
        check(stage.plan, question, cmd.ApproveRun(**fields), now_ms=stage.now_ms)
    except TerminalError as error:
        return error.code
    return ""


def made_plan(**over: Any) -> Plan:
    """A step that asks after another."""
    return plan({"a": tool(), "ok": asking(needs=["a"], by=["ann", "bob"], timeout="1m", **over)})


def test_input_48_what_a_command_is_told() -> None:
    """Each reason has its own code, in every state of the question."""
    stage = Stage(made_plan())
    stage.settle()
    assert told(stage) == "conflict"  # nothing was shown
    stage.succeed("a")
    stage.settle()
    assert told(stage) == ""
    assert told(stage, step="a") == told(stage, step="gone") == told(stage, step="ok?spec") == "not_found"
    assert told(stage, by="eve") == "denied"
    assert told(stage, by="") == told(stage, comment="x" * 3_000) == "data_invalid"
    assert told(stage, hash="f" * 64) == HashDiffersError.code
    stage.now_ms += 60_001
    assert told(stage) == ExpiredError.code
    stage.now_ms -= 60_001
    answer(stage, by="bob")
    assert told(stage) == AnsweredError.code
    stage.settle()
    assert told(stage) == AnsweredError.code


def test_a_question_ends_with_its_time_its_run_and_what_is_around_it() -> None:
    """And is asked anew by the next attempt of a group, under another path."""
    stage = Stage(made_plan(on_timeout="skip"))
    stage.settle()
    stage.succeed("a")
    stage.settle()
    stage.later(60_001).settle()
    assert told(stage) == ExpiredError.code
    stage = Stage(plan({"ok": asking()}))
    stage.settle()
    stage.control("cancel")
    stage.settle()
    assert told(stage) == "conflict"
    inner = {"ok": asking(), "bad": tool(retry={"attempts": 1})}
    stage = Stage(plan({"g": {"steps": inner, "retry": {"attempts": 2, "initial": "1s"}}}))
    stage.settle()
    assert told(stage, step="g/ok") == ""
    stage.fail("g/bad", retryable=True)
    stage.settle()
    assert told(stage, step="g/ok") == "conflict"
    stage.later(5_000).settle()
    assert told(stage, step="g#2/ok") == ""


def test_decisions_that_lost_a_race_are_not_read() -> None:
    """As for every reader."""
    stage = of({"ok": asking()})
    question = Question("ok")
    for made in stage.log:
        question.take(made)
    lost = ev.Decided(version=2, at_ms=stage.now_ms, events=(ev.TimerFired(path="ok", timer="approval"),))
    question.take(message(ev.RunDecided, lost))
    assert question.state == "open"
