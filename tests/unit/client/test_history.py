"""The view of a run, folded from its history."""

from tests.builders import NOON_MS, RUN, decided, failure, message, order, run_created, scheduled

from headrace.client.history import RunView
from headrace.contracts import events as ev
from headrace.contracts.codec import inline


def succeeded(path: str, output: object, **over: object) -> ev.AttemptSucceeded:
    """A report."""
    data = ev.Succeeded(decision=order().decision, offer=1, output=inline(output))
    made: ev.AttemptSucceeded = message(ev.AttemptSucceeded, data, stepid=path, attempt=1, **over)
    return made


def viewed(*messages: ev.StoredMessage) -> RunView:
    """The view after these."""
    view = RunView(RUN)
    for seq, one in enumerate(messages, start=1):
        view.take(one, seq=seq)
    return view


def test_a_step_has_the_output_of_the_report_that_was_accepted() -> None:
    """A report that no decision names is nobody's output."""
    accepted, ignored = succeeded("list", {"n": 1}), succeeded("list", {"n": 2})
    view = viewed(
        decided(1, run_created(), scheduled("list")),
        accepted,
        ignored,
        decided(2, ev.StepCompleted(path="list", attempt=1, report=accepted.id), at_ms=NOON_MS + 1_500),
    )
    step = view.steps["list"]
    assert step.output == accepted.data.output
    assert (step.status, step.ended_ms - step.began_ms) == ("completed", 1_500)
    assert (view.version, view.seq) == (2, 4)


def test_a_decision_out_of_line_changes_nothing() -> None:
    """Version n + 1 after n and nothing else: a lost race shows nowhere."""
    view = viewed(decided(1, run_created()), decided(3, ev.RunCancelled(reason="no")), decided(1, run_created()))
    assert (view.status, view.version) == ("running", 1)


def test_items_are_counted_by_their_step() -> None:
    """Done and failed, whatever their order."""
    view = viewed(
        decided(1, run_created(), ev.ForeachStarted(path="each", items=inline([1, 2, 3]), count=3)),
        decided(2, scheduled("each[0]"), scheduled("each[1]")),
        decided(
            3,
            ev.StepFailed(path="each[1]", attempt=1, failure=failure(), tolerated=True),
            ev.StepCompleted(path="each[0]", attempt=1),
        ),
    )
    assert (view.steps["each"].count, view.steps["each"].done, view.steps["each"].failed) == (3, 2, 1)
    assert [step.path for step in view.top()] == ["each"]


def test_evaluations_are_no_steps() -> None:
    """What an executor evaluates for the scheduler is not shown."""
    view = viewed(decided(1, run_created(), scheduled("list?when"), scheduled("list")))
    assert list(view.steps) == ["list"]


def test_how_it_ended_is_the_status_with_its_reason() -> None:
    """Completed with outputs, failed with the step, cancelled with the reason."""
    done = viewed(decided(1, run_created(), ev.RunCompleted(outputs=inline({"a": 1}))))
    assert done.ended
    assert done.outputs == inline({"a": 1})
    failed = viewed(decided(1, run_created(), ev.RunFailed(failure=failure(code="denied"), path="list")))
    assert (failed.status, failed.failed_path) == ("failed", "list")
    assert failed.failure == failure(code="denied")
    paused = viewed(decided(1, run_created(), ev.RunPaused(reason="lunch")))
    assert (paused.status, paused.reason, paused.ended) == ("paused", "lunch", False)


def test_an_artifact_written_twice_is_shown_once() -> None:
    """The newest of each path, in order of path."""
    old, new, other = (
        ev.Artifact(path=path, ref=f"{RUN}/{number}", size=number)
        for path, number in (("b.md", 1), ("b.md", 2), ("a.md", 3))
    )
    reports = []
    for path, kept in (("one", (old,)), ("two", (new, other))):
        data = ev.Succeeded(decision=order().decision, offer=1, output=inline(None), artifacts=kept)
        reports.append(message(ev.AttemptSucceeded, data, stepid=path, attempt=1))
    ends = [ev.StepCompleted(path=one.stepid, attempt=1, report=one.id) for one in reports]
    view = viewed(decided(1, run_created(), scheduled("one"), scheduled("two")), *reports, decided(2, *ends))
    assert view.artifacts == (other, new)


def test_the_error_before_a_retry_stays_visible() -> None:
    """A retry says what it is for, and until when it waits."""
    timer = ev.TimerSet(path="list", timer="retry", due_ms=NOON_MS + 700, attempt=1, delay_ms=700, failure=failure())
    step = viewed(decided(1, run_created(), scheduled("list")), decided(2, timer)).steps["list"]
    assert (step.status, step.due_ms, step.failure) == ("retrying", NOON_MS + 700, failure())
