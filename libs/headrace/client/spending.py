"""What a run has spent, read from its history: by step, attempt and retry, and by work that counted no more. Pure.

An attempt costs what the report that counts says. One that is over without such a report costs what was reserved for
it, as an estimate. What any other report says is orphan spend: it was paid, and nobody used what it bought.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from headrace.contracts import events as ev
from headrace.contracts.money import NOTHING, Amount


@dataclass(slots=True)
class Attempt:
    """One attempt of a step instance."""

    number: int
    decision: str
    reserved: Amount | None = None
    over: bool = False
    """The engine waits for it no longer."""
    told: bool = False
    """A report counts for it."""
    cost: ev.Cost | None = None
    usage: ev.Usage | None = None

    @property
    def amount(self) -> Amount:
        """What it cost, as far as that is known."""
        if self.cost is not None:
            return self.cost.amount
        return self.reserved if self.reserved is not None and self.over and not self.told else NOTHING

    @property
    def estimated(self) -> bool:
        """Nobody knows exactly."""
        return self.cost.estimated if self.cost is not None else self.amount != NOTHING


@dataclass(slots=True, frozen=True)
class Orphan:
    """A report that came too late to count."""

    path: str
    attempt: int
    cost: ev.Cost


@dataclass(slots=True)
class Spending:
    """Of one run. `take` each message in order, after the view of the run has folded it."""

    attempts: dict[str, list[Attempt]] = field(default_factory=dict)
    """By path, in order; only those of orders."""
    orphans: list[Orphan] = field(default_factory=list)

    def decided(self, decision: str, events: tuple[ev.DecisionEvent, ...]) -> None:
        """A decision that counts."""
        for event in events:
            match event:
                case ev.StepScheduled(path=path, attempt=attempt, reserved=reserved):
                    self._end(path)
                    self.attempts.setdefault(path, []).append(Attempt(attempt, decision, reserved))
                case ev.TimerSet(path=path, timer=timer) if timer != "deferred":
                    self._end(path)
                case ev.StepCompleted(path=path) | ev.StepFailed(path=path) | ev.StepCancelled(path=path):
                    self._end(path)
                case ev.FallbackStarted(path=path):
                    self._end(path)
                case ev.RunCompleted() | ev.RunFailed() | ev.RunCancelled():
                    for path in self.attempts:
                        self._end(path)

    def _end(self, path: str) -> None:
        found = self.attempts.get(path)
        if found:
            found[-1].over = True

    def reported(self, message: ev.AttemptSucceeded | ev.AttemptFailed) -> None:
        """A report: it counts when it is the first about the attempt that is waited for."""
        data = message.data
        for attempt in self.attempts.get(message.stepid, ()):
            if (attempt.number, attempt.decision) == (message.attempt, data.decision) and not attempt.told:
                if attempt.over:
                    break
                attempt.told, attempt.cost, attempt.usage = True, data.cost, data.usage
                return
        if data.cost is not None:
            self.orphans.append(Orphan(message.stepid, message.attempt, data.cost))

    @property
    def by_path(self) -> dict[str, Amount]:
        """For every instance what it cost with all that is inside of it; those without any cost are left out."""
        found: dict[str, Amount] = {}
        for path, attempts in self.attempts.items():
            if any(attempt.cost is not None or attempt.reserved is not None for attempt in attempts):
                amount = sum((attempt.amount for attempt in attempts), NOTHING)
                for around in _outwards(path):
                    found[around] = found.get(around, NOTHING) + amount
        return found

    @property
    def total(self) -> Amount:
        """Of every attempt; orphans are not in it."""
        return sum((attempt.amount for attempt in self._all()), NOTHING)

    @property
    def estimated(self) -> Amount:
        """The part of the total that nobody knows exactly."""
        return sum((attempt.amount for attempt in self._all() if attempt.estimated), NOTHING)

    @property
    def orphaned(self) -> Amount:
        """What was paid for and not used."""
        return sum((orphan.cost.amount for orphan in self.orphans), NOTHING)

    def _all(self) -> Iterator[Attempt]:
        return (attempt for attempts in self.attempts.values() for attempt in attempts)


def _outwards(path: str) -> Iterator[str]:
    """The instance itself, and everything that it is a part of or stands in, from inside out."""
    while path:
        yield path
        if path[-1] in "])":
            path = path[: path.rindex("[" if path[-1] == "]" else "(")]
            continue
        scope, slash, _ = path.rpartition("/")
        if not slash:
            return
        for mark in (":", "#"):
            head, found, number = scope.rpartition(mark)
            if found and number.isdigit():
                scope = head
        path = scope
