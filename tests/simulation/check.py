"""Judges a record: every sentence that it gives is a broken promise. Independent of the engine's state and fold."""

from collections import Counter
from typing import Any, Final

import msgspec

from headrace.contracts import codec, pseudo, subjects
from headrace.contracts import events as ev
from tests.simulation import answers, forks, keys, schedules, tellers
from tests.simulation.automaton import RunHistory, Steps
from tests.simulation.broker import Ack
from tests.simulation.host import EPOCH_MS
from tests.simulation.processes import Called
from tests.simulation.workload import known
from tests.simulation.world import Record

RUNS: Final = "HR_RUNS_0"
CALL_AFTER_END_S: Final = 20.0
"""A call may begin this long after its step was completed: asked about, claimed and stalled on the way. Later only when
its process was frozen meanwhile."""


def violations(record: Record) -> list[str]:
    """Everything wrong, in the order in which it shows."""
    found = [f"engine: {text}" for text in record.complaints]
    runs = _read(record)
    for run in runs.values():
        found += run.wrong
    found += forks.violations(runs)
    found += _calls(record, runs)
    found += _outcomes(record, runs)
    found += schedules.violations(record)
    found += keys.violations(record)
    found += answers.violations(record)
    found += tellers.violations(record)
    found += [f"{stored.stream} {stored.seq}: parked {stored.subject}" for stored in record.history[subjects.DEAD]]
    found += [
        f"liveness: {what} is not done {record.virtual_s:.0f} s after the beginning" for what in record.unfinished
    ]
    return found


def _read(record: Record) -> dict[str, RunHistory]:
    """Every run's history, with the acknowledgements of orders at their places."""
    every = (
        *known(),
        *map(schedules.definition, ("once", "all", "none")),
        *keys.definitions(),
        *answers.definitions(),
        *tellers.definitions(),
    )
    definitions: dict[str, Steps] = {one.digest: msgspec.json.decode(one.data)["main"]["steps"] for one in every}
    runs: dict[str, RunHistory] = {}
    orders: dict[int, tuple[str, str, int, int, str]] = {}
    bodies: dict[str, Any] = {}
    acks = [ack for ack in record.acks if ack.stream == RUNS and ack.verb == "ack"]
    at = 0
    for stored in record.history[RUNS]:
        while at < len(acks) and acks[at].last_seq < stored.seq:
            _acknowledged(acks[at], runs, orders)
            at += 1
        message = codec.decode(stored.body)
        if isinstance(message, pseudo.PseudoMessage):
            continue  # schedules and keys have checks of their own
        assert isinstance(message, ev.RunMessage), stored.subject
        run = runs.get(message.runid)
        if run is None:
            run = runs[message.runid] = RunHistory(message.runid, definitions, forks_expected=record.overlooked > 0)
        place = subjects.parse_run_subject(stored.subject)
        if place is None or (place.tenant, place.pipeline, place.run) != (
            message.tenant,
            message.pipeline,
            message.runid,
        ):
            run.complain(f"{stored.seq}: stored under {stored.subject}")
        if bodies.setdefault(message.id, message.data) != message.data:
            run.complain(f"{stored.seq}: id {message.id} has two contents")
        run.see(stored.seq, stored.time_ms, message)
        order = message.data if isinstance(message, ev.StepOrdered) else getattr(message.data, "order", None)
        if order is not None:
            orders[stored.seq] = (message.runid, order.path, order.attempt, order.offer, order.decision or message.id)
    for ack in acks[at:]:
        _acknowledged(ack, runs, orders)
    return runs


def _acknowledged(ack: Ack, runs: dict[str, RunHistory], orders: dict[int, tuple[str, str, int, int, str]]) -> None:
    """Ack after append: an order that is current may be let go of only when its report is stored."""
    order = orders.get(ack.seq)
    if order is None:
        return
    run_id, path, number, offer, decision = order
    run = runs[run_id]
    step = run.steps.get(path)
    attempt = None if step is None else step.attempts.get(number)
    if step is None or attempt is None or attempt.decision != decision:
        return
    is_current = step.phase == "running" and step.attempt == number and offer >= attempt.offer and not run.over
    if not is_current or run.status == "cancelling" or attempt.report is not None:
        return
    if any(seq > attempt.claim_seq for other in step.attempts.values() for _, seq in other.claims):
        return  # somebody claimed the call, for an attempt that was given up or meanwhile: then the owner decides
    if EPOCH_MS + ack.at_s * 1000 < attempt.not_after_ms:
        run.complain(f"the order of {path}#{number} ({ack.seq}) was acknowledged at {ack.at_s:.3f} s without a report")


# --- calls -----------------------------------------------------------------------------------------------------------


def _calls(record: Record, runs: dict[str, RunHistory]) -> list[str]:
    found: list[str] = []
    counts = Counter((call.run, call.path, call.attempt) for call in record.calls)
    for call in record.calls:
        run = runs.get(call.run)
        step = None if run is None else run.steps.get(call.path)
        attempt = None if step is None else step.attempts.get(call.attempt)
        what = f"run {call.run}: call of {call.path}#{call.attempt} by {call.instance} at {call.at_s:.3f} s"
        if run is None or step is None or attempt is None:
            found.append(f"{what}: no decision that counts has scheduled it")
            continue
        if _is_after_end(record, call, step.ended, step.ended_ms):
            found.append(f"{what}: the step ended at {(step.ended_ms - EPOCH_MS) / 1000:.3f} s")
        if run.effect(call.path) == "at_most_once":
            if counts[call.run, call.path, call.attempt] > 1:
                found.append(
                    f"{what}: called {counts[call.run, call.path, call.attempt]} times, at most once is allowed"
                )
            if all(executor != call.instance for executor, _ in attempt.claims):
                found.append(f"{what}: not claimed by the caller")
            found += _retried_unknown(run, call, what)
    return found


def _is_after_end(record: Record, call: Called, ended: bool, ended_ms: int) -> bool:
    ended_s = (ended_ms - EPOCH_MS) / 1000
    if not ended or call.at_s < ended_s + CALL_AFTER_END_S:
        return False
    return all(until_s < ended_s or began_s > call.at_s for began_s, until_s in record.disturbed[call.host])


def _retried_unknown(run: RunHistory, call: Called, what: str) -> list[str]:
    """With `on_unknown: fail` a call follows another only when the other is known to have failed."""
    node = run.node(call.path)
    before = run.steps[call.path].attempts.get(call.attempt - 1)
    if before is None or not before.claims or node.get("on_unknown", "fail") == "retry":
        return []
    if isinstance(before.report, ev.AttemptFailed) or call.attempt - 1 in run.steps[call.path].settled:
        return []
    return [f"{what}: the outcome of attempt {call.attempt - 1}, which was claimed, is not known"]


# --- commands --------------------------------------------------------------------------------------------------------


def _outcomes(record: Record, runs: dict[str, RunHistory]) -> list[str]:
    """Every command is answered, with one meaning; what was accepted happened."""
    answers: dict[str, list[ev.StoredMessage]] = {}
    for stored in record.history[subjects.OUTCOMES]:
        message = codec.decode(stored.body)
        answers.setdefault(message.causationid, []).append(message)
    found = []
    starts: dict[str, list[bool]] = {}
    for command in record.asked:
        given = answers.get(command.id, [])
        kinds = {type(answer).__name__ for answer in given}
        if len(kinds) != 1:
            found.append(f"command {command.id}: answered {sorted(kinds) or 'never'}")
        elif command.verb == "run-start":
            starts.setdefault(command.run, []).append(isinstance(given[0], ev.CommandAccepted))
        elif command.verb in ("run-rerun", "run-fork") and isinstance(given[0], ev.CommandAccepted):
            if command.new_id not in runs:
                found.append(f"command {command.id}: accepted, and there is no run {command.new_id}")
        elif command.verb == "run-cancel" and isinstance(given[0], ev.CommandAccepted):
            run = runs.get(command.run)
            if run is None or not run.over:
                found.append(f"command {command.id}: accepted, and the run is {None if run is None else run.status}")
    for run_id, accepted in starts.items():
        if sum(accepted) != 1 or run_id not in runs:
            found.append(f"run {run_id}: of its starts {sum(accepted)} were accepted; it must be one")
    return found
