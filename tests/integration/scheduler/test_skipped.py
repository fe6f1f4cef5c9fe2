"""A tail that passes a message over: the sweep finds what is stored and was never shown, and reads again."""

import pytest

from headrace.contracts import events as ev
from headrace.contracts import names, subjects
from headrace.runtime.eventlog import Stored
from headrace.runtime.jetstream import JetStreamBroker
from headrace.runtime.jetstream_tail import JetStreamTail
from tests.engine import events_of, finished, history, outputs, put, running_scheduler, start

ONE = """
pipeline: one
outputs: {x: "${{ steps.b.output }}"}
steps:
  a: {wait: {for: 100ms}}
  b: {needs: [a], transform: "${{ 2 }}"}
"""


async def test_an_own_decision_that_the_tail_skips_holds_its_run_up_until_the_sweep(
    broker: JetStreamBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a decision that is stored and acknowledged, when the consumer never delivers it, then a sweep notices, and
    the run ends as it would have, each step once."""
    monkeypatch.setattr(names, "SWEEP_S", 1.0)  # what waits 30 s in production
    hand_out, skipped = JetStreamTail.batch, []

    async def batch(self: JetStreamTail, *, max_count: int, wait_s: float) -> list[Stored]:
        messages = await hand_out(self, max_count=max_count, wait_s=wait_s)
        lost = next((stored for stored in messages if _is_second(stored)), None)
        if lost is None or skipped:
            return messages
        skipped.append(lost.seq)
        return [stored for stored in messages if stored is not lost]

    monkeypatch.setattr(JetStreamTail, "batch", batch)
    async with running_scheduler(broker):
        await put(broker, ONE)
        await start(broker, "one", "r1")
        assert outputs(await finished(broker, "r1")) == {"x": 2}

    assert len(skipped) == 1, skipped
    done = events_of(await history(broker, "r1"), ev.StepCompleted)
    assert [event.path for event in done] == ["a", "b"]


def _is_second(stored: Stored) -> bool:
    subject = subjects.parse_run_subject(stored.subject)
    return subject is not None and subject.kind == "decision" and subject.rest == "progressed"
