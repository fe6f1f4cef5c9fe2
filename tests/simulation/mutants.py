"""The protocol, broken on purpose in five places: a checker that does not notice is no checker."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from headrace.contracts import events as ev
from headrace.contracts import subjects
from headrace.contracts.errors import UnknownOutcomeError
from headrace.pipeline.plan import Plan
from headrace_scheduler import state
from headrace_scheduler.appending import Appender
from headrace_scheduler.entries import Entry, InFlight
from headrace_scheduler.messages import prefix_of
from headrace_scheduler.publishing import Publisher
from headrace_scheduler.state import Run
from headrace_step_executor import attempt
from headrace_step_executor.service import StepExecutor

Seam = tuple[object, str, Callable[..., Any]]


def _ack_before_report() -> Seam:
    original = StepExecutor._report

    async def report(self: StepExecutor, work: Any, outcome: Any) -> bool:
        await self._end(work, lambda delivery: delivery.ack())
        return await original(self, work, outcome)

    return StepExecutor, "_report", report


def _no_version_check() -> Seam:
    original = state._evolve_decided

    def evolve_decided(run: Run, seq: int, message: ev.RunDecided, plan: Plan) -> bool:
        run.version = message.data.version - 1
        return original(run, seq, message, plan)

    return state, "_evolve_decided", evolve_decided


def _timeout_is_failure() -> Seam:
    original = Appender._resolve

    async def resolve(self: Appender, entry: Entry, in_flight: InFlight, error: BaseException | None) -> None:
        if not isinstance(error, UnknownOutcomeError):
            await original(self, entry, in_flight, error)
            return
        while not self.shared.broker.connected:
            await self.shared.clock.sleep(0.01)
        scope = subjects.decision_scope(prefix_of(entry.run))
        last = await self.shared.broker.last(self.stream, scope)
        entry.run.decision_seq = 0 if last is None else last.seq
        self._let_go(entry, in_flight)
        self._timers.arm(entry, self.shared.clock.now_ms())

    return Appender, "_resolve", resolve


def _orders_not_derived() -> Seam:
    async def publish_missing(self: Publisher, entry: Entry) -> None:
        return None

    return Publisher, "publish_missing", publish_missing


def _no_claim() -> Seam:
    async def claim(*_args: Any, **_given: Any) -> bool:
        return True

    return attempt, "claim", claim


MUTANTS: Final[dict[str, Callable[[], Seam]]] = {
    "ack-before-report": _ack_before_report,
    "no-version-check": _no_version_check,
    "timeout-is-failure": _timeout_is_failure,
    "orders-not-derived": _orders_not_derived,
    "no-claim": _no_claim,
}
TELLING: Final[dict[str, tuple[str, ...]]] = {
    "ack-before-report": ("crash-before", "crash-after", "cut"),
    "no-version-check": ("overlook", "late", "freeze-before", "stall"),
    "timeout-is-failure": ("cut-answer", "hold"),
    "orders-not-derived": ("crash-before", "crash-on", "cut"),
    "no-claim": ("twice", "crash-in-call"),
}
"""Kinds of faults in which each shows soon; with all kinds drawn it takes up to some hundred seeds."""


@contextmanager
def applied(name: str) -> Iterator[None]:
    """The engine with one mutation; without a name as it is."""
    if not name:
        yield
        return
    place, seam, mutated = MUTANTS[name]()
    original = getattr(place, seam)
    setattr(place, seam, mutated)
    try:
        yield
    finally:
        setattr(place, seam, original)
