"""Whether a person's answer may be stored, and what became of it: read from the run's own history. Pure.

The answer of a command is the truth about the log: accepted is said only when a decision has taken the answer, so that
of two people, in two processes, exactly one is told so.
"""

from typing import Final, Literal

from headrace.contracts import commands as cmd
from headrace.contracts import events as ev
from headrace.contracts.errors import ConflictError, DataError, DeniedError, NotFoundError, TerminalError
from headrace.pipeline.plan import Plan, node_of
from headrace_scheduler.paths import is_inside
from headrace_scheduler.questions import ANSWERS, OUTCOME, TIMER

BY_CHARS_MAX: Final = 128
"""A name of somebody."""
COMMENT_CHARS_MAX: Final = 2_000
"""As a failure's message, of which it becomes a part."""
_ENDS: Final = ev.StepCompleted | ev.StepFailed | ev.StepSkipped | ev.StepCancelled | ev.FallbackStarted
_RUN_ENDS: Final = ev.RunCompleted | ev.RunFailed | ev.RunCancelled | ev.RunStalled


class AnsweredError(ConflictError):
    """Somebody else has answered before, like HTTP 409."""

    code = "already_answered"


class HashDiffersError(ConflictError):
    """The answer is to something else than what is asked, like HTTP 409. Look again, then answer what is shown now."""

    code = "hash_differs"


class ExpiredError(TerminalError):
    """Nobody answered in time, and it is too late now, like HTTP 410."""

    code = "expired"


class Question:
    """What one step of a run asks, as far as the run's history was read. `take` each message, in order."""

    def __init__(self, step: str) -> None:
        self.step = step
        self.version = 0
        self.state: Literal["unasked", "open", "taken", "expired", "over"] = "unasked"
        self.asked: ev.ApprovalRequested | None = None
        self.answer: ev.ApprovalGiven | None = None
        """The one that won. Not yet taken while the state is `open`."""
        self.ended = ""
        """How the run ended; empty while it goes on. What undoes may ask while the run is cancelled."""

    @property
    def attempt(self) -> int:
        """Of the newest question: several attempts of a call may each have one."""
        return 0 if self.asked is None else self.asked.attempt

    def take(self, message: ev.StoredMessage) -> None:
        """Read a message. Decision n + 1 counts after n and nothing else, as for every reader."""
        match message:
            case ev.ApprovalGiven() if message.data.step == self.step:
                if self.answer is None and message.data.attempt == self.attempt:
                    self.answer = message
            case ev.RunDecided() if message.data.version == self.version + 1:
                self.version += 1
                for event in message.data.events:
                    self._evolve(event)

    def _evolve(self, event: ev.DecisionEvent) -> None:
        if isinstance(event, _RUN_ENDS):
            self.ended = (event.__struct_config__.tag or "").split(".")[-2]  # type: ignore[union-attr]  # our tags are text
            self._close("over")
        elif isinstance(event, ev.ApprovalRequested):
            if event.path == self.step:
                self.state, self.asked, self.answer = "open", event, None
        elif isinstance(event, ev.ApprovalGranted | ev.ApprovalDenied | ev.OutcomeSettled):
            if event.path == self.step:
                self._close("taken")
        elif isinstance(event, ev.TimerFired) and event.path == self.step:
            self._close("expired")
        elif isinstance(event, _ENDS) and (event.path == self.step or is_inside(self.step, event.path)):
            self._close("over")
        elif isinstance(event, ev.TimerSet) and is_inside(self.step, event.path):
            self._close("over")  # the group around it is tried again, from its beginning

    def _close(self, state: Literal["taken", "expired", "over"]) -> None:
        if self.state == "open":
            self.state = state


def check(plan: Plan, question: Question, asked: cmd.ApproveRun, *, now_ms: int) -> None:
    """Let pass what may be stored now.

    Raises:
        NotFoundError: no step of this name asks anybody.
        DataError: a name or comment is missing or too long.
        ConflictError: it does not ask (yet, or any more), somebody has answered, or the hash is of something else.
        ExpiredError: its time has passed.
        DeniedError: somebody else is asked.
    """
    _check_step(plan, asked.step)
    if not 1 <= len(asked.by) <= BY_CHARS_MAX or len(asked.comment) > COMMENT_CHARS_MAX:
        message = f"`by` takes 1 to {BY_CHARS_MAX} characters, a comment at most {COMMENT_CHARS_MAX}"
        raise DataError(message)
    request = question.asked
    if request is None:
        message = f"`{asked.step}` has not asked yet, so nothing was shown that could be answered"
        raise ConflictError(message)
    if question.state == "expired" or (question.state == "open" and now_ms > request.due_ms and not question.answer):
        message = f"`{asked.step}`: the time to answer has passed"
        raise ExpiredError(message)
    if question.answer is not None:
        by, decision = question.answer.data.by, question.answer.data.decision
        message = f"`{asked.step}` was answered before: {decision}, by {by}"
        raise AnsweredError(message)
    if question.state == "over":
        message = f"`{asked.step}` does not ask any more"
        raise ConflictError(message)
    allowed = ANSWERS[TIMER if request.unknown is None else OUTCOME]
    if asked.decision not in allowed:
        message = f"`{asked.step}` asks for {' or '.join(allowed)}, not for {asked.decision}"
        raise DataError(message)
    if asked.hash != request.hash:
        message = f"`{asked.step}` shows {request.hash}; the answer is to {asked.hash[:80]!r}"
        raise HashDiffersError(message)
    if request.by and asked.by not in request.by:
        message = f"`{asked.step}` asks {', '.join(request.by)}; {asked.by!r} may not answer"
        raise DeniedError(message)


def _check_step(plan: Plan, step: str) -> None:
    try:
        node = node_of(plan, step)
        asks = "?" not in step and (node.approval is not None or node.on_unknown == "ask")
    except KeyError:
        asks = False
    if not asks:
        message = f"pipeline `{plan.pipeline}` has no step {step[:200]!r} that asks a person"
        raise NotFoundError(message)
