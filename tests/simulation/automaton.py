"""What a history of one run may say: a second model of the rules, written from the contracts, not from the engine.

It knows neither the engine's state nor its fold. `see` takes the messages of a run in stream order and notes everything
that may not be.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from headrace.contracts import events as ev
from headrace.contracts import ids
from headrace.contracts.codec import encode_value
from headrace.contracts.envelope import Value
from tests.simulation import forks

SKEW_MS: Final = 260
"""A clock may be off the broker's by what the renewal took from which it learnt, 250 ms where the network is sound."""
BY_TIME: Final = frozenset(
    ("timeout", "deadline_exceeded", "executor_lost", "outcome_unknown", "order_expired", "schedule_to_start")
)
"""Failures that the engine itself declares, without a report."""
MARKS: Final = re.compile(r"\[\d+\]|\(\d+\)|#\d+")
ROLES: Final = ("fallback", "compensate")
EMPTY: Final[Mapping[str, Any]] = {}
TERMINAL: Final = (ev.RunCompleted, ev.RunFailed, ev.RunCancelled)

Steps = Mapping[str, Mapping[str, Any]]
"""The steps of a definition, as its document has them."""


@dataclass(slots=True)
class Attempt:
    """One attempt of a step instance, as accepted decisions scheduled it."""

    decision: str
    seq: int
    not_after_ms: int
    due_ms: int
    offer: int = 0
    order_seq: int = 0
    claim_seq: int = 0
    """The claim that its order knew of."""
    report: "ev.RunMessage | None" = None
    claims: list[tuple[str, int]] = field(default_factory=list)


@dataclass(slots=True)
class Step:
    """A step instance."""

    phase: str = "waiting"
    """waiting, running, sleeping, fanned, turning, inside, child, or how it ended."""
    attempt: int = 0
    attempts: dict[int, Attempt] = field(default_factory=dict)
    child: str = ""
    child_report: "ev.ChildReported | None" = None
    timer: str = ""
    timer_due_ms: int = 0
    settled: set[int] = field(default_factory=set)
    """Attempts whose outcome is unknown, and of which a person said that the call is to be made again."""
    asked: str = ""
    """The hash of what a person is asked."""
    ended_ms: int = 0
    ended_seq: int = 0
    ended: bool = False
    case: int = 0
    """Of a switch: the one that was chosen."""

    def hears(self, message: "ev.RunMessage") -> bool:
        """A result counts while it runs, and while a person is asked for it."""
        asks = self.phase == "sleeping" and self.timer == "outcome" and not isinstance(message, ev.AttemptDeferred)
        return self.phase == "running" or asks

    output: Value | None = None


def block_of(body: Mapping[str, Any], case: int) -> Steps:
    """The steps inside of a step: of a group, or of a case of a switch."""
    chosen = body
    if "switch" in body:
        chosen = body["switch"][case]
        chosen = chosen.get("default", chosen)
    found: Steps = chosen.get("steps", EMPTY)
    return found


def in_graph(steps: Steps) -> list[str]:
    """Those that do not only stand in for others, or undo them."""
    called = {body.get(role) for body in steps.values() for role in ROLES if isinstance(body.get(role), str)}
    return [name for name in steps if name not in called]


class RunHistory:
    """One run, message by message."""

    def __init__(self, run: str, definitions: Mapping[str, Steps], *, forks_expected: bool) -> None:
        self.run, self._definitions, self._forks_expected = run, definitions, forks_expected
        self.version = self.stored_ms = 0
        self.status = ""
        self.steps: dict[str, Step] = {}
        self.definition: Steps = {}
        self.late = 0
        self.wrong: list[str] = []
        self.headline = ""
        self.outputs_asked = False
        self.undoable: list[str] = []
        self.undoing = ""
        self.signals: dict[str, str] = {}
        self.answers: dict[str, ev.ApprovalGiven] = {}
        self.forked: ev.RunForked | None = None
        self.published: set[str] = set()

    def complain(self, text: str) -> None:
        """Note what may not be."""
        self.wrong.append(f"run {self.run}: {text}")

    @property
    def over(self) -> bool:
        """Its terminal decision was read."""
        return self.status in ("completed", "failed", "cancelled")

    def see(self, seq: int, time_ms: int, message: ev.RunMessage) -> None:
        """The next message of the run."""
        self._check_id(seq, message)
        match message:
            case ev.RunDecided():
                self._decided(seq, time_ms, message)
            case ev.StepOrdered():
                self._ordered(seq, message.data, message.data.decision)
            case ev.AttemptSucceeded() | ev.AttemptFailed() | ev.AttemptDeferred():
                self._reported(message)
            case ev.AttemptStarted():
                self._claimed(seq, message)
            case ev.SignalReceived():
                self.signals[message.id] = message.id
            case ev.EventPublished():
                self.published.add(message.data.step)
            case ev.ApprovalGiven():
                self.answers.setdefault(f"{message.data.step}#{message.data.attempt}", message)
            case ev.ChildReported():
                step = self.steps.get(message.stepid)
                if step is not None and step.phase == "child" and step.child == message.data.child:
                    step.child_report = step.child_report or message

    def effect(self, path: str) -> str:
        """What the definition says a second call would do."""
        return str(self.node(path).get("effect", "idempotent"))

    def node(self, path: str) -> Mapping[str, Any]:
        """What the definition says of a step instance, or of one that an evaluation is for."""
        steps, body = self.definition, EMPTY
        for part in MARKS.sub("", path.partition("?")[0]).rstrip("/").split("/"):
            name, _, case = part.partition(":")
            body = steps.get(name, EMPTY)
            steps = block_of(body, int(case or 0))
        return body

    # --- identities --------------------------------------------------------------------------------------------------

    def _check_id(self, seq: int, message: ev.RunMessage) -> None:
        tag = message.__struct_config__.tag
        match message:
            case ev.RunDecided():
                parts: tuple[Any, ...] = ("", 0, 0, message.data.version)
                data: bytes | None = encode_value(message.data)
            case ev.StepOrdered():
                order = message.data
                parts, data = (order.path, order.attempt, order.offer, order.version), order.decision.encode()
            case ev.AttemptSucceeded() | ev.AttemptFailed() | ev.AttemptDeferred() | ev.AttemptStarted():
                parts, data = (message.stepid, message.attempt, message.data.offer), encode_value(message.data)
            case ev.ChildReported():
                parts, data = (message.stepid, message.attempt, 0, 0, message.data.child), None
            case ev.KeyAnswered():
                parts, data = ("", 0, 0, 0, message.data.key, int(message.data.granted)), None
            case _:
                parts, data = ("", 0, 0, 0, message.causationid), None
        if ids.event_id(tag, message.tenant, message.runid, *parts, data=data) != message.id:
            self.complain(f"{seq}: the id of {type(message).__name__} does not recompute from its content")

    # --- orders, claims, reports -------------------------------------------------------------------------------------

    def _find(self, path: str, attempt: int, decision: str) -> Attempt | None:
        step = self.steps.get(path)
        found = None if step is None else step.attempts.get(attempt)
        return found if found is not None and found.decision == decision else None

    def _ordered(self, seq: int, order: ev.Order, decision: str) -> None:
        found = self._find(order.path, order.attempt, decision)
        if found is None:
            self.complain(f"{seq}: an order of {order.path}#{order.attempt} that no decision that counts has scheduled")
        elif order.offer > found.offer:
            found.offer, found.order_seq, found.claim_seq = order.offer, seq, order.claim_seq

    def _claimed(self, seq: int, message: ev.AttemptStarted) -> None:
        found = self._find(message.stepid, message.attempt, message.data.decision)
        if found is None:
            self.complain(f"{seq}: a claim of {message.stepid}#{message.attempt} that nothing has scheduled")
            return
        found.claims.append((message.data.executor, seq))
        if len(found.claims) > 1:
            self.complain(f"{seq}: {message.stepid}#{message.attempt} is claimed a second time: {found.claims}")

    def _reported(self, message: ev.AttemptSucceeded | ev.AttemptFailed | ev.AttemptDeferred) -> None:
        step = self.steps.get(message.stepid)
        found = self._find(message.stepid, message.attempt, message.data.decision)
        if self.over or step is None or found is None or not step.hears(message) or step.attempt != message.attempt:
            self.late += 1
        elif found.report is None:
            found.report = message
        else:
            self.late += 1

    # --- decisions ---------------------------------------------------------------------------------------------------

    def _decided(self, seq: int, time_ms: int, message: ev.RunDecided) -> None:
        data = message.data
        if data.version != self.version + 1 or self.over:
            self.late += 1
            if not self._forks_expected:
                self.complain(f"{seq}: decision {data.version} is stored after {self.version} ({self.status})")
            return
        if not self.stored_ms - SKEW_MS <= data.at_ms <= time_ms + SKEW_MS:
            self.complain(
                f"{seq}: dated {data.at_ms - time_ms} ms off, {time_ms - self.stored_ms} ms after the one before"
            )
        self.version, self.stored_ms = data.version, time_ms
        if data.version == 1 and not isinstance(data.events[0], ev.RunCreated):
            self.complain(f"{seq}: the first decision creates no run")
        for event in data.events:
            if self.over:
                self.complain(f"{seq}: {type(event).__name__} after the run's end, in one decision")
            self._event(seq, time_ms, message, event)
        if data.order is not None:
            self._ordered(seq, data.order, data.order.decision or message.id)

    def _event(self, seq: int, time_ms: int, message: ev.RunDecided, event: ev.DecisionEvent) -> None:  # noqa: C901 - a table
        match event:
            case ev.RunCreated():
                self.status, self.definition = "running", self._definitions[event.defdigest]
            case ev.RunForked():
                forks.take_over(self, seq, time_ms, message, event)
            case ev.RunCompleted():
                self._complete(seq)
            case ev.RunFailed():
                self.status = "failed"
                if event.failure.code == "internal":
                    self.complain(f"{seq}: failed by a bug: {event.failure.message}")
            case ev.RunCancelled():
                if self.status != "cancelling":
                    self.complain(f"{seq}: cancelled without having been cancelling")
                self.status = "cancelled"
            case ev.RunCancelling():
                self.status = "cancelling"
            case ev.RunFailing():
                self.status = "failing"
            case ev.FallbackStarted():
                self._stand_in(seq, event)
            case ev.SignalAwaited():
                step = self._begin(seq, event.path)
                step.phase, step.timer, step.timer_due_ms = "sleeping", "signal", event.due_ms
            case ev.SignalTaken():
                self._take(seq, event)
            case ev.CompensationStarted():
                self._undo(seq, event.path)
            case ev.RunPaused():
                self.status = "paused"
            case ev.RunResumed():
                self.status = "running"
            case ev.RunStalled():
                self.complain(f"{seq}: stalled: {event.failure.code} {event.failure.message}")
            case ev.StepScheduled():
                self._schedule(seq, time_ms, message, event)
            case ev.StepCompleted():
                self._succeed(seq, time_ms, event)
            case ev.StepFailed():
                self._fail(seq, time_ms, event)
            case ev.StepSkipped():
                self.end(seq, time_ms, event.path, "skipped")
            case ev.StepCancelled():
                self.end(seq, time_ms, event.path, "cancelled")
            case _:
                self._begun(seq, time_ms, message, event)

    def _begun(self, seq: int, time_ms: int, message: ev.RunDecided, event: ev.DecisionEvent) -> None:
        match event:
            case ev.ApprovalRequested() if event.unknown is not None:
                self._ask_outcome(seq, event)
            case ev.ApprovalRequested():
                step = self._begin(seq, event.path)
                step.phase, step.timer, step.timer_due_ms, step.asked = "sleeping", "approval", event.due_ms, event.hash
            case ev.EmitStarted():
                step = self._begin(seq, event.path)
                step.phase, step.timer, step.timer_due_ms = "sleeping", "emit", 0
                if event.event != ids.event_id(event.__struct_config__.tag, message.tenant, self.run, event.path):
                    self.complain(f"{seq}: the id of the event of {event.path} does not recompute")
            case ev.OutcomeSettled():
                self._settle(seq, event)
            case ev.ApprovalGranted() | ev.ApprovalDenied():
                self._answer(seq, event)
            case ev.ForeachStarted():
                self._begin(seq, event.path).phase = "fanned"
            case ev.LoopStarted():
                self._begin(seq, event.path).phase = "turning"
            case ev.ScopeStarted():
                self._enter(seq, event)
            case ev.TimerSet():
                self._set_timer(seq, event)
            case ev.TimerFired():
                self._fire(seq, time_ms, event)
            case ev.ChildStarted():
                self._start_child(seq, event)

    def _complete(self, seq: int) -> None:
        open_steps = [path for path in in_graph(self.definition) if not self.steps.get(path, Step()).ended]
        if open_steps:
            self.complain(f"{seq}: completed while {open_steps} have not ended")
        self.status = "completed"

    def _begin(self, seq: int, path: str) -> Step:
        """A step instance that something is to begin for: it may not have ended, and what it needs must have."""
        step = self.steps.setdefault(path, Step())
        if step.ended:
            self.complain(f"{seq}: {path} begins again after it {step.phase}")
        undoes = self.status in ("failing", "cancelling") and self.undoing and path.startswith(self.undoing)
        if self.status != "running" and not undoes:
            self.complain(f"{seq}: {path} begins while the run is {self.status}")
        if not undoes:
            self._check_around(seq, path)
        if path[-1] not in "])" and "?" not in path:
            scope = path[: path.rfind("/") + 1]
            needs = (scope + need for need in self.node(path).get("needs", ()))
            waiting = [need for need in needs if self.node(need) is not EMPTY and not self.has_ended(need)]
            if waiting:
                self.complain(f"{seq}: {path} begins before {waiting} ended")
        return step

    def step(self, path: str) -> Step:
        """The instance, made when it does not exist yet."""
        return self.steps.setdefault(path, Step())

    def has_ended(self, path: str) -> bool:
        """Nothing more may happen to it."""
        return self.steps.get(path, Step()).ended

    def _check_around(self, seq: int, path: str) -> None:
        """What it is a part of, or stands in, must be under way, and just that attempt and that iteration of it."""
        if "?" in path:
            return
        if path[-1] in "])":
            whole, number = path[:-1].rsplit("[" if path[-1] == "]" else "(", 1)
            phase = self.steps.get(whole, Step()).phase
            if phase != ("fanned" if path[-1] == "]" else "turning"):
                self.complain(f"{seq}: {path} begins while {whole} is {phase}")
            if path[-1] == ")" and int(number) > 0 and not self.has_ended(f"{whole}({int(number) - 1})"):
                self.complain(f"{seq}: {path} begins before the iteration before it ended")
        elif "/" in path:
            scope = path[: path.rfind("/")]
            owner = self.steps.get(re.sub(r"(#\d+)?(:\d+)?$", "", scope), Step())
            if owner.phase != "inside" or not self._scope(path).startswith(self._current(owner, scope)):
                self.complain(f"{seq}: {path} begins while what is around it is {owner.phase}, attempt {owner.attempt}")

    def _scope(self, path: str) -> str:
        return path[: path.rfind("/") + 1]

    def _current(self, owner: Step, scope: str) -> str:
        """The scope that a group's current attempt has."""
        base = re.sub(r"(#\d+)?(:\d+)?$", "", scope)
        later = f"#{owner.attempt}" if owner.attempt > 1 else ""
        return f"{base}{later}" + (f":{owner.case}" if ":" in scope.rpartition("/")[2] else "") + "/"

    def _stand_in(self, seq: int, event: ev.FallbackStarted) -> None:
        step = self.steps.setdefault(event.path, Step())
        if "fallback" not in self.node(event.path) or step.ended or step.phase == "standing":
            self.complain(f"{seq}: something stands in for {event.path}, which is {step.phase}")
        if step.phase == "running":
            self._check_failure(seq, step, event.path, event.failure.code)
        self._name_attempt(seq, step, event.path, event.attempt)
        step.phase = "standing"

    def _take(self, seq: int, event: ev.SignalTaken) -> None:
        """A signal that came, and that nobody has taken."""
        step = self.steps.setdefault(event.path, Step())
        if step.phase != "sleeping":
            step = self._begin(seq, event.path)
        if event.signal not in self.signals.pop(event.signal, ""):
            self.complain(f"{seq}: {event.path} takes signal {event.signal}, which did not come or was taken")
        step.phase = "heard"

    def _answer(self, seq: int, event: ev.ApprovalGranted | ev.ApprovalDenied) -> None:
        """The first answer, to just what is asked, and in time."""
        step, given = self.steps.setdefault(event.path, Step()), self.answers.get(f"{event.path}#0")
        if step.phase != "sleeping" or step.timer != "approval":
            self.complain(f"{seq}: {event.path} is answered while it is {step.phase}")
        if given is None or given.id != event.answer:
            self.complain(f"{seq}: {event.path} takes answer {event.answer}, which did not come first")
        elif given.data.hash != step.asked or given.data.at_ms > step.timer_due_ms:
            self.complain(f"{seq}: {event.path} takes an answer to something else, or too late")
        elif (given.data.decision == "approve") != isinstance(event, ev.ApprovalGranted):
            self.complain(f"{seq}: {event.path} turns an answer round")
        step.phase = "answered"

    def _ask_outcome(self, seq: int, event: ev.ApprovalRequested) -> None:
        """Only of a call that may have happened, and whose definition says that a person is asked."""
        step = self.steps.setdefault(event.path, Step())
        self._name_attempt(seq, step, event.path, event.attempt)
        if step.phase not in ("running", "sleeping") or self.node(event.path).get("on_unknown") != "ask":
            self.complain(f"{seq}: the outcome of {event.path} is asked for while it is {step.phase}")
        step.phase, step.timer, step.timer_due_ms, step.asked = "sleeping", "outcome", 0, event.hash

    def _settle(self, seq: int, event: ev.OutcomeSettled) -> None:
        """The first answer to just this attempt; what is said of it is what was answered."""
        step = self.steps.setdefault(event.path, Step())
        given = self.answers.get(f"{event.path}#{event.attempt}")
        self._name_attempt(seq, step, event.path, event.attempt)
        if step.phase != "sleeping" or step.timer != "outcome":
            self.complain(f"{seq}: the outcome of {event.path} is settled while it is {step.phase}")
        if given is None or given.id != event.answer or given.data.hash != step.asked:
            self.complain(f"{seq}: {event.path} takes answer {event.answer}, which did not come first, or to this")
        elif given.data.decision != event.decision:
            self.complain(f"{seq}: {event.path} turns an answer round")
        if event.decision == "retry":
            step.settled.add(event.attempt)
        step.phase = "answered"

    def _undo(self, seq: int, path: str) -> None:
        last = self.undoable.pop() if self.undoable else ""
        if last != path or self.status not in ("failing", "cancelling"):
            self.complain(f"{seq}: {path} is undone while the run is {self.status}; the last that was done is {last}")
        if self.undoing and not self.has_ended(self.undoing):
            self.complain(f"{seq}: {path} is undone before {self.undoing} ended")
        self.undoing = self._scope(path) + str(self.node(path).get("compensate"))

    def _enter(self, seq: int, event: ev.ScopeStarted) -> None:
        step = self._begin(seq, event.path)
        if event.attempt != step.attempt + 1:
            self.complain(f"{seq}: {event.path} is entered as attempt {event.attempt} after {step.attempt}")
        if event.attempt > 1 and (step.phase != "sleeping" or step.timer != "retry"):
            self.complain(f"{seq}: attempt {event.attempt} of {event.path} follows no retry timer")
        step.phase, step.attempt, step.case = "inside", event.attempt, event.case

    def _leave(self, seq: int, step: Step, path: str) -> None:
        later = f"#{step.attempt}" if step.attempt > 1 else ""
        body = self.node(path)
        scope = path + later + (f":{step.case}" if "switch" in body else "") + "/"
        still = [name for name in in_graph(block_of(body, step.case)) if not self.has_ended(scope + name)]
        if still:
            self.complain(f"{seq}: {path} completed while {still} have not ended")

    def _schedule(self, seq: int, time_ms: int, message: ev.RunDecided, event: ev.StepScheduled) -> None:
        step = self._begin(seq, event.path)
        if event.attempt != step.attempt + 1:
            self.complain(f"{seq}: {event.path} is scheduled as attempt {event.attempt} after {step.attempt}")
        if step.phase in ("running", "child", "fanned"):
            self.complain(f"{seq}: {event.path} is scheduled while it is {step.phase}")
        if event.attempt > 1 and (step.phase != "sleeping" or step.timer != "retry"):
            self.complain(f"{seq}: attempt {event.attempt} of {event.path} follows no retry timer")
        if step.phase == "sleeping" and time_ms < step.timer_due_ms - SKEW_MS:
            self.complain(f"{seq}: {event.path} is retried {step.timer_due_ms - time_ms} ms early")
        step.phase, step.attempt = "running", event.attempt
        step.attempts[event.attempt] = Attempt(message.id, seq, event.not_after_ms, event.due_ms)

    def _succeed(self, seq: int, time_ms: int, event: ev.StepCompleted) -> None:
        step = self.steps.setdefault(event.path, Step())
        step.output = event.output
        if step.phase == "running" or (step.timer == "outcome" and event.report):
            report = step.attempts[step.attempt].report
            if isinstance(report, ev.AttemptSucceeded):
                step.output = event.output or report.data.output
            if not isinstance(report, ev.AttemptSucceeded) or report.id != event.report:
                said = None if report is None else f"{type(report).__name__} {report.id}"
                self.complain(f"{seq}: {event.path} completed by report {event.report}; the one that counts is {said}")
        elif step.phase == "child":
            if step.child_report is None or step.child_report.data.status != "completed":
                self.complain(f"{seq}: {event.path} completed though its child did not")
        elif step.phase == "inside":
            self._leave(seq, step, event.path)
        elif step.phase == "sleeping" and step.timer == "emit":
            if event.path not in self.published:
                self.complain(f"{seq}: {event.path} completed, and its event is not known to be stored")
        elif event.report:
            self.complain(f"{seq}: {event.path} completed by a report while it was {step.phase}")
        elif step.phase == "sleeping" and time_ms < step.timer_due_ms - SKEW_MS:
            self.complain(f"{seq}: the wait {event.path} ended {step.timer_due_ms - time_ms} ms early")
        self._name_attempt(seq, step, event.path, event.attempt)
        is_whole = event.path[-1] not in "])" and "?" not in event.path
        if is_whole and "compensate" in self.node(event.path) and step.phase != "standing":
            self.undoable.append(event.path)
        self.end(seq, time_ms, event.path, "completed")

    def _fail(self, seq: int, time_ms: int, event: ev.StepFailed) -> None:
        step = self.steps.setdefault(event.path, Step())
        if event.failure.code == "internal":
            self.complain(f"{seq}: {event.path} failed by a bug: {event.failure.message}")
        if step.phase == "running":
            self._check_failure(seq, step, event.path, event.failure.code)
        self._name_attempt(seq, step, event.path, event.attempt)
        self.end(seq, time_ms, event.path, "failed")

    def _check_failure(self, seq: int, step: Step, path: str, code: str) -> None:
        report = step.attempts[step.attempt].report
        if not isinstance(report, ev.AttemptFailed) and code not in BY_TIME:
            self.complain(f"{seq}: {path}#{step.attempt} failed with {code}; no report that counts says so: {report}")

    def _name_attempt(self, seq: int, step: Step, path: str, attempt: int) -> None:
        if attempt != step.attempt:
            self.complain(f"{seq}: the end of {path} names attempt {attempt}; current is {step.attempt}")

    def end(self, seq: int, time_ms: int, path: str, how: str) -> None:
        """It ends, once."""
        step = self.steps.setdefault(path, Step())
        if step.ended:
            self.complain(f"{seq}: {path} ends a second time: {step.phase}, now {how}")
        step.phase, step.ended, step.ended_ms, step.ended_seq = how, True, time_ms, seq

    def _set_timer(self, seq: int, event: ev.TimerSet) -> None:
        if event.timer == "wait":
            step = self._begin(seq, event.path)
        else:
            step = self.steps.setdefault(event.path, Step())
            self._name_attempt(seq, step, event.path, event.attempt)
            if step.phase == "running" and event.timer == "retry":
                assert event.failure is not None
                self._check_failure(seq, step, event.path, event.failure.code)
        step.phase, step.timer, step.timer_due_ms = "sleeping", event.timer, event.due_ms

    def _fire(self, seq: int, time_ms: int, event: ev.TimerFired) -> None:
        step = self.steps.setdefault(event.path, Step())
        if step.phase != "sleeping" or step.timer != event.timer:
            self.complain(f"{seq}: timer {event.timer} of {event.path} fires while it is {step.phase}")
        if time_ms < step.timer_due_ms - SKEW_MS:
            self.complain(f"{seq}: timer of {event.path} fires {step.timer_due_ms - time_ms} ms early")
        if event.timer == "deferred":
            step.phase = "running"
            step.attempts[step.attempt].report = None

    def _start_child(self, seq: int, event: ev.ChildStarted) -> None:
        step = self._begin(seq, event.path)
        place = event.path if event.attempt == 1 else f"{event.path}#{event.attempt}"
        if event.child != ids.child_run_id(self.run, place):
            self.complain(f"{seq}: the id of the child at {event.path} does not recompute")
        if event.attempt != step.attempt + 1:
            self.complain(f"{seq}: child of {event.path} started as attempt {event.attempt} after {step.attempt}")
        step.phase, step.attempt, step.child, step.child_report = "child", event.attempt, event.child, None
