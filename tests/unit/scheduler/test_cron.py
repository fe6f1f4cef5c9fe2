"""The core of schedules: whatever happens, in whatever order, an instant is fired once, never early, never lost."""

import copy
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.contracts import ids, pseudo
from headrace.contracts.canonical import canonical_json
from headrace.contracts.envelope import SPECVERSION
from headrace.pipeline.schedules import next_ms
from headrace_scheduler import cron as core
from headrace_scheduler.cron import Cron, Wanted
from headrace_scheduler.pseudo_messages import trigger_decided

MINUTE = 60_000
HOUR = 60 * MINUTE
BEGIN = 1_774_742_400_000  # 2026-03-29T00:00Z, an hour before Berlin's clocks go forward
RUN = ids.schedule_id("default", "nightly", 0)


@dataclass
class Log:
    """A schedule's history, and a clock."""

    now_ms: int = BEGIN
    messages: list[pseudo.PseudoMessage] = field(default_factory=list)
    deployed: list[Wanted] = field(default_factory=list)

    def state(self) -> Cron:
        """The fold of everything."""
        cron = Cron(run=RUN, tenant="default", pipeline="nightly")
        for seq, message in enumerate(self.messages, 1):
            core.evolve(cron, seq, message)
        return cron

    def deploy(self, cron: str = "*/10 * * * *", timezone: str = "UTC", catch_up: str = "once") -> None:
        """A definition with this schedule is the newest."""
        spec = pseudo.CronSpec(cron=cron, timezone=timezone, catch_up=catch_up)
        self.deployed.append(Wanted(seq=len(self.deployed) + 1, digest="d", schedule=spec, since_ms=self.now_ms))

    def retire(self) -> None:
        """Or there is none any more."""
        self.deployed.append(Wanted(seq=len(self.deployed) + 1, digest="", schedule=None, since_ms=self.now_ms))

    def ask(self, kind: Any, data: Any) -> None:
        """Somebody wants something."""
        self.messages.append(_message(kind, data, f"asked-{len(self.messages)}"))

    def decide(self, *, confirm: bool = True, version_of: Cron | None = None) -> pseudo.TriggerDecision | None:
        """One turn of an owner who has read everything, or only as much as `version_of`."""
        cron = version_of or self.state()
        ended: dict[int, core.Ended] = {
            due: pseudo.TriggerStarted(due_ms=due, run=run) for due, _, run in core.runs_to_start(cron) if confirm
        }
        before = canonical_json(_plain(cron))
        decision = core.decide(cron, self.deployed[-1] if self.deployed else None, ended, now_ms=self.now_ms)
        assert canonical_json(_plain(cron)) == before, "deciding changed the state it read"
        if decision is not None:
            self.messages.append(
                _message(pseudo.TriggerDecided, decision, trigger_decided(cron, decision, source="/s").id)
            )
        return decision

    def settle(self) -> None:
        """Turn until there is nothing to say."""
        for _ in range(10_000):
            if self.decide() is None:
                return
        raise AssertionError("it never comes to rest")

    def fired(self) -> list[tuple[int, int, bool]]:
        """(due, when decided, asked for) of every firing that counts."""
        version, found = 0, []
        for message in self.messages:
            if isinstance(message, pseudo.TriggerDecided) and message.data.version == version + 1:
                version += 1
                found += [
                    (event.due_ms, message.data.at_ms, event.backfill)
                    for event in message.data.events
                    if isinstance(event, pseudo.TriggerFired)
                ]
        return found


def _plain(cron: Cron) -> Any:
    import msgspec

    return msgspec.to_builtins(cron, str_keys=True)


def _message(kind: Any, data: Any, message_id: str) -> Any:
    return kind(
        specversion=SPECVERSION,
        id=message_id,
        source="/s",
        time="",
        schemaver=1,
        tenant="default",
        pipeline="nightly",
        runid=RUN,
        data=data,
    )


def due(log: Log) -> list[int]:
    """Instants fired of their own accord."""
    return [due_ms for due_ms, _, backfill in log.fired() if not backfill]


# --- one story each ----------------------------------------------------------------------------


def test_an_armed_schedule_fires_when_it_is_due_and_not_before() -> None:
    """Given */10, nothing is fired at 00:09:59.999, and 00:10 is at 00:10."""
    log = Log()
    log.deploy()
    log.settle()
    log.now_ms += 10 * MINUTE - 1
    log.settle()
    assert due(log) == []
    assert core.next_due_ms(log.state()) == BEGIN + 10 * MINUTE
    log.now_ms += 1
    log.settle()
    assert due(log) == [BEGIN + 10 * MINUTE]


@pytest.mark.parametrize(("catch_up", "count"), [("once", 1), ("all", 6), ("none", 0)])
def test_an_outage_of_an_hour_fires_as_catch_up_says(catch_up: str, count: int) -> None:
    """Six instants were missed: the newest of them, all of them, or none."""
    log = Log()
    log.deploy(catch_up=catch_up)
    log.settle()
    log.now_ms += 65 * MINUTE
    log.settle()
    assert len(due(log)) == count
    log.now_ms += 5 * MINUTE
    log.settle()
    assert len(due(log)) == count + 1, "and then it goes on as ever"


def test_an_instant_that_is_a_takeover_late_is_not_missed() -> None:
    """`catch_up: none` is about outages, not about the five seconds that a takeover takes."""
    log = Log()
    log.deploy(catch_up="none")
    log.settle()
    log.now_ms += 10 * MINUTE + 5_000
    log.settle()
    assert due(log) == [BEGIN + 10 * MINUTE]


def test_what_falls_due_while_paused_is_passed_over() -> None:
    """Resuming does not catch up what somebody did not want."""
    log = Log()
    log.deploy(catch_up="all")
    log.settle()
    log.ask(pseudo.TriggerPauseRequested, pseudo.Wish(reason="holiday"))
    log.settle()
    log.now_ms += HOUR + 1
    log.settle()
    assert due(log) == [] and core.next_due_ms(log.state()) is None
    log.ask(pseudo.TriggerResumeRequested, pseudo.Wish())
    log.settle()
    log.now_ms += 10 * MINUTE
    log.settle()
    assert due(log) == [BEGIN + 70 * MINUTE]


def test_a_deployment_with_another_schedule_replaces_the_old_one() -> None:
    """Nothing of the old one fires any more, and nothing before the deployment is caught up."""
    log = Log()
    log.deploy(catch_up="all")
    log.settle()
    log.now_ms += 5 * MINUTE
    log.deploy("7 * * * *", catch_up="all")
    log.now_ms += 30 * MINUTE
    log.settle()
    assert due(log) == [BEGIN + 7 * MINUTE]


def test_a_deployment_with_the_same_schedule_forgets_nothing() -> None:
    """What was missed before it is caught up after it; what was fired stays fired."""
    log = Log()
    log.deploy(catch_up="all")
    log.settle()
    log.now_ms += 25 * MINUTE
    log.deploy(catch_up="all")
    log.settle()
    assert due(log) == [BEGIN + 10 * MINUTE, BEGIN + 20 * MINUTE]


def test_a_retired_schedule_fires_nothing() -> None:
    """Until it is deployed again, and then from there on."""
    log = Log()
    log.deploy(catch_up="all")
    log.settle()
    log.retire()
    log.settle()
    log.now_ms += HOUR
    log.settle()
    assert due(log) == [] and core.status_of(log.state()) == "disarmed"
    log.deploy(catch_up="all")
    log.now_ms += 10 * MINUTE
    log.settle()
    assert due(log) == [BEGIN + HOUR + 10 * MINUTE]


def test_a_backfill_fires_the_past_and_leaves_the_present_alone() -> None:
    """Both ends are included; it goes on in helpings; the schedule itself goes on meanwhile."""
    log = Log()
    log.deploy()
    log.settle()
    log.ask(pseudo.TriggerBackfillRequested, pseudo.Span(from_ms=BEGIN - 5 * HOUR, to_ms=BEGIN))
    log.settle()
    asked = [due_ms for due_ms, _, backfill in log.fired() if backfill]
    assert asked == list(range(BEGIN - 5 * HOUR, BEGIN + 1, 10 * MINUTE))
    assert log.state().backfills == [] and due(log) == []


def test_one_backfill_too_many_is_refused_in_the_log() -> None:
    """Nothing is dropped without a word."""
    log = Log()
    log.deploy()
    for _ in range(core.BACKFILLS_MAX + 1):
        log.ask(pseudo.TriggerBackfillRequested, pseudo.Span(from_ms=BEGIN - 50 * HOUR, to_ms=BEGIN))
    decision = log.decide()
    assert decision is not None
    refusals = [event for event in decision.events if isinstance(event, pseudo.TriggerBackfillRefused)]
    assert [event.failure.code for event in refusals] == ["limit_exceeded"]


def test_what_was_fired_and_not_confirmed_is_started_again_by_the_next_owner() -> None:
    """A crash between the decision and the run costs nothing: both owners make the same run."""
    log = Log()
    log.deploy()
    log.settle()
    log.now_ms += 10 * MINUTE
    log.decide(confirm=False)
    first = core.runs_to_start(log.state())
    assert [due_ms for due_ms, _, _ in first] == [BEGIN + 10 * MINUTE]
    log.now_ms += HOUR
    assert core.runs_to_start(log.state()) == first
    log.settle()
    assert core.runs_to_start(log.state()) == []


# --- every story -------------------------------------------------------------------------------

STEP = st.one_of(
    st.tuples(st.just("wait"), st.integers(1, 3 * HOUR)),
    st.tuples(st.just("turn"), st.booleans()),
    st.tuples(st.just("two owners"), st.integers(0, 3 * MINUTE)),
    st.tuples(st.just("pause"), st.none()),
    st.tuples(st.just("resume"), st.none()),
    st.tuples(st.just("deploy"), st.sampled_from(["*/10 * * * *", "30 2 * * *", "7,37 * * * *"])),
    st.tuples(st.just("retire"), st.none()),
    st.tuples(st.just("backfill"), st.integers(0, 3 * HOUR)),
)
ZONE = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])


def _tell(log: Log, what: str, value: Any, zone: str, catch_up: str) -> None:
    match what:
        case "wait":
            log.now_ms += value
        case "turn":
            log.decide(confirm=value)
        case "two owners":
            stale = copy.deepcopy(log.state())
            log.decide(confirm=False)
            log.now_ms += value
            log.decide(version_of=stale)  # the other has read less: the fold does not take its decision
        case "pause":
            log.ask(pseudo.TriggerPauseRequested, pseudo.Wish())
        case "resume":
            log.ask(pseudo.TriggerResumeRequested, pseudo.Wish())
        case "deploy":
            log.deploy(value, zone, catch_up)
        case "retire":
            log.retire()
        case "backfill":
            log.ask(pseudo.TriggerBackfillRequested, pseudo.Span(from_ms=log.now_ms - value, to_ms=log.now_ms))


@settings(deadline=None)
@given(st.lists(STEP, max_size=25), ZONE, st.sampled_from(["once", "all", "none"]))
def test_an_instant_is_fired_once_of_its_own_accord_and_never_early(
    story: list[tuple[str, Any]], zone: str, catch_up: str
) -> None:
    """Whatever people and owners do: no instant twice, none before its time, none that the schedule does not have."""
    log = Log()
    log.deploy("*/10 * * * *", zone, catch_up)
    for what, value in story:
        _tell(log, what, value, zone, catch_up)
    log.settle()
    assert len(due(log)) == len(set(due(log)))
    specs = [one.schedule for one in log.deployed if one.schedule is not None]
    for due_ms, at_ms, _ in log.fired():
        assert due_ms <= at_ms
        assert any(next_ms(spec.cron, spec.timezone, due_ms - 1) == due_ms for spec in specs)
    assert log.state().starting == {} and log.state().asked == []


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 3 * HOUR), min_size=1, max_size=12), ZONE, st.sampled_from(["*/10 * * * *", "30 2 * * *"])
)
def test_with_catch_up_all_every_instant_is_fired_in_order(waits: list[int], zone: str, cron: str) -> None:
    """However irregularly an owner gets to it, the instants fired are exactly those of the schedule."""
    log = Log()
    log.deploy(cron, zone, "all")
    for wait_ms in waits:
        log.now_ms += wait_ms
        log.settle()
    expected, at_ms = list[int](), next_ms(cron, zone, BEGIN)
    while at_ms is not None and at_ms <= log.now_ms:
        expected.append(at_ms)
        at_ms = next_ms(cron, zone, at_ms)
    assert due(log) == expected


@settings(deadline=None)
@given(st.lists(st.integers(1, 3 * HOUR), min_size=1, max_size=12), ZONE)
def test_with_catch_up_once_every_look_fires_the_newest_missed_instant(waits: list[int], zone: str) -> None:
    """One run for each outage, however many instants fell into it, and for the last of them."""
    log = Log()
    log.deploy("*/10 * * * *", zone, "once")
    expected = []
    for wait_ms in waits:
        before, log.now_ms = log.now_ms, log.now_ms + wait_ms
        newest = log.now_ms - log.now_ms % (10 * MINUTE)
        if newest > before:
            expected.append(newest)
        log.settle()
    assert due(log) == expected
