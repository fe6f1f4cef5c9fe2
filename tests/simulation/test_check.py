"""The checker is independent of the engine, and notices histories that were tampered with."""

import ast
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from headrace.contracts import codec
from headrace.contracts import events as ev
from headrace.contracts.envelope import Value
from headrace.runtime.eventlog import Stored
from tests.simulation.check import RUNS, violations
from tests.simulation.faults import listed
from tests.simulation.world import Record, simulate


@pytest.fixture(scope="module")
def sound() -> Record:
    """A history with retries, children and at-most-once calls, without a fault."""
    return simulate(0, faults=listed({}))


def with_runs(record: Record, messages: list[Stored]) -> Record:
    """The record with another history of its runs."""
    renumbered = [stored._replace(seq=seq) for seq, stored in enumerate(messages, 1)]
    return replace(record, history={**record.history, RUNS: renumbered}, acks=[])


def first_index(record: Record, kind: type[object]) -> int:
    """Where the first decision with such an event stands."""
    for index, stored in enumerate(record.history[RUNS]):
        message = codec.decode(stored.body)
        if isinstance(message, ev.RunDecided) and any(isinstance(event, kind) for event in message.data.events):
            return index
    pytest.fail(f"no {kind.__name__} in the history")


def test_the_checker_does_not_know_the_engine() -> None:
    """Otherwise it would believe the engine's mistakes."""
    for name in ("automaton.py", "check.py"):
        tree = ast.parse((Path(__file__).parent / name).read_text(encoding="utf-8"))
        imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert not [module for module in imported if module.startswith(("headrace_", "headrace.pipeline"))]


def test_a_sound_history_breaks_nothing(sound: Record) -> None:
    """The starting point of the others."""
    assert violations(sound) == []


def test_a_missing_decision_is_noticed(sound: Record) -> None:
    """Versions have no gaps."""
    messages = list(sound.history[RUNS])
    del messages[first_index(sound, ev.StepCompleted)]
    assert any("is stored after" in text for text in violations(with_runs(sound, messages)))


def test_a_decision_stored_twice_is_noticed(sound: Record) -> None:
    """The broker's check would have refused it."""
    messages = list(sound.history[RUNS])
    at = first_index(sound, ev.StepCompleted)
    messages.insert(at + 1, messages[at])
    assert any("is stored after" in text for text in violations(with_runs(sound, messages)))


def test_changed_content_is_noticed(sound: Record) -> None:
    """Ids recompute from what they stand for."""
    messages = list(sound.history[RUNS])
    at = first_index(sound, ev.StepScheduled)
    messages[at] = messages[at]._replace(body=messages[at].body.replace(b'"due_ms":', b'"due_ms":1'))
    assert any("does not recompute" in text for text in violations(with_runs(sound, messages)))


def test_a_missing_report_is_noticed(sound: Record) -> None:
    """A completion needs the report that it names."""
    reports = (ev.AttemptSucceeded,)
    messages = list(sound.history[RUNS])
    at = next(i for i, stored in enumerate(messages) if isinstance(codec.decode(stored.body), reports))
    del messages[at]
    assert any("completed by report" in text for text in violations(with_runs(sound, messages)))


def test_a_run_that_completes_too_early_is_noticed(sound: Record) -> None:
    """Every step has to end first."""
    messages = list(sound.history[RUNS])
    at = first_index(sound, ev.StepCompleted)
    message = codec.decode(messages[at].body)
    assert isinstance(message, ev.RunDecided)
    early = msgspec.structs.replace(message.data, events=(ev.RunCompleted(outputs=Value()),))
    messages[at] = messages[at]._replace(body=codec.encode(msgspec.structs.replace(message, data=early)))
    assert any("have not ended" in text for text in violations(with_runs(sound, messages)))


def test_a_call_that_nothing_scheduled_is_noticed(sound: Record) -> None:
    """The outside world's record is compared with the history."""
    stray = replace(sound.calls[0], attempt=99)
    assert any("no decision that counts" in text for text in violations(replace(sound, calls=[*sound.calls, stray])))


def test_an_unanswered_command_is_noticed(sound: Record) -> None:
    """Every command is answered, once."""
    assert any(
        "answered never" in text for text in violations(replace(sound, history={**sound.history, "HR_OUTCOMES": []}))
    )
