"""What follows from decisions of pseudo-runs: runs are started, told, cancelled and looked for."""

import asyncio
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from headrace.contracts import ids, names, pseudo, subjects
from headrace.contracts.errors import HeadraceError, RetryableError, UnknownOutcomeError
from headrace.runtime.crashpoints import crashpoint
from headrace.runtime.eventlog import Appended
from headrace_scheduler import cron as crons
from headrace_scheduler import messages, pseudo_messages
from headrace_scheduler.cron import Cron, Ended
from headrace_scheduler.entries import Shared
from headrace_scheduler.key import Key

log = logging.getLogger("headrace.scheduler")

START_WITHIN_S: Final = 2 * names.PUBLISH_DEADLINE_S
"""A start that takes longer is begun again: it changes nothing where the run exists."""
START_AGAIN_S: Final = 0.2
LOOK_EVERY_S: Final = 5.0
"""How often runs that hold a key for which others wait are looked for, because what a run says at its end may be lost;
where nobody waits as often as everything else is swept."""
LOOK_AHEAD: Final = 16
"""Of those who wait: one that is granted a key and has ended would only be found a look later."""
RUN_ENDS: Final = frozenset({"run-completed", "run-failed", "run-cancelled"})


@dataclass(slots=True)
class Entry:
    """A schedule or a concurrency key in this owner's hands."""

    state: Cron | Key
    is_known: bool = True
    """False for a key of which only newer messages than its last decision may have been read."""
    since_seq: int = 0
    """Sequence of the message by which it became known here."""
    in_flight: str = ""
    """Id of the decision that was sent and has not been seen."""
    due_ms: int | None = None
    stalled: HeadraceError | None = None
    """Its log cannot be read: it decides nothing any more."""
    ended: dict[int, Ended] = field(default_factory=dict)
    """Of a schedule: what became of instants that were fired, before the log says it."""
    starting: set[int] = field(default_factory=set)
    answers: dict[str, bool] = field(default_factory=dict)
    """Of a key: run → granted, to be told."""
    gone: dict[str, str] = field(default_factory=dict)
    """Of a key: runs whose end was seen, and why, before the log says it."""
    cancelled_s: dict[str, float] = field(default_factory=dict)
    """Of a key: when this process last asked for the end of a run."""
    looked_s: float | None = None

    def answer_holders(self) -> None:
        """The owner before may have died before it told them: all are told, which changes nothing for who knows."""
        if isinstance(self.state, Key):
            self.answers = dict.fromkeys(self.state.holders, True)

    def take_answers(self, key: Key, message: pseudo.KeyMessage, *, counts: bool) -> None:
        """Note who is to be told what after a message was folded."""
        self.gone = {run: why for run, why in self.gone.items() if run in key.holders or run in key.queue}
        if isinstance(message, pseudo.KeyAsked) and message.data.run in key.holders:
            self.answers[message.data.run] = True  # it has not heard
        if counts and isinstance(message, pseudo.KeyDecided):
            for event in message.data.events:
                if isinstance(event, pseudo.KeyGranted | pseudo.KeyRefused):
                    self.answers[event.run] = isinstance(event, pseudo.KeyGranted)


class Effects:
    """Carried out by whoever owns the partition; each may be done again without harm."""

    def __init__(self, shared: Shared, touch: Callable[[str], None]) -> None:
        self._shared, self._touch = shared, touch

    # --- schedules ---------------------------------------------------------------------------------

    def start_runs(self, entry: Entry, cron: Cron) -> None:
        """Make the runs of instants that the log says have fired, and that are not known to exist."""
        for due_ms, digest, run in crons.runs_to_start(cron):
            if due_ms not in entry.ended and due_ms not in entry.starting:
                entry.starting.add(due_ms)
                self._shared.supervisor.spawn(self._start(entry, cron, due_ms, digest, run), "scheduler.schedule")

    async def _start(self, entry: Entry, cron: Cron, due_ms: int, digest: str, run: str) -> None:
        crashpoint("between_firing_and_start")
        try:
            async with asyncio.timeout(START_WITHIN_S):
                entry.ended[due_ms] = await self._shared.schedules.start(cron, due_ms, digest, run)
            log.info("trigger.started", extra={"run_id": run, "pipeline": cron.pipeline})
        except (RetryableError, UnknownOutcomeError, TimeoutError) as error:
            log.warning("trigger.waits", extra={"run_id": run, "why": str(error)})
            await self._shared.clock.sleep(START_AGAIN_S)
        finally:
            entry.starting.discard(due_ms)
            self._touch(cron.run)

    # --- concurrency keys --------------------------------------------------------------------------

    async def tell_runs(self, entry: Entry, key: Key) -> None:
        """Answers go out unchecked, and again where they may not be stored; cancelling again changes nothing."""
        source, now_ms = self._shared.source, self._shared.clock.now_ms()
        while entry.answers:
            run, granted = next(iter(entry.answers.items()))
            crashpoint("before_key_answer")
            outgoing = pseudo_messages.key_answered(key, run, granted=granted, source=source, now_ms=now_ms)
            future = await self._send(outgoing)
            del entry.answers[run]
            future.add_done_callback(lambda done, run=run, granted=granted: self._answered(entry, run, granted, done))  # type: ignore[misc]  # bound now, for each
        now_s = self._shared.clock.monotonic_s()
        entry.cancelled_s = {run: at_s for run, at_s in entry.cancelled_s.items() if run in key.revoked}
        for run in list(key.revoked):
            at_s = entry.cancelled_s.get(run)
            if at_s is not None and now_s - at_s < LOOK_EVERY_S:
                continue
            target = messages.Target(key.tenant, key.pipeline, run)
            reason = "a newer run has the same concurrency key"
            cause = f"{key.run}:newer"
            await self._send(
                messages.control(target, "cancel", cause=cause, reason=reason, source=source, now_ms=now_ms)
            )
            entry.cancelled_s[run] = now_s

    def _answered(self, entry: Entry, run: str, granted: bool, done: "asyncio.Future[Appended]") -> None:
        """An answer that may not be stored is given again: it is the same one."""
        if not done.cancelled() and done.exception() is not None:
            entry.answers.setdefault(run, granted)
            self._touch(entry.state.run)

    async def _send(self, outgoing: messages.Outgoing) -> "asyncio.Future[Appended]":
        future = await self._shared.broker.publish(outgoing.subject, outgoing.body, msg_id=outgoing.id)
        future.add_done_callback(_log_failure)
        return future

    def look_for_ended(self, entry: Entry, key: Key) -> int:
        """Have those who hold the key, or are next, ended without a word? Gives when to come again, in milliseconds."""
        now_s = self._shared.clock.monotonic_s()
        every_s = LOOK_EVERY_S if key.queue else names.SWEEP_S
        left_s = 0.0 if entry.looked_s is None else entry.looked_s + every_s - now_s
        if left_s > 0:
            return int(left_s * 1000) + 1
        entry.looked_s = now_s
        whom = [*key.holders, *itertools.islice(key.queue, LOOK_AHEAD)]
        self._shared.supervisor.spawn(self._look(entry, key, whom), "scheduler.key-look")
        return int(every_s * 1000)

    async def _look(self, entry: Entry, key: Key, runs: list[str]) -> None:
        for run in runs:
            stream = subjects.runs_stream(ids.partition_of(run), streams=self._shared.run_streams)
            try:
                last = await self._shared.broker.last(stream, subjects.creation_scope(run))
            except (RetryableError, UnknownOutcomeError) as error:
                log.warning("key.waits", extra={"run_id": key.run, "why": str(error)})
                return
            place = None if last is None else subjects.parse_run_subject(last.subject)
            if place is None:
                entry.gone[run] = "gone"
            elif place.rest in RUN_ENDS:
                entry.gone[run] = "ended"
        if entry.gone:
            self._touch(key.run)


def _log_failure(done: "asyncio.Future[Appended]") -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        log.info("publish.failed", extra={"why": f"{type(error).__name__}: {error}"})
