"""The way of a decision into the log: what it names is stored first, and an unclear outcome is read back.

At most one decision of a run is under way. It is folded when the tail shows it, never before.
"""

import asyncio
import logging
from typing import Final

from headrace.contracts import names, subjects
from headrace.contracts.errors import AppendConflictError, RetryableError, UnknownOutcomeError
from headrace.runtime import blobs
from headrace.runtime.crashpoints import crashpoint
from headrace.runtime.eventlog import Appended, Expected
from headrace_scheduler import messages
from headrace_scheduler.decide import Decision
from headrace_scheduler.entries import Entry, InFlight, Shared
from headrace_scheduler.timers import Timers

log = logging.getLogger("headrace.scheduler")

RETRY_S: Final = 0.2


class Appender:
    """Sends decisions of one partition."""

    def __init__(self, stream: str, shared: Shared, timers: Timers) -> None:
        self.stream, self.shared = stream, shared
        self._timers = timers

    async def send(self, entry: Entry, decision: Decision) -> None:
        """Begin to append a decision; `entry.in_flight` until its outcome is known."""
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
            entry.count(self.shared.room)
            self._timers.arm(entry, self.shared.clock.now_ms() + int(RETRY_S * 1000))
