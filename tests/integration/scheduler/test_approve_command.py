"""`run-approve` through a real broker: what is accepted, what is refused, and that one of two answers wins."""

import asyncio
from typing import Any

from headrace.contracts import codec, subjects
from headrace.contracts import events as ev
from headrace.pipeline.plan import approval_hash
from headrace.runtime.clock import SystemClock
from headrace.runtime.jetstream import JetStreamBroker
from tests.conftest import until
from tests.engine import command, events_of, finished, history, outputs, put, running_scheduler, start

GATE = """\
pipeline: gate
inputs: {what: {type: string}}
steps:
  ok: {approval: {message: "Publish ${{ inputs.what }}?", by: [ann, bob], timeout: 20s, on_timeout: skip}}
outputs: {by: "${{ steps.ok.output.by }}", decision: "${{ steps.ok.output.decision }}"}
"""
SHORT = """\
pipeline: short
steps:
  ok: {approval: {message: "Publish it?", timeout: 100ms, on_timeout: skip}}
  hold: {signal: {name: go}}
"""


async def asked(broker: JetStreamBroker, run: str) -> ev.ApprovalRequested:
    """What a run asks, once it does."""
    found: list[Any] = []

    async def asks() -> bool:
        found[:] = events_of(await history(broker, run), ev.ApprovalRequested)
        return bool(found)

    await until(asks, within_s=10, what=f"{run} asks")
    request: ev.ApprovalRequested = found[0]
    return request


async def told(broker: JetStreamBroker, command_id: str, run: str, **over: Any) -> str:
    """The code of the refusal of an answer, empty when it is accepted."""
    data = {"runid": run, "step": "ok", "hash": approval_hash({"message": "Publish it?"}), "by": "ann"} | over
    answer = await command(broker, "run-approve", data, command_id=command_id)
    if isinstance(answer, ev.CommandAccepted):
        return ""
    assert isinstance(answer, ev.CommandRefused)
    return answer.data.reasons[0].code


async def test_input_47_an_answer_to_what_is_not_there_is_refused(broker: JetStreamBroker) -> None:
    """Unknown run 404, another tenant's run 404, unknown step 404, ended run 409 with its state."""
    async with running_scheduler(broker):
        await put(broker, GATE)
        await start(broker, "gate", "r1", what="it")
        await asked(broker, "r1")
        assert await told(broker, "c1", "r9") == "not_found"
        assert await told(broker, "c2", "r1", step="gone") == "not_found"
        await broker.append("hr.cmd.other.run-approve", _body("r1"), msg_id="c3")
        other = await _outcome(broker, "hr.outcome.other.c3")
        assert isinstance(other, ev.CommandRefused) and other.data.reasons[0].code == "not_found"
        assert await told(broker, "c4", "r1") == ""
        assert outputs(await finished(broker, "r1")) == {"by": "ann", "decision": "approved"}
        again = {"runid": "r1", "step": "ok", "hash": "x", "by": "ann"}
        answer = await command(broker, "run-approve", again, command_id="c5")
        assert isinstance(answer, ev.CommandRefused)
        assert answer.data.reasons[0].code == "conflict" and "completed" in answer.data.reasons[0].message


async def test_input_48_two_at_once_too_late_and_to_something_else(broker: JetStreamBroker) -> None:
    """Two people, two schedulers: one wins and the other gets 409; 410 after its time; 409 for another hash."""
    async with running_scheduler(broker), running_scheduler(broker, "s2"):
        await put(broker, GATE)
        await put(broker, SHORT)
        for number in range(8):
            run = f"r{number}"
            await start(broker, "gate", run, what="it")
            assert (await asked(broker, run)).by == ("ann", "bob")
            that = approval_hash({"message": "Publish that?"})
            assert await told(broker, f"{run}-hash", run, hash=that) == "hash_differs"
            assert await told(broker, f"{run}-eve", run, by="eve") == "denied"
            said = await asyncio.gather(
                told(broker, f"{run}-ann", run, by="ann"),
                told(broker, f"{run}-bob", run, by="bob", decision="reject"),
            )
            assert sorted(said) in (["", "already_answered"], ["", "conflict"]), said
            end = await finished(broker, run)
            if said[0] == "":
                assert outputs(end) == {"by": "ann", "decision": "approved"}
            else:
                assert isinstance(end, ev.RunFailed) and end.failure.code == "rejected"
            answers = [made for made in await history(broker, run) if isinstance(made, ev.ApprovalGiven)]
            assert len(answers) == 1
        await start(broker, "short", "late")
        request = await asked(broker, "late")
        await until(lambda: SystemClock().now_ms() > request.due_ms + 50, within_s=10, what="its time has passed")
        assert await told(broker, "late-ann", "late") == "expired"


async def test_the_same_answer_sent_again_is_told_the_same(broker: JetStreamBroker) -> None:
    """A command that was redelivered after its answer was stored is accepted once more, and changes nothing."""
    async with running_scheduler(broker):
        await put(broker, GATE + "# second\n")
        await start(broker, "gate", "r1", what="it")
        await asked(broker, "r1")
        assert await told(broker, "c1", "r1") == ""
        await finished(broker, "r1")
        assert await told(broker, "c1", "r1") == ""


def _body(run: str) -> bytes:
    shown = approval_hash({"message": "Publish it?"})
    return f'{{"runid": "{run}", "step": "ok", "hash": "{shown}", "by": "ann"}}'.encode()


async def _outcome(broker: JetStreamBroker, subject: str) -> ev.StoredMessage:
    found: list[ev.StoredMessage] = []

    async def answered() -> bool:
        stored = await broker.last(subjects.OUTCOMES, subject)
        if stored is not None:
            found.append(codec.decode(stored.body))
        return bool(found)

    await until(answered, within_s=10, what=subject)
    return found[0]
