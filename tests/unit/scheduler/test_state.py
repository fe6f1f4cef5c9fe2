"""The fold of a run: what counts, what does not, and that it is the same for everybody."""

import asyncio
import json
from typing import Any

import msgspec
import pytest
from tests.builders import (
    DIGEST,
    NOON_MS,
    decided,
    example_events,
    example_messages,
    folded,
    message,
    order,
    plan,
    review_plan,
    run_created,
    scheduled,
    tool,
)
from tests.unit.scheduler.stage import Stage, state_hash

from headrace.contracts import events as ev
from headrace.contracts import rounds, subjects
from headrace.contracts.canonical import sha256_hex
from headrace.contracts.codec import decode, encode, inline
from headrace.contracts.errors import NewerSchemaError
from headrace.contracts.failure import Failure
from headrace.contracts.schemas import type_of
from headrace.runtime.clock import SystemClock
from headrace.runtime.memory import MemoryBroker
from headrace.runtime.memory_server import MemoryServer
from headrace.runtime.streams import stream_specs
from headrace_scheduler import snapshots
from headrace_scheduler.paths import part_of
from headrace_scheduler.records import Run, draft_of
from headrace_scheduler.state import apply, created, evolve

PLAN = plan({"a": tool(), "b": tool(needs=["a"])}, pipeline="review-repo")


def begun() -> Stage:
    """A run whose first step is out."""
    stage = Stage(PLAN)
    stage.settle()
    return stage


# --- decisions -----------------------------------------------------------------------------------


def test_a_second_creation_under_another_pipeline_is_outside_the_scope() -> None:
    """It must not become what the next decision is checked against: no append would pass any more."""
    run = folded(PLAN, decided(1, run_created()), decided(1, run_created(), pipeline="rival"))
    assert (run.version, run.decision_seq, run.late) == (1, 1, 1)


def test_a_history_begins_with_its_creation() -> None:
    """Anything else makes no run."""
    assert created(decided(1, run_created())) is not None
    assert created(decided(2, run_created())) is None
    assert created(decided(1, ev.RunResumed())) is None
    assert created(decided(1)) is None


@pytest.mark.parametrize("version", [0, 1, 2, 4, 100])
def test_only_the_next_version_counts(version: int) -> None:
    """A lost race, a repetition, a gap: whatever the broker should have refused, every reader ignores alike."""
    stage = begun()
    assert stage.run.version == 2
    before = stage.folded()
    late = decided(version, ev.RunCancelled(reason="x"), runid=stage.run_id)
    assert not stage.append(late)
    assert (stage.run.late, stage.run.decision_seq) == (1, len(stage.log))
    before.late, before.decision_seq = (
        1,
        len(stage.log),
    )  # the broker checks against whatever is newest
    assert stage.run == before


def test_of_two_decisions_of_one_version_the_first_stored_counts() -> None:
    """Reports and orders that name the other one are ignored."""
    stage = begun()
    stage.succeed("a", 1)
    decision = stage.propose()
    assert decision is not None
    stage.append(
        decided(3, ev.StepCompleted(path="a", attempt=1, output=inline(2)), scheduled("b"), runid=stage.run_id)
    )
    winner = stage.run.decision_id
    loser = stage.store(decision)
    assert stage.run.decision_id == winner != loser.id
    assert stage.output("a") == 2
    assert not stage.succeed("b", attempt=1, decision=loser.id, offer=1)
    assert stage.succeed("b", attempt=1, decision=winner, offer=1)


def test_nothing_counts_after_the_end() -> None:
    """Not even a decision of the next version."""
    stage = begun()
    stage.control("cancel")
    stage.settle()
    before = stage.run.version
    assert not stage.append(decided(before + 1, ev.RunResumed(), runid=stage.run_id))
    assert (stage.run.status, stage.run.version) == ("cancelled", before)


# --- reports -------------------------------------------------------------------------------------


def test_the_first_report_of_the_current_attempt_counts() -> None:
    """A second one, of whatever kind, does not."""
    stage = begun()
    assert stage.succeed("a", 1)
    assert not stage.succeed("a", 2)
    assert not stage.fail("a")
    stage.settle()
    assert stage.output("a") == 1
    assert not stage.succeed("a", 3)
    assert stage.run.late == 3


@pytest.mark.parametrize(
    "over",
    [{"attempt": 2}, {"attempt": 3}, {"decision": "someone else's"}, {"decision": ""}],
    ids=lambda over: str(over),
)
def test_a_report_of_another_attempt_or_decision_changes_nothing(over: dict[str, Any]) -> None:
    """It is counted, and that is all."""
    stage = begun()
    assert not stage.succeed("a", 1, **over)
    assert not stage.fail("a", **over)
    assert not stage.defer("a", **over)
    assert stage.run.reported == {} and stage.run.late == 3
    assert stage.decide() is None


def test_a_report_of_an_unknown_step_changes_nothing() -> None:
    """Also of a step that has not begun, and of an item that is long over."""
    stage = begun()
    for path in ("b", "zzz", "a[7]", "a?when", ""):
        assert not stage.succeed(path, 1, attempt=1, decision=stage.run.decision_id, offer=1)
    assert stage.decide() is None


def test_orders_that_nobody_asked_for_change_nothing() -> None:
    """Of another attempt, decision or step."""
    stage = begun()
    before = msgspec.json.decode(encode(stage.run), type=Run)
    good = stage.order("a")
    for over in ({"attempt": 2}, {"decision": "x"}, {"path": "b"}, {"path": "zzz"}):
        stage.publish(msgspec.structs.replace(good, **over))
    stage.run.late = 0
    assert stage.run == before


# --- orders that are missing ---------------------------------------------------------------------


def test_orders_missing_after_a_crash_are_derived_again_byte_for_byte() -> None:
    """Between decision and orders nothing is lost: state names what is missing, and gives the same orders."""
    wide = plan({f"s{n}": tool(**{"with": {"n": n, "x": "${{ inputs.x }}"}}) for n in range(4)}, inputs={"x": {}})
    stage = Stage(wide, {"x": [1.0, {"b": 2, "a": 1}]})
    decision = stage.propose()
    assert decision is not None
    made = stage.store(decision, orders=False)
    missing = stage.missing()
    assert list(missing) == ["s0", "s1", "s2", "s3"]
    for path, first in decision.orders.items():
        again = msgspec.structs.replace(first, decision=made.id, version=made.data.version)
        assert encode(missing[path]) == encode(again)
        stage.publish(missing[path])
    assert stage.missing() == {}


def test_a_decision_that_is_its_own_order_misses_none() -> None:
    """One message says both."""
    stage = begun()
    assert stage.missing() == {}
    assert stage.run.insts["a"].order_seq == stage.run.decision_seq


# --- drafts --------------------------------------------------------------------------------------


def test_a_draft_may_be_changed_without_changing_the_run() -> None:
    """Every event there is, applied to a draft."""
    stage = Stage(review_plan(), definitions={"publish": "d"})
    stage.settle()
    stage.succeed("list", {"paths": ["a", "b", "c"]})
    stage.settle()
    before = state_hash(stage.run)
    draft = draft_of(stage.run)
    for event in (
        ev.StepCompleted(path="review[0]", attempt=1, output=inline(1)),
        ev.StepFailed(path="review[1]", attempt=1, failure=Failure(code="x", message="x")),
        scheduled("review[2]", queue="llm"),
        ev.TimerSet(path="review[2]", timer="deferred", due_ms=NOON_MS + 1, attempt=1),
        ev.TimerFired(path="review[2]", timer="deferred"),
        ev.ChildEnded(path="child", attempt=1, child="x", status="completed"),
        ev.StepCompleted(path="child", attempt=1, output=inline(2)),
        ev.RunPaused(reason="x"),
        ev.RunResumed(),
        ev.RunCancelling(reason="x", due_ms=NOON_MS + 1),
        ev.StepCancelled(path="review[2]"),
        ev.RunCancelled(reason="x"),
    ):
        apply(draft, stage.plan, event, at_ms=NOON_MS + 5)
    assert draft.status == "cancelled"
    assert state_hash(stage.run) == before


@pytest.mark.parametrize(
    ("path", "item"),
    [
        ("review[3]", ("review", 3)),
        ("review", None),
        ("review?when", None),
        ("a[12]", ("a", 12)),
        ("?outputs", None),
        ("poll(2)", ("poll", 2)),
        ("a[1]/b[3]", ("a[1]/b", 3)),
    ],
)
def test_an_item_knows_its_place(path: str, item: tuple[str, int] | None) -> None:
    """The index is in the path."""
    assert part_of(path) == item


# --- examples that must fold for ever ------------------------------------------------------------

PREFIXES: dict[str, tuple[str, ...]] = {
    "run.created": (),
    "step.scheduled": (),
    "step.completed": ("step.scheduled",),
    "timer.set": ("step.scheduled",),
    "foreach.started": ("step.scheduled", "step.completed"),
    "step.failed": ("step.scheduled", "step.completed", "foreach.started"),
    "child.started": (),
    "child.ended": ("child.started",),
    "step.cancelled": ("child.started",),
    "timer.fired": ("child.started",),
    "step.skipped": (),
    "run.cancelled": ("run.cancelling",),
    "run.resumed": ("run.paused",),
}
"""What has to have happened before each event inside a decision."""


@pytest.mark.parametrize("kind", sorted(example_events()))
def test_every_event_that_a_decision_may_hold_folds(kind: str) -> None:
    """In a history where it makes sense; and the fold of the same bytes is the same."""
    events = example_events()
    short = kind.removeprefix("io.headrace.").removesuffix(".v1")
    before = [events[f"io.headrace.{name}.v1"] for name in PREFIXES.get(short, ())]
    if short in ("timer.fired", "step.skipped"):
        before.append(ev.StepCompleted(path="child", output=inline(1)) if before else ev.RunResumed())
    if short == "timer.fired":
        before.append(ev.TimerSet(path="pause", timer="wait", due_ms=NOON_MS))
    if short == "step.failed":
        before += [scheduled("review[0]", queue="llm"), scheduled("review[1]", queue="llm")]
    if short == "run.created":
        history = [decided(1, events[kind])]
    else:
        history = [decided(1, run_created()), decided(2, *before, events[kind])]
    whole = review_plan()
    run = folded(whole, *history)
    assert run.version == len(history) and run.late == 0
    assert folded(whole, *[decode(encode(one)) for one in history]) == run  # type: ignore[arg-type]  # run messages


@pytest.mark.parametrize(
    "kind", sorted(type_of(type(one)) for one in example_messages().values() if isinstance(one, ev.RunMessage))
)
def test_every_stored_message_of_a_run_folds(kind: str) -> None:
    """On a run that waits for exactly that."""
    example: Any = example_messages()[kind]
    out = scheduled("list", queue="tool-ws")
    events: list[ev.DecisionEvent] = [out, example_events()["io.headrace.child.started.v1"]]
    if isinstance(example, ev.ResumeRequested):
        events.append(ev.RunPaused(reason="x"))
    if isinstance(example, ev.ApprovalGiven):
        events.append(example_events()["io.headrace.approval.requested.v1"])
    if isinstance(example, ev.EventPublished):
        events.append(example_events()["io.headrace.emit.started.v1"])
    history: list[Any] = [decided(1, run_created()), decided(2, *events, id=order().decision)]
    run = folded(review_plan(), *history[:1] if isinstance(example, ev.RunDecided) else history)
    run.version = 0 if isinstance(example, ev.RunDecided) else run.version
    counts = evolve(run, 3, example, review_plan())
    assert counts is not isinstance(example, ev.StepOrdered | ev.AttemptStarted | rounds.RoundMessage)
    assert run.late == 0


# --- snapshots -----------------------------------------------------------------------------------


def busy() -> Stage:
    """A run with a bit of everything in flight."""
    steps = {
        "a": tool(),
        "f": tool(foreach="inputs.xs", max_parallel=2, on_item_error="continue"),
        "w": {"wait": {"for": "1h"}},
        "c": {"pipeline": "publish", "with": {}},
        "n": tool(effect="at_most_once"),
        "z": tool(needs=["a"]),
    }
    stage = Stage(plan(steps, inputs={"xs": {"type": "array"}}), {"xs": [1, 2, 3]}, definitions={"publish": "d"})
    stage.settle()
    stage.succeed("f[0]", {"x": 1.0})
    stage.fail("a")
    stage.claim("n")
    stage.settle()
    stage.control("pause")
    stage.defer("f[1]")
    return stage


def test_a_snapshot_is_the_state() -> None:
    """Written and read back, it is equal in everything, and goes on as if nothing had been."""
    stage = busy()
    snapshot = snapshots.Snapshot(part=1, seq=len(stage.log), runs=[stage.run])
    again = msgspec.json.decode(snapshots.encode(snapshot), type=snapshots.Snapshot)
    assert again.runs == [stage.run]
    assert state_hash(again.runs[0]) == state_hash(stage.run)
    for place in range(1, len(stage.log)):
        assert stage.folded(snapshot_at=place) == stage.run


async def test_otp_n2_a_snapshot_of_a_newer_format_is_not_read() -> None:
    """It is a cache: the history is read instead."""
    clock = SystemClock()
    broker = MemoryBroker(MemoryServer(clock), clock)
    stage = busy()
    data = snapshots.encode(snapshots.Snapshot(part=3, seq=9, runs=[stage.run]))
    async with asyncio.timeout(5):
        await broker.ensure_stream(_snapshots_stream())
        await snapshots.store(broker, 3, 9, data)
        whole = await snapshots.load(broker, 3)
        assert whole is not None and whole.runs == [stage.run] and whole.seq == 9
        for change in ({"format": snapshots.FORMAT + 1}, {"sha": sha256_hex(b"other")}, {"chunks": 9}):
            head = {"slot": 0, "chunks": 1, "sha": sha256_hex(data), "seq": 9, "format": snapshots.FORMAT} | change
            await broker.append(subjects.kv(subjects.SNAPSHOTS, "head.03"), json.dumps(head).encode())
            assert await snapshots.load(broker, 3) is None
        await broker.append(subjects.kv(subjects.SNAPSHOTS, "head.03"), b"garbage")
        assert await snapshots.load(broker, 3) is None


def _snapshots_stream() -> Any:
    return next(spec for spec in stream_specs() if spec.name == subjects.SNAPSHOTS)


def test_otp_n2_a_run_is_bound_to_its_definition_for_ever() -> None:
    """The digest is pinned by the first decision; no later event, and no other run's definition, changes it."""
    stage = Stage(PLAN)
    assert stage.run.defdigest == PLAN.digest != DIGEST
    stage.settle()
    stage.succeed("a")
    stage.settle()
    assert stage.run.defdigest == PLAN.digest
    assert {made.defdigest for made in stage.log if isinstance(made, ev.RunDecided)} == {PLAN.digest}
    assert msgspec.json.decode(encode(stage.run), type=Run).defdigest == PLAN.digest


def test_otp_n2_an_event_of_a_newer_schema_is_told_apart_before_it_is_folded() -> None:
    """The fold never sees it: decoding says so, and the owner stalls the run with that error."""
    body = encode(decided(3, ev.RunResumed())).replace(b"run.resumed.v1", b"run.resumed.v2")
    with pytest.raises(NewerSchemaError):
        decode(body)


def test_a_stalled_run_decides_nothing() -> None:
    """Its bytes are kept, its reports are folded, its status says why."""
    stage = begun()
    failure = Failure(code="upgrade_required", message="x")
    stage.append(decided(3, ev.RunStalled(failure=failure, seq=9), runid=stage.run_id))
    stage.succeed("a")
    assert (stage.run.status, stage.run.failure) == ("stalled", failure)
    assert stage.decide() is None and stage.until_due() is None


# --- inputs --------------------------------------------------------------------------------------


def test_the_same_command_delivered_again_is_the_same_request() -> None:
    """By its id, for the last 64; its effect is decided by what the run will be, not by what it is."""
    stage = begun()
    made = message(ev.PauseRequested, ev.Reason(reason="x"), runid=stage.run_id)
    assert stage.append(made)
    assert not stage.append(made)
    assert stage.run.controls == [("pause", "x")]


def test_memory_of_commands_is_bounded() -> None:
    """A run that is paused and resumed for years does not grow."""
    stage = begun()
    for n in range(200):
        stage.control("pause" if n % 2 == 0 else "resume", cause=str(n))
    stage.settle()
    assert len(stage.run.inputs_seen) <= 64
    assert stage.run.controls == []


def test_a_finished_map_shrinks_to_its_results() -> None:
    """Items that are over have no instance."""
    steps = {"f": tool(foreach="inputs.xs", max_parallel=2), "g": tool(needs=["f"])}
    stage = Stage(plan(steps, inputs={"xs": {"type": "array"}}), {"xs": list(range(20))})
    stage.settle()
    while "g" not in stage.running():
        assert len(stage.run.insts) <= 2 + 2
        stage.succeed(stage.running()[0])
        stage.settle()
    assert sorted(stage.run.insts) == ["f", "g"]
