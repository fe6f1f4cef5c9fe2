"""What follows a decision that is in the log: its orders, those that state wants and the log has not shown, and the
word to executors that an attempt is over.
"""

import asyncio
import logging
from typing import Final

from headrace.contracts import codec, subjects
from headrace.contracts import events as ev
from headrace.contracts.errors import RetryableError
from headrace.contracts.failure import Failure
from headrace.runtime import blobs
from headrace.runtime.crashpoints import crashpoint
from headrace.runtime.eventlog import Appended, Expected
from headrace_scheduler import messages
from headrace_scheduler.decide import Decision
from headrace_scheduler.entries import Entry, InFlight, Shared
from headrace_scheduler.orders import content_for, make_order

log = logging.getLogger("headrace.scheduler")

REPUBLISH_S: Final = 5.0
"""An order published this long ago and not seen in the log is published again; its id makes that harmless."""


class Publisher:
    """Publishes for the runs of one partition."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared

    async def carry_out(self, entry: Entry, own: InFlight) -> None:
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

    async def publish_missing(self, entry: Entry) -> Failure | None:
        """Orders that state wants and the log has not shown: after a takeover, or when a publish was lost. Gives why
        one cannot be derived any more, for which its run must stop."""
        now_s = self.shared.clock.monotonic_s()
        for path in list(entry.run.unordered):
            inst = entry.run.get(path)
            assert inst is not None, path
            at_s = entry.published.get((path, inst.attempt, inst.want_offer))
            if at_s is not None and now_s - at_s < REPUBLISH_S:
                continue
            content = content_for(entry.run, entry.plan, path, now_ms=inst.scheduled_ms)
            if inst.input_sha and content.sha != inst.input_sha:
                return Failure(code="internal", message=f"{path}: deriving the order again gave another input")
            for ref, data in content.blobs:
                await blobs.put(self.shared.broker, entry.run.tenant, ref.partition("/")[0], data)
            await self.publish_order(entry, make_order(entry.run, entry.plan, inst, content))
        return None

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


def _log_failure(done: "asyncio.Future[Appended]") -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        log.info("publish.failed", extra={"why": f"{type(error).__name__}: {error}"})
