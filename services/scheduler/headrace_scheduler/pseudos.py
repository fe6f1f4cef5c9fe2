"""The pseudo-runs of one owned partition: fold, decide, append, carry out, with the same safety as runs.

The partition's tail hands their messages over in order. Own decisions are folded when the tail shows them; at most one
of a pseudo-run is in flight; each is checked against the sequence of the last.
"""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Final

from headrace.contracts import codec, ids, names, pseudo, subjects
from headrace.contracts.errors import (
    AppendConflictError,
    CorruptError,
    HeadraceError,
    MalformedMessageError,
    NewerSchemaError,
    RetryableError,
    UnknownOutcomeError,
)
from headrace.runtime.crashpoints import crashpoint
from headrace.runtime.eventlog import Appended, Expected, Stored
from headrace.runtime.park import park
from headrace_scheduler import cron as core
from headrace_scheduler import pseudo_messages
from headrace_scheduler.cron import Cron, Ended
from headrace_scheduler.damage import SkippedError
from headrace_scheduler.entries import Shared

log = logging.getLogger("headrace.scheduler")

RETRY_MS: Final = 200
START_WITHIN_S: Final = 2 * names.PUBLISH_DEADLINE_S
"""A start that takes longer is begun again: it changes nothing where the run exists."""
LOOK_S: Final = 0.02


@dataclass(slots=True)
class Entry:
    """A schedule in this owner's hands."""

    cron: Cron
    in_flight: str = ""
    """Id of the decision that was sent and has not been seen."""
    due_ms: int | None = None
    ended: dict[int, Ended] = field(default_factory=dict)
    """What became of instants that were fired, before the log says it."""
    starting: set[int] = field(default_factory=set)
    stalled: HeadraceError | None = None
    """Its log cannot be read: it decides nothing any more."""


class Pseudos:
    """Those of one partition."""

    def __init__(self, part: int, stream: str, shared: Shared) -> None:
        self._part, self._stream, self._shared = part, stream, shared
        self.entries: dict[str, Entry] = {}
        self._touched: dict[str, None] = {}
        self._revision = -1

    @property
    def states(self) -> list[Cron]:
        """For a snapshot."""
        return [entry.cron for entry in self.entries.values()]

    @property
    def due_ms(self) -> int | None:
        """When time alone makes a decision possible; 0 when something is to be done at once."""
        if self._touched or self._revision != self._shared.schedules.revision:
            return 0
        return min((entry.due_ms for entry in self.entries.values() if entry.due_ms is not None), default=None)

    def restore(self, states: list[Cron]) -> None:
        """Take what a snapshot holds."""
        for cron in states:
            self.entries[cron.run] = Entry(cron)
            self._touched[cron.run] = None

    # --- fold --------------------------------------------------------------------------------------

    async def fold(self, stored: Stored) -> bool:
        """Fold one message; False when it is of no pseudo-run. What cannot be read is parked.

        Raises:
            SkippedError: the leader has what was not read.
        """
        if ids.PSEUDO_MARK not in stored.subject:  # nearly always
            return False
        subject = subjects.parse_run_subject(stored.subject)
        if subject is None or not ids.PSEUDO_RE.fullmatch(subject.run):
            return False
        unfit = await self._fold(stored, subject)
        if unfit is not None:
            await park(
                self._shared.broker,
                stored,
                unfit.failure(),
                deliveries=1,
                source=self._shared.source,
                now_ms=self._shared.clock.now_ms(),
            )
        return True

    async def _fold(self, stored: Stored, subject: subjects.RunSubject) -> HeadraceError | None:
        try:
            message = codec.decode(stored.body)
        except (MalformedMessageError, NewerSchemaError) as error:
            if subject.kind == "decision" and (entry := self.entries.get(subject.run)) is not None:
                entry.cron.decision_seq = stored.seq
                self._stall(entry, error)
            return error if isinstance(error, MalformedMessageError) else None
        if not isinstance(message, pseudo.PseudoMessage) or message.runid != subject.run:
            return MalformedMessageError("the message does not belong on this subject")
        entry = self.entries.get(subject.run)
        if entry is None:
            known = Cron(run=message.runid, tenant=message.tenant, pipeline=message.pipeline)
            entry = self.entries[subject.run] = Entry(known)
        if isinstance(message, pseudo.TriggerDecided):
            if message.data.version > entry.cron.version + 1 and entry.stalled is None:
                await self._check(entry, message.data.version)
            if entry.in_flight:
                entry.in_flight = ""  # ours, or another's: then ours will be refused
        core.evolve(entry.cron, stored.seq, message)
        entry.ended = {due: end for due, end in entry.ended.items() if due in entry.cron.starting}
        self._touched[subject.run] = None
        return None

    async def _check(self, entry: Entry, version: int) -> None:
        """Decisions are missing before this one: in the log, or in our reading of it?"""
        cron = entry.cron
        scope = subjects.decision_scope(subjects.run_prefix(cron.tenant, cron.pipeline, cron.run))
        found = 0
        async for stored in self._shared.broker.read(self._stream, (scope,)):
            try:
                message = codec.decode(stored.body)
            except MalformedMessageError:
                break
            if isinstance(message, pseudo.TriggerDecided) and message.data.version == found + 1:
                found += 1
        if found >= version:
            message_text = f"{self._stream} has decisions of schedule {cron.run} that were not read"
            raise SkippedError(message_text)
        missing = f"decision {found + 1} of schedule {cron.run} is missing; compare the stream with its archive"
        self._stall(entry, CorruptError(missing))

    def _stall(self, entry: Entry, error: HeadraceError) -> None:
        """Stop one schedule, loudly; a schedule that went on with a guess could fire twice."""
        entry.stalled = error
        log.error("trigger.stalled", extra={"run_id": entry.cron.run, "code": error.code, "why": str(error)})

    # --- decide ------------------------------------------------------------------------------------

    async def turn(self) -> None:
        """Decide about whatever was touched or is due, and carry out what follows."""
        self._look_at_definitions()
        now_ms = self._shared.clock.now_ms()
        for run, entry in self.entries.items():
            if entry.due_ms is not None and entry.due_ms <= now_ms:
                self._touched[run] = None
        while self._touched:
            run = next(iter(self._touched))
            del self._touched[run]
            try:
                await self._follow(self.entries[run])
            except (RetryableError, UnknownOutcomeError):
                self._touched[run] = None
                raise

    def _look_at_definitions(self) -> None:
        revision = self._shared.schedules.revision
        if revision == self._revision:
            return
        self._revision = revision
        for run, cron in self._shared.schedules.of_part(self._part).items():
            self.entries.setdefault(run, Entry(cron))
        self._touched.update(dict.fromkeys(self.entries))

    async def _follow(self, entry: Entry) -> None:
        if entry.in_flight or entry.stalled is not None:
            return
        now_ms = self._shared.clock.now_ms()
        if not self._shared.may_decide(self._part):
            entry.due_ms = now_ms + RETRY_MS
            return
        self._start_runs(entry)
        wanted = self._shared.schedules.wanted(entry.cron)
        decision = core.decide(entry.cron, wanted, entry.ended, now_ms=now_ms)
        if decision is None:
            entry.due_ms = core.next_due_ms(entry.cron)
            return
        entry.due_ms = None
        outgoing = pseudo_messages.trigger_decided(entry.cron, decision, source=self._shared.source)
        prefix = subjects.run_prefix(entry.cron.tenant, entry.cron.pipeline, entry.cron.run)
        expected = Expected(entry.cron.decision_seq, subjects.decision_scope(prefix))
        entry.in_flight = outgoing.id
        crashpoint("before_decision")
        try:
            future = await self._shared.broker.publish(
                outgoing.subject, outgoing.body, msg_id=outgoing.id, expected=expected
            )
        except RetryableError:
            self._let_go(entry, outgoing.id)
            raise
        future.add_done_callback(lambda done: self._sent(entry, outgoing.id, done))

    def _sent(self, entry: Entry, sent: str, done: "asyncio.Future[Appended]") -> None:
        if done.cancelled() or entry.in_flight != sent or done.exception() is None:
            return
        self._shared.supervisor.spawn(self._resolve(entry, sent, done.exception()), "scheduler.resolve")

    async def _resolve(self, entry: Entry, sent: str, error: BaseException | None) -> None:
        """A refused or unanswered decision: wait until the tail has shown all that the leader holds, then go on."""
        if not isinstance(error, AppendConflictError | RetryableError | UnknownOutcomeError):
            log.error("decision.failed", extra={"run_id": entry.cron.run}, exc_info=error)
        clock, cron = self._shared.clock, entry.cron
        scope = subjects.decision_scope(subjects.run_prefix(cron.tenant, cron.pipeline, cron.run))
        deadline_s = clock.monotonic_s() + names.UNKNOWN_RESOLVE_S
        while entry.in_flight == sent and clock.monotonic_s() < deadline_s:
            try:
                last = await self._shared.broker.last(self._stream, scope)
            except (RetryableError, UnknownOutcomeError):
                await clock.sleep(RETRY_MS / 1000)
                continue
            if last is None or last.seq <= cron.decision_seq:
                break
            await clock.sleep(LOOK_S)
        self._let_go(entry, sent)

    def _let_go(self, entry: Entry, sent: str) -> None:
        if entry.in_flight == sent:
            entry.in_flight = ""
            entry.due_ms = self._shared.clock.now_ms() + RETRY_MS

    # --- carry out ---------------------------------------------------------------------------------

    def _start_runs(self, entry: Entry) -> None:
        """Make the runs of instants that the log says have fired, and that are not known to exist."""
        for due_ms, digest, run in core.runs_to_start(entry.cron):
            if due_ms not in entry.ended and due_ms not in entry.starting:
                entry.starting.add(due_ms)
                self._shared.supervisor.spawn(self._start(entry, due_ms, digest, run), "scheduler.schedule")

    async def _start(self, entry: Entry, due_ms: int, digest: str, run: str) -> None:
        crashpoint("between_firing_and_start")
        try:
            async with asyncio.timeout(START_WITHIN_S):
                entry.ended[due_ms] = await self._shared.schedules.start(entry.cron, due_ms, digest, run)
            log.info("trigger.started", extra={"run_id": run, "pipeline": entry.cron.pipeline})
        except (RetryableError, UnknownOutcomeError, TimeoutError) as error:
            log.warning("trigger.waits", extra={"run_id": run, "why": str(error)})
            await self._shared.clock.sleep(RETRY_MS / 1000)
        finally:
            entry.starting.discard(due_ms)
            self._touched[entry.cron.run] = None
