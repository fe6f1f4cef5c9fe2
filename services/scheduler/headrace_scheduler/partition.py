"""One owned partition: read its history, fold it, decide, publish what follows.

The position is implied by state, so the tail acknowledges nothing. Own decisions are folded when the tail shows
them, never before: every reader, this one included, sees one order. At most one decision of a run is in flight.
"""

import asyncio
import logging
from collections import deque
from heapq import heappop, heappush
from typing import Final

from headrace.contracts import codec, names, subjects
from headrace.contracts import events as ev
from headrace.contracts.errors import (
    AppendConflictError,
    HeadraceError,
    MalformedMessageError,
    NewerSchemaError,
    RetryableError,
    UnknownOutcomeError,
)
from headrace.contracts.failure import Failure
from headrace.pipeline.plan import Plan
from headrace.runtime import blobs
from headrace.runtime.crashpoints import crashpoint
from headrace.runtime.eventlog import Appended, Expected, Stored, Tail
from headrace.runtime.park import park
from headrace_scheduler import children, damage, messages, snapshots
from headrace_scheduler.decide import Decision, Limits, decide, next_due_ms
from headrace_scheduler.entries import Entry, InFlight, Shared, Stall
from headrace_scheduler.orders import content_for, make_order
from headrace_scheduler.pace import FOLD_US, FOLLOW_US, Pace
from headrace_scheduler.pseudos import Pseudos
from headrace_scheduler.records import Run
from headrace_scheduler.state import created, evolve

log = logging.getLogger("headrace.scheduler")

BATCH_MAX: Final = 512
"""Folded between two rounds of decisions: a thousand reports then cost few decisions, and it stays prompt."""
IDLE_S: Final = 1.0
"""Longest wait without looking at timers and snapshots."""
CATCHING_UP_S: Final = 0.02
"""Wait for messages while catching up: an empty partition is live at once."""
RETRY_S: Final = 0.2
REPUBLISH_S: Final = 5.0
"""An order published this long ago and not seen in the log is published again; its id makes that harmless."""


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
        self._timers: list[tuple[int, str]] = []
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
                self._count(self._take(run, plan))
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
        dues = [due for due in (self.pseudos.due_ms, self._timers[0][0] if self._timers else None) if due is not None]
        return min(IDLE_S, max(0.0, (min(dues) - self.shared.clock.now_ms()) / 1000)) if dues else IDLE_S

    def _arm(self, entry: Entry, due_ms: int | None) -> None:
        """Look at the run again at this instant. An older entry of the heap is skipped when it comes up."""
        entry.due_ms = due_ms
        if due_ms is not None:
            heappush(self._timers, (due_ms, entry.run.run))

    def _touch_due(self) -> None:
        now_ms = self.shared.clock.now_ms()
        while self._timers and self._timers[0][0] <= now_ms:
            due_ms, run = heappop(self._timers)
            entry = self.entries.get(run)
            if entry is not None and entry.due_ms == due_ms:
                entry.due_ms = None
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
                await self._carry_out(entry, own)
        self._count(entry)
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
        self._count(entry)
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

    def _count(self, entry: Entry) -> None:
        """Tell Room what is out; a decision in flight has been counted when it was sent."""
        if entry.in_flight is not None:
            return
        out = {} if entry.run.ended else dict(entry.run.out)
        if out != entry.counted:
            self.shared.room.count(entry.run.tenant, entry.counted, out)
            entry.counted = out

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
                self._arm(entry, self.shared.clock.now_ms() + int(REPUBLISH_S * 1000))  # the report may be lost
            else:
                self._forget(entry)
            return
        if entry.in_flight is not None:
            return  # its outcome touches the run again
        if not self.shared.may_decide(self.part):
            self._arm(entry, self.shared.clock.now_ms() + int(RETRY_S * 1000))
            return
        if entry.stall is not None:
            await self._send(entry, entry.stall.decision(entry.run.version + 1, self.shared.clock.now_ms()))
            return
        await self._publish_missing(entry)
        await self._decide(entry)

    async def _decide(self, entry: Entry) -> None:
        run, clock = entry.run, self.shared.clock
        now_ms = clock.now_ms()
        limits = Limits(
            left=self.shared.room.left(run.tenant, run.run),
            lost=frozenset(entry.lost),
            definitions=self.shared.definitions.get(run.tenant, {}),
        )
        try:
            decision = decide(run, entry.plan, now_ms=now_ms, limits=limits)
        except Exception as error:
            log.exception("run.decide_failed", extra={"run_id": run.run, "version": run.version})
            self._stall(entry, _bug(error), self.seq)
            return
        if limits.refused:
            self.shared.room.wait(run.tenant, limits.refused, run.run, lambda: self.follow(run.run))
        if decision is None:
            due_ms = next_due_ms(run, entry.plan, now_ms=now_ms)
            if run.unordered or children.is_unsettled(self, entry):  # what does not show in the log may be lost
                again_ms = now_ms + int(REPUBLISH_S * 1000)
                due_ms = again_ms if due_ms is None else min(due_ms, again_ms)
            if due_ms != entry.due_ms:
                self._arm(entry, due_ms)
            return
        entry.lost.clear()
        await self._send(entry, decision)

    async def _send(self, entry: Entry, decision: Decision) -> None:
        outgoing, message = messages.decided(entry.run, decision, source=self.shared.source)
        entry.in_flight = in_flight = InFlight(outgoing.id, outgoing.body, message, decision)
        expected_out = dict(entry.run.out)
        for order in decision.orders.values():
            expected_out[order.queue] = expected_out.get(order.queue, 0) + 1
        self.shared.room.count(entry.run.tenant, entry.counted, expected_out)
        entry.counted = expected_out
        if decision.blobs:
            self.shared.supervisor.spawn(self._store_then_send(entry, in_flight, outgoing), "scheduler.blobs")
        else:
            await self._append(entry, in_flight, outgoing)

    async def _store_then_send(self, entry: Entry, in_flight: InFlight, outgoing: messages.Outgoing) -> None:
        """Values before the decision that names them."""
        try:
            async with asyncio.timeout(names.UNKNOWN_RESOLVE_S):
                for ref, data in in_flight.decision.blobs:
                    await blobs.put(self.shared.broker, entry.run.tenant, ref.partition("/")[0], data)
        except (RetryableError, UnknownOutcomeError, TimeoutError) as error:
            log.warning("decision.blobs_failed", extra={"run_id": entry.run.run, "why": str(error)})
            self._let_go(entry, in_flight)
            return
        await self._append(entry, in_flight, outgoing)

    async def _append(self, entry: Entry, in_flight: InFlight, outgoing: messages.Outgoing) -> None:
        run = entry.run
        expected = Expected(run.decision_seq, subjects.decision_scope(messages.prefix_of(run)))
        crashpoint("before_decision")
        try:
            future = await self.shared.broker.publish(
                outgoing.subject, outgoing.body, msg_id=outgoing.id, expected=expected
            )
        except RetryableError as error:
            log.warning("decision.not_sent", extra={"run_id": run.run, "why": str(error)})
            self._let_go(entry, in_flight)
            return
        future.add_done_callback(lambda done: self._sent(entry, in_flight, done))

    def _sent(self, entry: Entry, in_flight: InFlight, done: "asyncio.Future[Appended]") -> None:
        """The broker has answered, or has not. After a success the tail shows the decision."""
        if done.cancelled() or entry.in_flight is not in_flight:
            return
        if done.exception() is None:
            in_flight.seq = done.result().seq
            return
        self.shared.supervisor.spawn(self._resolve(entry, in_flight, done.exception()), "scheduler.resolve")

    async def _resolve(self, entry: Entry, in_flight: InFlight, error: BaseException | None) -> None:
        """A refused or unanswered decision: wait until the tail has shown all that the leader holds, then go on.

        Whatever the outcome was, the next decision carries the sequence folded last, so that at most one is stored.
        """
        run, clock = entry.run, self.shared.clock
        if not isinstance(error, AppendConflictError | RetryableError | UnknownOutcomeError):
            log.error("decision.failed", extra={"run_id": run.run}, exc_info=error)
        log.info("decision.unresolved", extra={"run_id": run.run, "version": run.version + 1, "why": str(error)})
        scope = subjects.decision_scope(messages.prefix_of(run))
        deadline_s = clock.monotonic_s() + names.UNKNOWN_RESOLVE_S
        while entry.in_flight is in_flight and clock.monotonic_s() < deadline_s:
            try:
                last = await self.shared.broker.last(self.stream, scope)
            except (RetryableError, UnknownOutcomeError):
                await clock.sleep(RETRY_S)
                continue
            if last is None or last.seq <= run.decision_seq:
                break
            await clock.sleep(0.02)
        self._let_go(entry, in_flight)

    def _let_go(self, entry: Entry, in_flight: InFlight) -> None:
        if entry.in_flight is in_flight:
            entry.in_flight = None
            self._count(entry)
            self._arm(entry, self.shared.clock.now_ms() + int(RETRY_S * 1000))

    # --- what follows a decision -------------------------------------------------------------------

    async def _carry_out(self, entry: Entry, own: InFlight) -> None:
        """What follows from a decision that has just been seen in the log."""
        try:
            await self._publish_orders(entry, own)
            await self._revoke(entry, own.decision)
        except RetryableError as error:  # the decision is folded; what state wants goes out as missing, later
            log.warning("orders.wait", extra={"run_id": entry.run.run, "why": str(error)})

    async def _publish_orders(self, entry: Entry, own: InFlight) -> None:
        crashpoint("between_decision_and_orders")
        inside = own.decision.order
        for path, order in own.decision.orders.items():
            inst = entry.run.get(path)
            if inst is None or (inside is not None and path == inside.path):
                continue
            await self.publish_order(entry, messages.at_decision(order, own.id, own.decision.version))

    async def _revoke(self, entry: Entry, decision: Decision) -> None:
        """Tell executors which attempts are over for the engine. Only spares work: what they report is not folded."""
        revoke = messages.revocation(entry.run, decision)
        if revoke is not None and self.shared.broker.connected:
            await self.shared.broker.send(subjects.REVOKE, codec.encode(revoke))

    async def _publish_missing(self, entry: Entry) -> None:
        """Orders that state wants and the log has not shown: after a takeover, or when a publish was lost."""
        now_s = self.shared.clock.monotonic_s()
        for path in list(entry.run.unordered):
            inst = entry.run.get(path)
            assert inst is not None, path
            at_s = entry.published.get((path, inst.attempt, inst.want_offer))
            if at_s is not None and now_s - at_s < REPUBLISH_S:
                continue
            content = content_for(entry.run, entry.plan, path, now_ms=inst.scheduled_ms)
            if inst.input_sha and content.sha != inst.input_sha:
                failure = Failure(code="internal", message=f"{path}: deriving the order again gave another input")
                self._stall(entry, failure, self.seq)
                return
            for ref, data in content.blobs:
                await blobs.put(self.shared.broker, entry.run.tenant, ref.partition("/")[0], data)
            await self.publish_order(entry, make_order(entry.run, entry.plan, inst, content))

    async def publish_order(self, entry: Entry, order: ev.Order) -> None:
        """Send an order; whether it is stored shows in the tail."""
        entry.published[(order.path, order.attempt, order.offer)] = self.shared.clock.monotonic_s()
        if len(entry.published) > 4 * max(64, len(entry.run.active)):
            wanted = {(path, inst.attempt, inst.want_offer) for path, inst in entry.run.insts.items()}
            entry.published = {key: at for key, at in entry.published.items() if key in wanted}
        await self.send(messages.ordered(entry.run, order, source=self.shared.source))

    async def send(self, outgoing: messages.Outgoing, expected: Expected | None = None) -> None:
        """Append without waiting. A failure is logged; the sweep publishes again what is still missing."""
        future = await self.shared.broker.publish(
            outgoing.subject, outgoing.body, msg_id=outgoing.id, expected=expected
        )
        future.add_done_callback(_log_failure)

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


def _log_failure(done: "asyncio.Future[Appended]") -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        log.info("publish.failed", extra={"why": f"{type(error).__name__}: {error}"})
