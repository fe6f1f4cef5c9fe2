"""Whether an order runs, and what reports and beats say."""

from typing import Any

import msgspec
import pytest
from tests.unit.step_executor.builders import NOON_MS, order, ordered, received

from headrace.contracts import codec, events, subjects
from headrace.contracts.errors import MalformedMessageError
from headrace.contracts.failure import Failure
from headrace.contracts.live import Held
from headrace_step_executor import decide
from headrace_step_executor.decide import Admission, Situation, admit
from headrace_step_executor.state import EndedRuns, Hands, Revoked


def situation(**fields: Any) -> Situation:
    given: dict[str, Any] = {
        "now_ms": NOON_MS, "ended": EndedRuns(), "revoked": Revoked(), "ends_known_from_seq": 1,
        "reconnected_s_ago": None,
    }  # fmt: skip
    return Situation(**(given | fields))


@pytest.mark.parametrize(
    ("came", "now", "expected"),
    [
        ({}, {}, Admission.RUN),
        ({"deliveries": 2}, {}, Admission.CHECK),
        ({"stored_ms": NOON_MS + 2_000}, {}, Admission.RUN),
        ({"stored_ms": NOON_MS + 2_001}, {}, Admission.CHECK),
        ({}, {"reconnected_s_ago": 59.9}, Admission.CHECK),
        ({}, {"reconnected_s_ago": 60.0}, Admission.RUN),
        ({"seq": 10}, {"ends_known_from_seq": 11}, Admission.CHECK),
        ({}, {"now_ms": NOON_MS + 600_000}, Admission.DROP),
        ({"due_ms": NOON_MS + 10}, {"now_ms": NOON_MS + 10}, Admission.DROP),
        ({"deliveries": 9}, {"now_ms": NOON_MS + 600_000}, Admission.DROP),
    ],
)
def test_an_order_that_could_be_stale_is_asked_about(
    came: dict[str, Any], now: dict[str, Any], expected: Admission
) -> None:
    """Redelivered, stored long after its decision, pulled soon after a reconnect, or from before we listened."""
    assert admit(received(**came), situation(**now)) is expected


def test_orders_of_ended_runs_and_revoked_attempts_are_let_go() -> None:
    """Whatever else is true of them."""
    ended, revoked = EndedRuns(), Revoked()
    ended.add("r1")
    revoked.add(Held(run="r2", path="a", attempt=1, offer=1))
    now = situation(ended=ended, revoked=revoked)
    assert admit(received("r1", deliveries=3), now) is Admission.DROP
    assert admit(received("r2"), now) is Admission.DROP
    assert admit(received("r2", offer=2), now) is Admission.RUN


def test_a_decision_with_an_order_is_its_own_order() -> None:
    """Its `decision` is empty on the wire and is the envelope's id."""
    data = events.Decided(version=2, at_ms=NOON_MS, events=(), order=order(decision=""))
    message = events.RunDecided(
        specversion="1.0",
        id="dec",
        source="s",
        time="t",
        schemaver=1,
        tenant="default",
        pipeline="p",
        runid="r1",
        data=data,
    )
    subject = subjects.decision(subjects.run_prefix("default", "p", "r1"), "scheduled.tool")
    found = decide.received_order(message, subject, stored_ms=0, seq=1, stream="s", deliveries=1)
    assert found.order.decision == "dec"
    assert found.prefix == subjects.run_prefix("default", "p", "r1")
    without = msgspec.structs.replace(message, data=msgspec.structs.replace(data, order=None))
    with pytest.raises(MalformedMessageError, match="without an order"):
        decide.received_order(without, subject, stored_ms=0, seq=1, stream="s", deliveries=1)


def test_a_message_that_contradicts_its_subject_is_malformed() -> None:
    """The subject is what permissions guard: another tenant, run or partition in the body is refused."""
    subject = subjects.order(subjects.run_prefix("default", "p", "r1"), "tool")
    for message, on in (
        (ordered(order(), tenant="evil"), subject),
        (ordered(order(), run="r2"), subject),
        (ordered(order()), subject.replace(subject.split(".")[4], "99", 1)),
        (ordered(order()), "hr.cmd.x.y"),
        (ordered(msgspec.structs.replace(order(), input=msgspec.UNSET)), subject),
    ):
        with pytest.raises(MalformedMessageError):
            decide.received_order(message, on, stored_ms=0, seq=1, stream="s", deliveries=1)


def test_the_id_of_a_report_covers_its_content_and_nothing_of_its_time() -> None:
    """Two results of one attempt have two ids; the same result reported twice has one."""
    came = received()
    one = events.Failed(decision="d1", offer=1, failure=Failure(code="x", message="y"))
    other = msgspec.structs.replace(one, failure=Failure(code="x", message="z"))
    first = decide.failed(came, one, source="a", now_ms=NOON_MS)
    assert first.id == decide.failed(came, one, source="b", now_ms=NOON_MS + 5).id
    assert first.id != decide.failed(came, other, source="a", now_ms=NOON_MS).id
    assert first.subject == f"{came.prefix}.report.attempt-failed"
    message = codec.decode(first.body)
    assert isinstance(message, events.AttemptFailed)
    assert (message.causationid, message.stepid, message.attempt) == ("d1", "a", 1)


def test_an_ambiguous_failure_of_an_at_most_once_call_is_unknown() -> None:
    """Only once the call was begun, only where nobody can tell; `on_unknown: retry` makes it retryable."""
    late = Failure(code="timeout", message="m", retryable=True)
    once = order(effect="at_most_once")
    assert decide.settled_failure(order(), late, called=True) is late
    assert decide.settled_failure(once, late, called=False) is late
    unknown = decide.settled_failure(once, late, called=True)
    assert (unknown.code, unknown.retryable) == ("outcome_unknown", False)
    again = order(effect="at_most_once", on_unknown="retry")
    assert decide.settled_failure(again, late, called=True).retryable
    known = Failure(code="http_status", message="m")
    assert decide.settled_failure(once, known, called=True) is known


def test_beats_list_everything_when_full_and_say_goodbye_empty() -> None:
    """A full beat carries no differences; the last one holds nothing."""
    hands = Hands()
    hands.take(("r", "a", 1), 1)
    me = decide.Self(instance="e", boot="b", version="1", queues=("tool",))
    full = decide.beat(me, hands, counter=1, full=True, ready=True, providers=("echo",))
    assert (full.taken, full.full) == ((), (Held(run="r", path="a", attempt=1, offer=1),))
    assert decide.beat(me, hands, counter=2, full=False, ready=True, providers=()).full is None
    assert decide.farewell(me, counter=3).leaving
