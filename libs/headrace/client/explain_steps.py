"""Reasons of one step instance: why it ended as it did, what it waits for, and why it was tried again. Pure."""

from collections.abc import Collection, Iterator
from typing import Final

from headrace.client.chronicle import Chronicle, Heard, Said, path_of
from headrace.client.reasons import Reason, instant
from headrace.contracts import events as ev
from headrace.contracts import rounds
from headrace.contracts.decisions import Origin
from headrace.pipeline.plan import Plan, node_of

RETRIES_SHOWN: Final = 5
"""The newest of them."""
CODES: Final[dict[type, str]] = {
    ev.StepCompleted: "completed",
    ev.StepFailed: "failed",
    ev.StepSkipped: "skipped",
    ev.StepCancelled: "cancelled",
}
BREAKER: Final = frozenset({"breaker_open", "breaker"})
"""Reasons for which an executor puts an order off because calls to its provider fail."""


def reason_of_end(chronicle: Chronicle, plan: Plan, end: Said) -> Reason:
    """Why an instance ended as it did."""
    event, path = end.event, path_of(end.event)
    if path in chronicle.taken:
        code = CODES[type(event)]
        return Reason(
            code, path, f"`{path}` {code} in run {chronicle.taken[path]}, which this one goes on from", (end.seq,)
        )
    match event:
        case ev.StepSkipped(reason=reason):
            return Reason(
                "skipped", path, f"`{path}` was skipped: {_condition(plan, path, reason)}", _asked(chronicle, end)
            )
        case ev.StepFailed(failure=failure, attempt=attempt, tolerated=tolerated):
            heard = chronicle.report_of(end, attempt)
            tries = f" in attempt {attempt}" if attempt > 1 else ""
            after = "; the pipeline goes on all the same" if tolerated else ""
            proof = _proof(heard, end.seq)
            return Reason("failed", path, f"`{path}` failed{tries}: {failure.code}: {failure.message}{after}", proof)
        case ev.StepCompleted(cached=Origin() as origin):
            text = (
                f"`{path}` was not executed: it has the result of `{origin.path}` of run {origin.run}, by its cache key"
            )
            return Reason("completed", path, text, (end.seq,))
        case ev.StepCompleted(report=report, degraded=degraded, attempt=attempt):
            heard = chronicle.reports.get(report)
            tries = f" in attempt {attempt}" if attempt > 1 else ""
            about = ", degraded: something inside failed and was tolerated, or stood in" if degraded else ""
            return Reason("completed", path, f"`{path}` completed{tries}{about}", _proof(heard, end.seq))
        case _:
            return Reason(CODES[ev.StepCancelled], path, f"`{path}` was stopped with what is around it", (end.seq,))


def _proof(heard: Heard | None, seq: int) -> tuple[int, ...]:
    return (seq,) if heard is None else (heard.seq, seq)


def _condition(plan: Plan, path: str, reason: str) -> str:
    """What the condition was, where that is the reason."""
    when = node_of(plan, path).when
    return f"its condition `{when.source}` is false" if when is not None and "condition" in reason else reason


def _asked(chronicle: Chronicle, end: Said) -> tuple[int, ...]:
    """The end, after the answer of the executor that was asked for the condition, if one was."""
    path = path_of(end.event)
    answer = chronicle.end(f"{path}?when")
    return (end.seq,) if answer is None or answer.seq > end.seq else (answer.seq, end.seq)


def retries(chronicle: Chronicle, path: str) -> Iterator[Reason]:
    """Why it was tried again, attempt by attempt: the newest ones."""
    found = [
        said
        for said in chronicle.of_path.get(path, [])
        if isinstance(said.event, ev.TimerSet) and said.event.timer == "retry"
    ]
    end = chronicle.last(path)
    if found and end is found[-1]:
        found.pop()  # it waits for this one, which is said elsewhere
    for said in found[-RETRIES_SHOWN:]:
        event = said.event
        assert isinstance(event, ev.TimerSet)
        heard = chronicle.report_of(said, event.attempt)
        why = "failed" if event.failure is None else f"failed: {event.failure.code}: {event.failure.message}"
        text = f"attempt {event.attempt} of `{path}` {why}; it was tried again after {event.delay_ms} ms"
        yield Reason("retried", path, text, _proof(heard, said.seq))


def reason_of_waiting(
    chronicle: Chronicle, plan: Plan, path: str, *, now_ms: int, served: Collection[str] | None
) -> Iterator[Reason]:
    """What an instance that has begun and not ended waits for, by its newest event."""
    last = chronicle.last(path)
    assert last is not None, path
    match last.event:
        case ev.StepScheduled():
            yield _of_attempt(chronicle, last, last.event, served)
        case ev.TimerSet():
            yield _of_timer(chronicle, last, last.event)
        case ev.TimerFired():
            yield Reason("ready", path, f"`{path}`: its time has come, and it is offered again", (last.seq,))
        case ev.SignalAwaited(name=name, due_ms=due_ms):
            text = f"`{path}` waits for signal `{name}` until {instant(due_ms)}"
            yield Reason("signal", path, text, (last.seq,))
        case ev.ApprovalRequested(by=by, due_ms=due_ms):
            whom = ", ".join(by) or "whoever may approve"
            text = f"`{path}` waits for the answer of {whom} until {instant(due_ms)}; `headrace approve` gives it"
            yield Reason("approval", path, text, (last.seq,))
        case ev.ChildStarted(child=child, pipeline=pipeline):
            yield Reason(
                "child", path, f"`{path}` waits for its child run {child} of `{pipeline}`", (last.seq,), run=child
            )
        case ev.ForeachStarted() | ev.ItemsStored():
            (*_, count) = (
                said.event.count for said in chronicle.of_path[path] if isinstance(said.event, ev.ForeachStarted)
            )
            done = sum(1 for other in _parts(chronicle, path, "[") if chronicle.end(other) is not None)
            text = f"`{path}` has {done} of {count} items done; the next begin when the run has room"
            yield Reason("items", path, text, (last.seq,))
        case ev.LoopStarted():
            done = sum(1 for other in _parts(chronicle, path, "(") if chronicle.end(other) is not None)
            yield Reason("iteration", path, f"`{path}` has {done} iterations done and goes on", (last.seq,))
        case ev.ScopeStarted():
            yield Reason("scope", path, f"`{path}`: what is inside goes on when the run has room", (last.seq,))
        case ev.FallbackStarted(failure=failure):
            text = f"`{path}` failed ({failure.code}: {failure.message}) and its fallback stands in"
            yield Reason("fallback", path, text, (last.seq,))
        case _:
            yield Reason("ready", path, f"`{path}` has begun, and what follows is being decided", (last.seq,))


def _parts(chronicle: Chronicle, path: str, mark: str) -> Iterator[str]:
    return (other for other in chronicle.of_path if other.startswith(path + mark) and other[-1] in "])")


def _of_attempt(chronicle: Chronicle, last: Said, event: ev.StepScheduled, served: Collection[str] | None) -> Reason:
    """An order is out: who may have it."""
    path, key = event.path, (event.path, event.attempt, last.decision)
    offers = chronicle.offers.get(key, [])
    asker, mark, word = path.rpartition("?")
    what = f"the evaluation of `{word}` of `{asker or 'the run'}`" if mark else f"attempt {event.attempt} of `{path}`"
    heard = chronicle.reported.get(key)
    if heard is not None:
        return Reason("ready", path, f"{what} has reported, and what follows is being decided", (last.seq, heard.seq))
    claim = chronicle.claims.get((path, event.attempt))
    if claim is not None and isinstance(claim.message, ev.AttemptStarted):
        text = f"{what} is under way: executor {claim.message.data.executor} has claimed the call"
        return Reason("attempt", path, text, (last.seq, claim.seq))
    proof = (last.seq, *offers[-1:])
    again = f", offered {len(offers)} times" if len(offers) > 1 else ""
    if served is not None and event.queue not in served:
        text = f"{what} waits: no executor serves queue {event.queue}{again}"
        return Reason("no_executor", path, text, proof)
    silent = "no report yet" if served is not None else "no report yet, if an executor serves it"
    turn = chronicle.loops.get((path, event.attempt))
    if turn is not None and isinstance(turn.message, rounds.RoundMessage):
        silent += f"; its model's loop is in round {turn.message.data.round}"
        proof = (*proof, turn.seq)
    text = f"{what} is out on queue {event.queue} since {instant(last.at_ms)}{again}; {silent}"
    return Reason("evaluation" if mark else "attempt", path, text, proof)


def _of_timer(chronicle: Chronicle, last: Said, event: ev.TimerSet) -> Reason:
    path, until = event.path, instant(event.due_ms)
    why = "" if event.failure is None else f"{event.failure.code}: {event.failure.message}"
    heard = chronicle.report_of(last, event.attempt)
    match event.timer:
        case "wait":
            return Reason("timer", path, f"`{path}` waits until {until}", (last.seq,))
        case "retry":
            text = f"attempt {event.attempt} of `{path}` failed ({why}); the next begins at {until}"
            return Reason("retry", path, text, _proof(heard, last.seq))
        case _:
            code = "breaker" if event.failure is not None and event.failure.code in BREAKER else "timer"
            text = f"an executor could not run `{path}` yet ({why}); it is offered again at {until}"
            return Reason(code, path, text, (*_deferral(chronicle, path, last), last.seq))


def _deferral(chronicle: Chronicle, path: str, said: Said) -> tuple[int, ...]:
    """Where the executor said so."""
    found = (
        heard.seq
        for heard in chronicle.reports.values()
        if isinstance(heard.message, ev.AttemptDeferred) and heard.message.stepid == path and heard.seq < said.seq
    )
    return tuple(found)[-1:]
