"""A run's history, indexed by what explaining it and comparing it ask for. Pure.

As everywhere, decision n + 1 is taken after n and nothing else, and of the reports of an attempt only the one that its
decision took counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from headrace.contracts import events as ev
from headrace.contracts import rounds

Report = ev.AttemptSucceeded | ev.AttemptFailed | ev.AttemptDeferred
Ended = ev.StepCompleted | ev.StepFailed | ev.StepSkipped | ev.StepCancelled
ENDS: Final = (ev.StepCompleted, ev.StepFailed, ev.StepSkipped, ev.StepCancelled)
INSIDE: Final = "[(#:/?"
"""What may follow a step's path in the path of something inside of it."""


@dataclass(slots=True, frozen=True)
class Said:
    """An event, and the decision that said it."""

    seq: int
    at_ms: int
    decision: str
    """Id of the decision: orders and reports name it."""
    event: ev.DecisionEvent


@dataclass(slots=True, frozen=True)
class Heard:
    """A message that is no decision, at its place in the stream."""

    seq: int
    message: ev.StoredMessage


@dataclass(slots=True)
class Chronicle:
    """`take` every message of the run in stream order."""

    version: int = 0
    said: list[Said] = field(default_factory=list)
    """Every event of every decision that counts."""
    of_run: list[Said] = field(default_factory=list)
    taken: dict[str, str] = field(default_factory=dict)
    """Steps that ended in another run, which is told; here their ends stand where the run began."""
    of_path: dict[str, list[Said]] = field(default_factory=dict)
    """By instance, in the order in which they began."""
    reports: dict[str, Heard] = field(default_factory=dict)
    """By id."""
    reported: dict[tuple[str, int, str], Heard] = field(default_factory=dict)
    """The first report by (path, attempt, decision)."""
    offers: dict[tuple[str, int, str], list[int]] = field(default_factory=dict)
    """Sequences of orders by (path, attempt, decision); an order inside its decision is not among them."""
    claims: dict[tuple[str, int], Heard] = field(default_factory=dict)
    """The newest claim of an at-most-once call by (path, attempt)."""
    loops: dict[tuple[str, int], Heard] = field(default_factory=dict)
    """The newest round of a model's loop by (path, attempt)."""
    inputs: list[Heard] = field(default_factory=list)
    """What came from outside: controls, signals, answers."""

    def take(self, seq: int, message: ev.StoredMessage) -> None:
        """Note one message, stored at `seq`."""
        match message:
            case ev.RunDecided(data=data):
                if data.version == self.version + 1:
                    self.version = data.version
                    for event in data.events:
                        self._take_event(Said(seq, data.at_ms, message.id, event))
            case ev.StepOrdered(data=order):
                self.offers.setdefault((order.path, order.attempt, order.decision), []).append(seq)
            case ev.AttemptSucceeded() | ev.AttemptFailed() | ev.AttemptDeferred():
                heard = Heard(seq, message)
                self.reports[message.id] = heard
                if not isinstance(message, ev.AttemptDeferred):
                    self.reported.setdefault((message.stepid, message.attempt, message.data.decision), heard)
            case ev.AttemptStarted():
                self.claims[message.stepid, message.attempt] = Heard(seq, message)
            case rounds.TurnCompleted() | rounds.ToolStarted() | rounds.ToolCompleted():
                self.loops[message.stepid, message.attempt] = Heard(seq, message)
            case _:
                self.inputs.append(Heard(seq, message))

    def _take_event(self, said: Said) -> None:
        self.said.append(said)
        if isinstance(said.event, ev.RunForked):
            for one in said.event.taken:
                self.taken[one.path] = said.event.origin
                self._take_event(Said(said.seq, said.at_ms, said.decision, _end_of(one)))
        path = path_of(said.event)
        if path:
            self.of_path.setdefault(path, []).append(said)
        else:
            self.of_run.append(said)

    def last(self, path: str) -> Said | None:
        """The newest event of an instance."""
        found = self.of_path.get(path)
        return found[-1] if found else None

    def end(self, path: str) -> Said | None:
        """The event that ended an instance, if it has ended."""
        last = self.last(path)
        return last if last is not None and isinstance(last.event, ENDS) else None

    def open_leaves(self) -> list[str]:
        """Instances that have begun and not ended, without such inside of them, in the order in which they began."""
        open_ = [path for path in self.of_path if self.end(path) is None and self._is_living(path)]
        holders = {outer for path in open_ for outer in around(path)}
        return [path for path in open_ if path not in holders]

    def _is_living(self, path: str) -> bool:
        """False for what was left behind when something around it ended, which not every end inside says."""
        return all(self.end(outer) is None for outer in around(path))

    def report_of(self, said: Said, attempt: int) -> Heard | None:
        """The report that an attempt's end was decided by: what the attempt's own decision was answered with."""
        path = path_of(said.event)
        for earlier in reversed(self.of_path.get(path, [])):
            scheduled = earlier.event
            if isinstance(scheduled, ev.StepScheduled) and scheduled.attempt == attempt and earlier.seq < said.seq:
                heard = self.reported.get((path, attempt, earlier.decision))
                return heard if heard is not None and heard.seq < said.seq else None
        return None


def _end_of(taken: ev.Taken) -> ev.DecisionEvent:
    """The event that ended it, where it was done."""
    match taken.status:
        case "succeeded":
            return ev.StepCompleted(
                path=taken.path, attempt=taken.attempt, output=taken.output, degraded=taken.degraded
            )
        case "skipped":
            return ev.StepSkipped(path=taken.path, reason="as it was there")
    assert taken.failure is not None, taken.path
    return ev.StepFailed(path=taken.path, attempt=taken.attempt, failure=taken.failure, tolerated=True)


def path_of(event: ev.DecisionEvent) -> str:
    """The instance that an event is about; empty where it is about the run."""
    match event:
        case ev.RunFailed() | ev.RunFailing() | ev.RunBlocked() | ev.CompensationStarted():
            return ""  # their path says where it came from, or what was over before
    return getattr(event, "path", "")


def chronicle_of(history: Iterable[tuple[int, ev.StoredMessage]]) -> Chronicle:
    """The index over (sequence, message), in stream order."""
    made = Chronicle()
    for seq, message in history:
        made.take(seq, message)
    return made


def scope_of(path: str) -> str:
    """The scope that an instance stands in, with its slash; empty for the run's own."""
    return path[: path.rfind("/") + 1]


def is_inside(path: str, outer: str) -> bool:
    """True for items, iterations, scopes and evaluations of an instance, at any depth; not for itself."""
    return path.startswith(outer) and len(path) > len(outer) and path[len(outer)] in INSIDE


def around(path: str) -> list[str]:
    """Paths that this one is inside of, the outermost first. Not all of them need be instances."""
    return [path[:place] for place, mark in enumerate(path) if mark in INSIDE and place]
