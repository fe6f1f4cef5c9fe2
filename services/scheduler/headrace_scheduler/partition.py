"""One owned partition: read its history, fold it, decide, publish what follows.

The position is implied by state, so the tail acknowledges nothing. Own decisions are folded when the tail shows
them, never before: every reader, this one included, sees one order. At most one decision of a run is in flight.
"""

import asyncio
import logging
from collections import deque
from typing import Final

from headrace.contracts import codec, names, subjects
from headrace.contracts import events as ev
from headrace.contracts.errors import (
    HeadraceError,
    MalformedMessageError,
    NewerSchemaError,
    RetryableError,
    UnknownOutcomeError,
)
from headrace.contracts.failure import Failure
from headrace.pipeline.plan import Plan
from headrace.runtime.eventlog import Stored, Tail
from headrace.runtime.park import park
from headrace_scheduler import children, damage, outbox, snapshots
from headrace_scheduler.appending import RETRY_S, Appender
from headrace_scheduler.cache_store import CacheStore
from headrace_scheduler.decide import Limits, decide, next_due_ms
from headrace_scheduler.entries import Entry, Shared, Stall
from headrace_scheduler.pace import FOLD_US, FOLLOW_US, Pace
from headrace_scheduler.pseudos import Pseudos
from headrace_scheduler.publishing import REPUBLISH_S, Publisher
from headrace_scheduler.records import Run
from headrace_scheduler.reuse import Reuse
from headrace_scheduler.state import created, evolve
from headrace_scheduler.timers import Timers

log = logging.getLogger("headrace.scheduler")

BATCH_MAX: Final = 512
"""Folded between two rounds of decisions: a thousand reports then cost few decisions, and it stays prompt."""
IDLE_S: Final = 1.0
"""Longest wait without looking at timers and snapshots."""
CATCHING_UP_S: Final = 0.02
"""Wait for messages while catching up: an empty partition is live at once."""


class Partition:
    """The owner's view of one partition."""

    def __init__(self, part: int, shared: Shared) -> None:
        self.part, self.shared = part, shared
        self.stream = subjects.runs_stream(part, streams=shared.run_streams)
        self.entries: dict[str, Entry] = {}
        self.kin: dict[str, dict[str, None]] = {}
        """Children in our hands by their parent's id."""
        self.seq = 0
        self.live = False
        """Caught up: it decides."""
        self.skipped = ""
        """What the tail has passed without showing it: everything is read again."""
        self.pseudos = Pseudos(part, self.stream, shared)
        self._tail: Tail | None = None
        self._unfolded: deque[Stored] = deque()
        self._touched: dict[str, None] = {}
        self._timers = Timers()
        self.publisher = Publisher(shared)
        self._appender = Appender(self.stream, shared, self._timers)
        self._cache = CacheStore(shared)
        self._folded = 0
        self._pace = Pace(shared.clock)
        self._snapshot_seq = 0
        self._snapshot_at_s = shared.clock.monotonic_s()

    # --- the loop ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Own the partition until cancelled."""
        try:
            await self._load()
            while True:
                try:
                    await self._turn()
                except (RetryableError, UnknownOutcomeError) as error:
                    log.warning("partition.waits", extra={"partition": self.part, "why": str(error)})
                    await self.shared.clock.sleep(RETRY_S)
        finally:
            self.live = False
            for entry in self.entries.values():
                self.shared.room.count(entry.run.tenant, entry.counted, {})
            if self._tail is not None:
                async with asyncio.timeout(names.REQUEST_DEADLINE_S):
                    await self._tail.stop()

    async def _load(self) -> None:
        snapshot = await snapshots.load(self.shared.broker, self.part) if self.shared.snapshots_on else None
        if snapshot is not None:
            self.seq = self._snapshot_seq = snapshot.seq
            self.pseudos.restore([*snapshot.schedules, *snapshot.keys])
            for run in snapshot.runs:
                plan = await self.shared.plans.get(run.tenant, run.defdigest)
                self._take(run, plan).count(self.shared.room)
        filters = (subjects.partition_filter(self.part),)
        self._tail = await self.shared.broker.tail(self.stream, filters, start_seq=self.seq + 1)

    async def _turn(self) -> None:
        assert self._tail is not None
        if self.skipped:
            raise damage.SkippedError(self.skipped)
        if not self._unfolded:
            self._unfolded.extend(await self._tail.batch(max_count=BATCH_MAX, wait_s=self._wait_s()))
        while self._unfolded:  # the tail hands a message out once: what could not be folded yet stays
            if not await self.pseudos.fold(self._unfolded[0]):
                await self._fold(self._unfolded[0])
            self.seq = self._unfolded.popleft().seq
        if not self.live:
            if not self._tail.caught_up:
                return
            self.live = True
            self._touched.update(dict.fromkeys(self.entries))
            log.info("partition.live", extra={"partition": self.part, "runs": len(self.entries), "seq": self.seq})
        self._touch_due()
        while self._touched:
            await self.follow(next(iter(self._touched)))
        await self.pseudos.turn()
        await self.shared.room.serve()
        await self._snapshot_if_due()

    def _wait_s(self) -> float:
        if not self.live:
            return CATCHING_UP_S
        dues = [due for due in (self.pseudos.due_ms, self._timers.next_ms) if due is not None]
        return min(IDLE_S, max(0.0, (min(dues) - self.shared.clock.now_ms()) / 1000)) if dues else IDLE_S

    def _touch_due(self) -> None:
        now_ms = self.shared.clock.now_ms()
        for run in self._timers.pop_due(self.entries, now_ms):
            self._touched[run] = None

    # --- folding -----------------------------------------------------------------------------------

    async def _fold(self, stored: Stored) -> None:
        """Fold one message of the partition; what cannot be read is parked and never stops the others."""
        await self._pace.work(FOLD_US)
        self._folded += 1
        subject = subjects.parse_run_subject(stored.subject)
        if subject is None:
            await self._park(stored, MalformedMessageError(f"not a run's subject: {stored.subject}"))
            return
        entry = self.entries.get(subject.run)
        own = entry.in_flight if entry is not None else None
        if own is not None and own.body == stored.body:
            message: ev.StoredMessage = own.message
        else:
            try:
                message = codec.decode(stored.body)
            except MalformedMessageError as error:
                await self._park(stored, error)
                self._pass_over(stored, subject, damage.unreadable(error) if subject.kind == "decision" else None)
                return
            except NewerSchemaError as error:
                self._pass_over(stored, subject, error.failure())
                return
        if not isinstance(message, ev.RunMessage) or message.runid != subject.run:
            mislaid = MalformedMessageError("the message does not belong on this subject")
            await self._park(stored, mislaid)
            self._pass_over(stored, subject, damage.unreadable(mislaid) if subject.kind == "decision" else None)
            return
        if entry is None:
            entry = await self._create(message)
            if entry is None:
                return  # of a run that ended before this owner's time
        elif isinstance(message, ev.RunDecided) and damage.doubt(entry.run, message):
            await self._check(entry, stored.seq)
        try:
            counts = evolve(entry.run, stored.seq, message, entry.plan)
        except Exception as error:
            log.exception("run.fold_failed", extra={"run_id": subject.run, "seq": stored.seq})
            self._stall(entry, _bug(error), stored.seq)
            return
        if entry.stall is not None and (entry.run.ended or entry.run.status == "stalled"):
            entry.stall = None
        if isinstance(message, ev.RunDecided) and own is not None:
            entry.in_flight = None  # where it is another's decision, ours will be refused
            if counts and own.message is message:
                await self.publisher.carry_out(entry, own)
                self._cache.keep(entry, own.decision.kept)
        entry.count(self.shared.room)
        self._touched[subject.run] = None

    async def _create(self, message: ev.RunMessage) -> Entry | None:
        if not isinstance(message, ev.RunDecided):
            return None
        run = created(message)
        plan = await self.shared.plans.get(message.tenant, message.defdigest if run is None else run.defdigest)
        if run is not None:
            return self._take(run, plan)
        failure = await damage.found(self.shared.broker, self.stream, message.runid, plan)
        if failure is None:
            return None
        entry = self._take(damage.headless(message), plan)
        self._stall(entry, failure, self.seq)
        return entry

    async def _check(self, entry: Entry, seq: int) -> None:
        """The message at `seq` does not follow what was folded: either the log is damaged, or our reading is."""
        if entry.stall is not None or entry.run.status == "stalled":
            return
        failure = await damage.found(self.shared.broker, self.stream, entry.run.run, entry.plan)
        if failure is None:
            message = f"{self.stream} has what was not read of run {entry.run.run} before {seq}"
            raise damage.SkippedError(message)
        self._stall(entry, failure, seq)

    def _pass_over(self, stored: Stored, subject: subjects.RunSubject, failure: Failure | None) -> None:
        """Note a message that cannot be folded: with a failure its run stops. It stands in the way of decisions all the
        same, so the next one is checked against it."""
        entry = self.entries.get(subject.run)
        if failure is None or entry is None:
            return
        if subject.kind == "decision" and subject.pipeline == entry.run.pipeline:
            entry.run.decision_seq = stored.seq
        self._stall(entry, failure, stored.seq)

    def _take(self, run: Run, plan: Plan) -> Entry:
        entry = self.entries[run.run] = Entry(run, plan)
        if run.parent:
            self.kin.setdefault(run.parent, {})[run.run] = None
        return entry

    def _forget(self, entry: Entry) -> None:
        """The run has ended and nobody waits for it here."""
        run = entry.run
        entry.count(self.shared.room)
        del self.entries[run.run]
        if run.parent and run.parent in self.kin:
            self.kin[run.parent].pop(run.run, None)
            if not self.kin[run.parent]:
                del self.kin[run.parent]
        self._touched.update(self.kin.get(run.run, {}))

    async def _park(self, stored: Stored, error: HeadraceError) -> None:
        await park(
            self.shared.broker,
            stored,
            error.failure(),
            deliveries=1,
            source=self.shared.source,
            now_ms=self.shared.clock.now_ms(),
        )

    # --- deciding ----------------------------------------------------------------------------------

    async def follow(self, run_id: str) -> None:
        """Do what follows from a run's state: decide, start and stop children, publish missing orders, forget it."""
        await self._pace.work(FOLLOW_US)
        self._touched.pop(run_id, None)
        entry = self.entries.get(run_id)
        if entry is None or not self.live:
            return
        try:
            await self._follow(entry)
        except (RetryableError, UnknownOutcomeError):
            self._touched[run_id] = None  # nothing else would come back to it before its next timer
            raise

    async def _follow(self, entry: Entry) -> None:
        await children.follow(self, entry)
        if entry.run.ended:
            if children.is_awaited(self, entry):
                self._timers.arm(entry, self.shared.clock.now_ms() + int(REPUBLISH_S * 1000))  # the report may be lost
            else:
                self._forget(entry)
            return
        if entry.in_flight is not None:
            return  # its outcome touches the run again
        if not self.shared.may_decide(self.part):
            self._timers.arm(entry, self.shared.clock.now_ms() + int(RETRY_S * 1000))
            return
        if entry.stall is not None:
            await self._appender.send(entry, entry.stall.decision(entry.run.version + 1, self.shared.clock.now_ms()))
            return
        outbox.publish_events(self.shared, entry)
        failure = await self.publisher.publish_missing(entry)
        if failure is None:
            await self._decide(entry)
        else:
            self._stall(entry, failure, self.seq)

    async def _decide(self, entry: Entry) -> None:
        run, clock = entry.run, self.shared.clock
        now_ms = clock.now_ms()
        limits = Limits(
            left=self.shared.room.left(run.tenant, run.run),
            lost=frozenset(entry.lost),
            definitions=self.shared.definitions.get(run.tenant, {}),
            reuse=Reuse(entry.reused),
            prices=self.shared.plans.prices,
        )
        try:
            decision = decide(run, entry.plan, now_ms=now_ms, limits=limits)
        except Exception as error:
            log.exception("run.decide_failed", extra={"run_id": run.run, "version": run.version})
            self._stall(entry, _bug(error), self.seq)
            return
        if limits.reuse.wanted:
            self._cache.look_up(entry, limits.reuse.wanted, lambda: self.follow(run.run))
        if limits.refused:
            self.shared.room.wait(run.tenant, limits.refused, run.run, lambda: self.follow(run.run))
        if decision is None:
            due_ms = next_due_ms(run, entry.plan, now_ms=now_ms)
            if (
                run.unordered or outbox.is_unsettled(run) or children.is_unsettled(self, entry)
            ):  # what does not show in the log may be lost
                again_ms = now_ms + int(REPUBLISH_S * 1000)
                due_ms = again_ms if due_ms is None else min(due_ms, again_ms)
            if due_ms != entry.due_ms:
                self._timers.arm(entry, due_ms)
            return
        entry.lost.clear()
        await self._appender.send(entry, decision)

    def _stall(self, entry: Entry, failure: Failure, seq: int) -> None:
        """Stop one run, loudly, with the reason in its history: the first one found."""
        if entry.stall is not None or entry.run.ended or entry.run.status == "stalled":
            return
        log.error("run.stalled", extra={"run_id": entry.run.run, "code": failure.code, "seq": seq})
        entry.stall = Stall(failure, seq)
        self._touched[entry.run.run] = None

    # --- snapshots ---------------------------------------------------------------------------------

    async def _snapshot_if_due(self) -> None:
        if not self.shared.snapshots_on or self.seq == self._snapshot_seq:
            return
        now_s = self.shared.clock.monotonic_s()
        if now_s - self._snapshot_at_s < names.SNAPSHOT_EVERY_S and self._folded < names.SNAPSHOT_EVERY_EVENTS:
            return
        if any(entry.stall is not None for entry in self.entries.values()):
            return  # what has to be said about them is not in the log yet, and would be forgotten
        self._snapshot_at_s, self._folded, self._snapshot_seq = now_s, 0, self.seq
        runs = [entry.run for entry in self.entries.values()]
        taken = snapshots.Snapshot(
            part=self.part, seq=self.seq, runs=runs, schedules=self.pseudos.schedules, keys=self.pseudos.keys
        )
        data = snapshots.encode(taken)
        self.shared.supervisor.spawn(
            snapshots.store(self.shared.broker, self.part, self.seq, data), "scheduler.snapshot"
        )


def _bug(error: Exception) -> Failure:
    return Failure(code="internal", message=f"{type(error).__name__}: {error}"[:2000])
