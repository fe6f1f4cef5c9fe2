"""The run list is a fold of decisions and of nothing else."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.monitor.builders import created, decided

from headrace.contracts import codec
from headrace.contracts.canonical import canonical_json, sha256_hex
from headrace.contracts.envelope import Value
from headrace.contracts.events import (
    DecisionEvent,
    RunBlocked,
    RunCancelled,
    RunCancelling,
    RunCompleted,
    RunDecided,
    RunFailed,
    RunPaused,
    RunResumed,
    RunStalled,
    StepCompleted,
    StepFailed,
    StepScheduled,
    StepSkipped,
    TimerSet,
)
from headrace.contracts.failure import Failure
from headrace.contracts.live import RunRow
from headrace_monitor.state import Board, board_hash, evolve, inputs_sha, newest

BROKEN = Failure(code="broken", message="it broke")
DONE = RunCompleted(outputs=codec.inline({}))


def fold(*messages: RunDecided, runs_max: int = 100) -> Board:
    board = Board(runs_max=runs_max)
    for message in messages:
        evolve(board, message)
    return board


def rows(board: Board) -> list[RunRow]:
    return list(newest(board, tenant="default"))


def scheduled(path: str, attempt: int = 1) -> StepScheduled:
    return StepScheduled(path=path, attempt=attempt, queue="tool", input_sha="i", not_after_ms=1, due_ms=2)


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (DONE, "completed"),
        (RunFailed(failure=BROKEN), "failed"),
        (RunCancelling(reason="r", due_ms=9), "cancelling"),
        (RunCancelled(reason="r"), "cancelled"),
        (RunPaused(reason="r"), "paused"),
        (RunResumed(), "running"),
        (RunBlocked(reason="approval"), "blocked"),
        (RunStalled(failure=BROKEN), "stalled"),
    ],
)
def test_the_status_is_what_the_last_decision_says(event: DecisionEvent, status: str) -> None:
    """Every event about the run itself has its status."""
    (only,) = rows(fold(decided("r", 1, created()), decided("r", 2, event)))
    assert only.status == status


def test_steps_are_counted_by_where_they_are_now() -> None:
    """A step that is retried moves between statuses and is never counted twice."""
    board = fold(
        decided("r", 1, created(), scheduled("a"), scheduled("b"), StepSkipped(path="c", reason="when")),
        decided("r", 2, TimerSet(path="a", timer="retry", due_ms=5), StepFailed(path="b", attempt=1, failure=BROKEN)),
        decided("r", 3, scheduled("a", 2)),
        decided("r", 4, StepCompleted(path="a", attempt=2), DONE),
    )
    assert rows(board)[0].steps == {"completed": 1, "failed": 1, "skipped": 1}


def test_a_blocked_run_that_moves_is_running_again() -> None:
    """What it waited for has come, or it would not have moved."""
    board = fold(decided("r", 1, created()), decided("r", 2, RunBlocked(reason="x")), decided("r", 3, scheduled("a")))
    assert rows(board)[0].status == "running"


def test_only_the_next_version_counts() -> None:
    """A lost race that the broker should have refused is ignored by every reader alike."""
    board = fold(
        decided("r", 1, created()),
        decided("r", 1, RunFailed(failure=BROKEN)),
        decided("r", 3, DONE),
        decided("r", 2, DONE),
        decided("r", 3, RunFailed(failure=BROKEN)),
    )
    assert (rows(board)[0].status, board.ignored) == ("completed", 3)


def test_the_list_is_bounded_and_ended_runs_go_first() -> None:
    """An open run stays in the list as long as there is an ended one to drop."""
    messages = [decided(f"r{index}", 1, created()) for index in range(3)]
    board = fold(*messages, decided("r1", 2, DONE), decided("r9", 1, created()), runs_max=3)
    assert ([row.run for row in rows(board)], board.evicted) == (["r9", "r2", "r0"], 1)
    evolve(board, decided("r8", 1, created()))
    assert [row.run for row in rows(board)] == ["r8", "r9", "r2"]


def test_filters_show_a_tenant_its_own_runs_alone() -> None:
    """Tenant, pipeline and status narrow the list."""
    board = fold(decided("a", 1, created()), decided("b", 1, created(), DONE), decided("c", 1, created(), tenant="t"))
    assert [row.run for row in newest(board, tenant="t")] == ["c"]
    assert [row.run for row in newest(board, tenant="default", status="completed")] == ["b"]
    assert list(newest(board, tenant="default", pipeline="other")) == []


def test_the_hash_of_inputs_is_the_same_inline_and_by_reference() -> None:
    """Whoever looks for a run with the same inputs need not know how they are held."""
    digest = sha256_hex(canonical_json({"b": 1, "a": 2}))
    assert inputs_sha(codec.inline({"b": 1, "a": 2})) == digest
    assert inputs_sha(Value(ref=f"r/{digest}", size=9)) == digest


EVENTS = st.one_of(
    st.builds(scheduled, st.sampled_from("abc"), st.integers(1, 3)),
    st.builds(StepCompleted, path=st.sampled_from("abc"), attempt=st.integers(1, 3)),
    st.builds(StepFailed, path=st.sampled_from("abc"), attempt=st.just(1), failure=st.just(BROKEN)),
    st.builds(TimerSet, path=st.sampled_from("abc"), timer=st.sampled_from(["retry", "wait"]), due_ms=st.just(1)),
    st.sampled_from([DONE, RunPaused(reason=""), RunResumed(), RunStalled(failure=BROKEN)]),
    st.builds(created, x=st.integers(0, 3)),
)
DECISIONS = st.builds(
    lambda run, version, events: decided(run, version, *events),
    st.sampled_from(["r1", "r2", "r3", "r4", "r5"]),
    st.integers(1, 4),
    st.lists(EVENTS, max_size=4),
)


@given(st.lists(DECISIONS, max_size=40), st.integers(0, 40))
def test_a_rebuild_from_zero_is_the_live_board(messages: list[RunDecided], cut: int) -> None:
    """Whatever the decisions, races and evictions included: folding again gives the same hash, from any
    copy."""
    live = fold(*messages, runs_max=3)
    copied = copy.deepcopy(fold(*messages[:cut], runs_max=3))
    for message in messages[cut:]:
        evolve(copied, codec.decode(codec.encode(message)))  # type: ignore[arg-type]  # only RunDecided goes in
    assert board_hash(fold(*messages, runs_max=3)) == board_hash(live) == board_hash(copied)
    for run in live.runs.values():
        assert sum(run.counts.values()) >= len(run.open_steps)
        assert all(count > 0 for count in run.counts.values())
