"""The core of concurrency keys: never more than may be, first come first served, nothing kept, nobody left waiting."""

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.contracts import ids, pseudo
from headrace.contracts.envelope import SPECVERSION
from headrace_scheduler import key as core
from headrace_scheduler.key import Key
from headrace_scheduler.pseudo_messages import key_decided

KEY = ids.key_id("default", "deploy", "prod")
FAR = 10**9


@dataclass
class Log:
    """A key's history, a clock, and which runs live."""

    now_ms: int = 0
    messages: list[pseudo.KeyMessage] = field(default_factory=list)
    forgotten: int = 0
    """Messages before this one are not in a reader's memory: the key was idle, and was taken up again."""

    def state(self) -> Key:
        """The fold of everything."""
        key = Key(run=KEY, tenant="default", pipeline="deploy")
        for seq, message in enumerate(self.messages[self.forgotten :], 1 + self.forgotten):
            core.evolve(key, seq, message)
        return key

    def ask(self, run: str, *, limit: int = 1, on_excess: str = "queue", expires_ms: int = FAR) -> None:
        """A run asks, perhaps again."""
        data = pseudo.KeyAsk(run=run, max=limit, on_excess=on_excess, expires_ms=expires_ms)
        self.messages.append(_message(pseudo.KeyAsked, data, f"asked-{len(self.messages)}"))

    def release(self, run: str) -> None:
        """A run has ended and says so."""
        self.messages.append(_message(pseudo.KeyReleased, pseudo.KeyRelease(run=run), f"released-{len(self.messages)}"))

    def decide(self, *, ended: dict[str, str] | None = None, version_of: Key | None = None) -> list[pseudo.KeyEvent]:
        """One turn of an owner who has read everything, or only as much as `version_of`."""
        key = version_of or self.state()
        before = msgspec.json.encode(key)
        decision = core.decide(key, ended or {}, now_ms=self.now_ms)
        assert msgspec.json.encode(key) == before, "deciding changed the state it read"
        if decision is None:
            return []
        self.messages.append(_message(pseudo.KeyDecided, decision, key_decided(key, decision, source="/s").id))
        return list(decision.events)

    def granted(self) -> list[str]:
        """Runs in the order in which they were granted, in decisions that count."""
        version, found = 0, []
        for message in self.messages:
            if isinstance(message, pseudo.KeyDecided) and message.data.version == version + 1:
                version += 1
                found += [event.run for event in message.data.events if isinstance(event, pseudo.KeyGranted)]
        return found


def _message(kind: Any, data: Any, message_id: str) -> Any:
    return kind(
        specversion=SPECVERSION,
        id=message_id,
        source="/s",
        time="",
        schemaver=1,
        tenant="default",
        pipeline="deploy",
        runid=KEY,
        data=data,
    )


def test_one_at_a_time_and_first_come_first_served() -> None:
    """With `queue` the second waits for the first's end, and the third for the second's."""
    log = Log()
    for run in ("a", "b", "c"):
        log.ask(run)
    log.decide()
    assert list(log.state().holders) == ["a"] and list(log.state().queue) == ["b", "c"]
    log.release("a")
    log.decide()
    assert list(log.state().holders) == ["b"]
    log.release("b")
    log.release("c")  # cancelled while it waited
    log.decide()
    assert log.state().is_idle and log.granted() == ["a", "b"]


def test_asking_again_is_asking_once() -> None:
    """Whoever holds, waits or has asked a moment ago is not taken in a second time."""
    log = Log()
    for _ in range(2):
        for run in ("a", "b"):
            log.ask(run)
            log.ask(run)
        log.decide()
    assert log.granted() == ["a"] and list(log.state().queue) == ["b"] and log.decide() == []


def test_with_reject_one_too_many_is_refused() -> None:
    """It is not kept anywhere."""
    log = Log()
    log.ask("a", on_excess="reject")
    log.ask("b", on_excess="reject")
    events = log.decide()
    assert [type(event) for event in events] == [pseudo.KeyGranted, pseudo.KeyRefused]
    log.release("a")
    log.release("b")
    log.decide()
    assert log.state().is_idle and not log.state().released


def test_with_cancel_oldest_the_newest_runs_remain() -> None:
    """Given two that hold and three more: the oldest are to be cancelled, who waits included, and count until ended."""
    log = Log()
    for run in ("a", "b", "c", "d", "e"):
        log.ask(run, limit=2, on_excess="cancel_oldest")
        log.decide()
    assert list(log.state().revoked) == ["a", "b", "c"]
    assert list(log.state().holders) == ["a", "b"], "never more than two at a time"
    for run in ("c", "a", "b"):
        log.release(run)
        log.decide()
    assert list(log.state().holders) == ["d", "e"] and not log.state().revoked and log.granted() == ["a", "b", "d", "e"]


@pytest.mark.parametrize("reason", ["ended", "gone", "expired"])
def test_what_nobody_released_is_freed_all_the_same(reason: str) -> None:
    """Its end was seen, its history is gone, or its grant has expired."""
    log = Log()
    log.ask("a", expires_ms=1_000)
    log.ask("b")
    log.decide()
    assert core.next_due_ms(log.state()) == 1_000
    if reason == "expired":
        log.now_ms = 1_000
    events = log.decide(ended={} if reason == "expired" else {"a": reason, "of another time": reason})
    assert events == [
        pseudo.KeyFreed(run="a", reason=reason),
        pseudo.KeyGranted(run="b", max=1, expires_ms=FAR),
    ]


def test_a_key_that_was_forgotten_while_idle_is_taken_up_again() -> None:
    """A reader who knows nothing but that it was idle takes the decision that follows, whatever its number."""
    log = Log()
    log.ask("a")
    log.decide()
    log.release("a")
    log.decide()
    assert log.state().is_idle
    log.ask("b")
    log.decide()
    whole = log.state()
    log.forgotten = 4
    assert log.state() == whole and list(whole.holders) == ["b"]


def test_ten_thousand_who_wait_cost_little() -> None:
    """Decisions are bounded, and all are dealt with in their order."""
    log = Log()
    key, decisions = log.state(), 0
    for number in range(10_000):
        log.ask(f"r{number}", limit=3)
    for seq, message in enumerate(log.messages, 1):
        core.evolve(key, seq, message)
    while (decision := core.decide(key, {}, now_ms=0)) is not None:
        assert len(decision.events) <= core.EVENTS_MAX
        core.evolve(key, len(log.messages) + decisions, _message(pseudo.KeyDecided, decision, f"d{decisions}"))
        decisions += 1
    assert decisions == 10 and list(key.holders) == ["r0", "r1", "r2"] and next(iter(key.queue)) == "r3"


# --- every story -------------------------------------------------------------------------------

RUNS = [f"r{number}" for number in range(8)]
STEP = st.one_of(
    st.tuples(st.just("ask"), st.sampled_from(RUNS)),
    st.tuples(st.just("ask"), st.sampled_from(RUNS)),
    st.tuples(st.just("end"), st.sampled_from(RUNS)),
    st.tuples(st.just("vanish"), st.sampled_from(RUNS)),
    st.tuples(st.just("turn"), st.none()),
    st.tuples(st.just("two owners"), st.none()),
)


@settings(deadline=None)
@given(st.lists(STEP, max_size=40), st.integers(1, 3), st.sampled_from(["queue", "reject", "cancel_oldest"]))
def test_never_more_than_max_in_order_and_nothing_is_left(
    story: list[tuple[str, Any]], limit: int, on_excess: str
) -> None:
    """Whatever runs and owners do; when all have ended, with or without a word, the key is idle."""
    log, asked, ended = Log(), list[str](), dict[str, str]()
    refused: set[str] = set()

    def turn(events: list[pseudo.KeyEvent]) -> None:
        state = log.state()
        assert len(state.holders) <= limit
        refused.update(event.run for event in events if isinstance(event, pseudo.KeyRefused))

    for what, run in story:
        match what:
            case "ask" if run not in ended and run not in refused:
                log.ask(run, limit=limit, on_excess=on_excess)
                asked += [] if run in asked else [run]
            case "end" | "vanish" if run in asked and run not in ended:
                ended[run] = "ended"
                if what == "end":
                    log.release(run)
            case "turn":
                turn(log.decide(ended=ended))
            case "two owners":
                stale = log.state()
                turn(log.decide(ended=ended))
                log.decide(version_of=stale)
                turn([])
            case _:
                pass  # of a run that does not ask any more
    granted: list[str] = []
    for _ in range(100):
        turn(log.decide(ended=ended))
        state = log.state()
        if state.is_idle:
            break
        granted += [run for run in state.holders if run not in granted]
        ended |= dict.fromkeys((*state.revoked, *list(state.holders)[:1]), "ended")
    assert log.state().is_idle, "somebody waits for ever, or something is kept"
    order = log.granted()
    assert len(order) == len(set(order))
    assert order == [run for run in asked if run in order], "first come, first served"
    waited = {run for run in asked if run not in ended} - refused
    assert waited <= set(order)
