"""The executor: orders in, reports out. Subscriptions → decide → attempt → report, then the acknowledgement.

An order in hand is a `_Work`: the newest delivery of one attempt, and the task that deals with it. Whatever
ends it ends it once: its report is stored, it is let go of (acknowledged without a report), or it is handed
back.
"""

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

from headrace.contracts import codec, names, subjects
from headrace.contracts import events as ev
from headrace.contracts.errors import (
    ConfigError,
    MalformedMessageError,
    NewerSchemaError,
    RetryableError,
    UnknownOutcomeError,
)
from headrace.contracts.failure import Failure
from headrace.contracts.live import Revoke
from headrace.runtime.clock import Clock
from headrace.runtime.crashpoints import crashpoint
from headrace.runtime.entropy import Entropy
from headrace.runtime.eventlog import Broker, BusMessage, Consumer, Delivery, Stored, Subscription
from headrace.runtime.logging import hide_with, stop_hiding
from headrace.runtime.park import park
from headrace.runtime.projection import Projection
from headrace.runtime.supervisor import Supervisor
from headrace_step_executor import decide
from headrace_step_executor.attempt import Attempts
from headrace_step_executor.breaker_news import BreakerNews
from headrace_step_executor.broker_time import BrokerTime
from headrace_step_executor.claims import source_of
from headrace_step_executor.config import Config
from headrace_step_executor.ends import EndsTail
from headrace_step_executor.keeping import Keeping
from headrace_step_executor.owners import Owners
from headrace_step_executor.presence import Presence
from headrace_step_executor.reporting import store
from headrace_step_executor.secrets import REFRESH_S, Secrets
from headrace_step_executor.state import AttemptKey, Catalogue, EndedRuns, Hands, Revoked

log = logging.getLogger("headrace.executor")

BATCH_WAIT_S: Final = 5.0
OPEN_AGAIN_S: Final = 0.5
HAND_BACK_S: Final = 1.0
"""How long a handed-back order stays away at most; at least half of it, so that replicas don't play
ping-pong."""
NEWER_SCHEMA_S: Final = 5.0
"""Until an executor of a newer release has had the chance to take the order."""
DELIVERIES_TO_PARK: Final = 3
"""An order over which our own code raises so often is set aside; the engine's deadline fails the attempt."""
DRAIN_LOOK_S: Final = 0.02
REPORT_LATE_MAX_S: Final = 600.0
"""A result is offered to a broker that is away until the attempt is over for the engine, but no longer than
this."""


@dataclass(slots=True)
class _Work:
    received: decide.Received
    deliveries: list[Delivery]
    """The newest is the last. More than one when the broker delivered the same message again."""
    task: "asyncio.Task[object] | None" = None
    over: bool = False


@dataclass(slots=True, frozen=True)
class Parts:
    """What the executor works with; `parts.py` puts it together."""

    attempts: Attempts
    catalogue: Catalogue
    time: BrokerTime
    breakers: BreakerNews
    keeping: Keeping
    providers: Callable[[], tuple[str, ...]]
    """Names of providers that can answer here."""
    close: Callable[[], Awaitable[None]]
    secrets: Secrets
    threads: Executor
    version: str = ""


class StepExecutor:
    """See harness.Service."""

    name = decide.SERVICE

    def __init__(
        self,
        broker: Broker,
        supervisor: Supervisor,
        *,
        clock: Clock,
        entropy: Entropy,
        instance: str,
        config: Config,
        parts: Parts,
    ) -> None:
        self._broker, self._supervisor, self._clock, self._entropy = broker, supervisor, clock, entropy
        self._config, self._parts = config, parts
        self._source = source_of(instance)
        self._streams = subjects.runs_streams(config.run_streams)
        self._ended, self._revoked, self.hands = EndedRuns(), Revoked(), Hands()
        self._work: dict[AttemptKey, _Work] = {}
        self._of_step: dict[tuple[str, str], set[int]] = {}
        """Attempts in hand, by run and step instance."""
        self._consumers: list[Consumer] = []
        self._consuming = 0
        self._draining = False
        self._subscriptions: list[Subscription] = []
        self._owners = Owners(broker, clock, supervisor.spawn)
        me = decide.Self(
            instance=instance, boot=f"{entropy.bits(64):016x}", version=parts.version, queues=config.queues
        )
        self.presence = Presence(
            broker,
            me,
            self.hands,
            clock=clock,
            ready=lambda: self.ready,
            providers=lambda: parts.providers(),
            secrets=lambda: parts.secrets.names,
        )
        self._ends = {stream: EndsTail(broker, stream, clock=clock, on_end=self._run_ended) for stream in self._streams}
        self._tools = Projection(
            broker,
            stream=subjects.TOOLS,
            filters=("hr.tool.>",),
            clock=clock,
            apply=lambda _stored, message: parts.catalogue.evolve(message),
            reset=parts.catalogue.clear,
        )
        self._first_connected_s = 0.0

    # --- life cycle ------------------------------------------------------------------------------------

    @property
    def caught_up(self) -> bool:
        """See harness.Service: the catalogue is read, and ends of runs are heard of."""
        return (
            self._tools.caught_up
            and self._parts.breakers.caught_up
            and all(ends.listening for ends in self._ends.values())
        )

    @property
    def ready(self) -> bool:
        """See harness.Service: every queue is being consumed."""
        return self._consuming == len(self._streams) * len(self._config.queues) and not self._draining

    async def start(self) -> None:
        """See harness.Service. Orders are taken once the catalogue is read."""
        self._first_connected_s = self._broker.connected_since_s
        hide_with(self._parts.secrets.hide_text)
        self._supervisor.start("executor.tools", self._tools.run)
        self._supervisor.start("executor.breakers.hear", self._parts.breakers.hear)
        self._supervisor.start("executor.breakers.tell", self._parts.breakers.tell)
        for stream, ends in self._ends.items():
            self._supervisor.start(f"executor.ends.{stream}", ends.run)
        self._subscriptions.append(await self._broker.subscribe(subjects.REVOKE, self._on_revoke))
        self._supervisor.start("executor.presence", self.presence.run)
        if self._parts.secrets.on:
            self._supervisor.start("executor.secrets", self._keep_secrets)
        if any("-ws" in queue for queue in self._config.queues):
            self._supervisor.start("executor.keeping", self._parts.keeping.run)
        self._supervisor.start("executor.in-progress", self._keep_deliveries)
        for stream in self._streams:
            for queue in self._config.queues:
                self._start_consuming(stream, queue)

    def _start_consuming(self, stream: str, queue: str) -> None:
        self._supervisor.start(f"executor.{stream}.{queue}", lambda: self._consume(stream, queue))

    async def drain(self) -> None:
        """See harness.Service: take nothing more, hand back what has not begun, finish the rest."""
        self._draining = True
        for consumer in list(self._consumers):
            for delivery in await consumer.stop_fetching():
                await delivery.nak()
        while self._work:
            await self._clock.sleep(DRAIN_LOOK_S)

    async def stop(self) -> None:
        """See harness.Service: stop what is left and hand it back."""
        self._draining = True
        for consumer in list(self._consumers):
            for delivery in await consumer.stop_fetching():
                await delivery.nak()
        for work in list(self._work.values()):
            self._cancel(work)
            await self._end(work, lambda delivery: delivery.nak())
        await self.presence.leave()
        for subscription in self._subscriptions:
            await subscription.stop()
        self._subscriptions.clear()
        await self._parts.close()
        stop_hiding(self._parts.secrets.hide_text)

    # --- taking orders -----------------------------------------------------------------------------------

    async def _consume(self, stream: str, queue: str) -> None:
        await self._until_caught_up()
        consumer = await self._open(stream, queue)
        self._consumers.append(consumer)
        self._consuming += 1
        in_flight_max = self._config.in_flight_max(queue)
        try:
            while not self._draining:
                for delivery in await consumer.batch(max_count=in_flight_max, wait_s=BATCH_WAIT_S):
                    self._take(delivery)
            while True:  # draining: deliveries still in hand need this consumer, and a child must not return
                await self._clock.sleep(names.IN_PROGRESS_S)
        finally:
            self._consuming -= 1
            self._consumers.remove(consumer)
            await consumer.stop()

    async def _until_caught_up(self) -> None:
        while not self.caught_up:
            await self._clock.sleep(DRAIN_LOOK_S)

    async def _open(self, stream: str, queue: str) -> Consumer:
        while True:
            try:
                return await self._broker.consume(
                    stream, subjects.order_consumer(queue), in_flight_max=self._config.in_flight_max(queue)
                )
            except RetryableError as error:
                log.warning("queue.waits", extra={"stream": stream, "queue": queue, "why": str(error)})
                await self._clock.sleep(OPEN_AGAIN_S)

    def _take(self, delivery: Delivery) -> None:
        """Register an order and begin to deal with it. Never waits: what was delivered is in hand at once."""
        stored = delivery.stored
        self._parts.time.seen(stored.time_ms)
        try:
            received = decide.received_order(
                codec.decode(stored.body),
                stored.subject,
                stored_ms=stored.time_ms,
                seq=stored.seq,
                stream=stored.stream,
                deliveries=delivery.deliveries,
            )
            if stored.header_bytes > names.HEADER_BYTES_MAX:
                message = f"more than {names.HEADER_BYTES_MAX} bytes of headers"
                raise MalformedMessageError(message)
        except NewerSchemaError as error:
            log.warning("order.newer_schema", extra={"seq": stored.seq, "why": str(error)})
            self._supervisor.spawn(_settle(delivery.nak(delay_s=NEWER_SCHEMA_S)), "executor.hand-back")
            return
        except MalformedMessageError as error:
            self._supervisor.spawn(self._park(delivery, error.failure(), error), "executor.park")
            return
        if self._joined(received, delivery):
            return
        work = self._work[received.key] = _Work(received, [delivery])
        self._of_step.setdefault(received.key[:2], set()).add(received.key[2])
        self.hands.take(received.key, received.order.offer)
        work.task = self._supervisor.spawn(self._deal_with(work), "executor.attempt")

    def _joined(self, received: decide.Received, delivery: Delivery) -> bool:
        """True when this process deals with the same attempt already: one copy is kept, the other is done
        with."""
        held = self._work.get(received.key)
        if held is not None:
            seq, held_seq = delivery.stored.seq, held.deliveries[-1].stored.seq
            if seq == held_seq:  # the same message once more: both deliveries end together
                held.deliveries.append(delivery)
            elif received.order.decision != held.received.order.decision:  # one of them does not count: which, is asked
                self._supervisor.spawn(_settle(delivery.nak(delay_s=HAND_BACK_S)), "executor.hand-back")
            elif received.order.offer <= held.received.order.offer:
                self._supervisor.spawn(_settle(delivery.ack()), "executor.duplicate")
            else:
                for older in held.deliveries:
                    self._supervisor.spawn(_settle(older.ack()), "executor.duplicate")
                held.deliveries, held.received = [delivery], received
                self.hands.take(received.key, received.order.offer)
            return True
        run, path, attempt = received.key
        for older_attempt in tuple(self._of_step.get((run, path), ())):
            if older_attempt < attempt:
                self._drop(self._work[(run, path, older_attempt)], "superseded")
        return False

    # --- dealing with one order --------------------------------------------------------------------------

    async def _deal_with(self, work: _Work) -> None:
        try:
            if await self._admitted(work):
                outcome = await self._parts.attempts.run(work.received)
                if outcome is None or await self._report(work, outcome):
                    await self._end(work, lambda delivery: delivery.ack())
        except Exception as error:  # an order that our own bug trips over must not stay in hand for ever
            log.exception("order.handler_failed", extra=_about(work.received))
            await self._set_aside(work, error)

    async def _admitted(self, work: _Work) -> bool:
        """True when the order may run now. Otherwise it is out of our hands."""
        received = work.received
        admission = decide.admit(received, self._situation(received.stream))
        if admission is decide.Admission.CHECK:
            current = await self._owners.is_current(received)
            if current is None:
                await self._hand_back(work)
                return False
            admission = decide.Admission.RUN if current else decide.Admission.DROP
        if admission is decide.Admission.DROP and work.received is not received:
            return await self._admitted(work)  # a newer offer came meanwhile; bounded by the offers of an attempt
        if admission is decide.Admission.DROP:
            log.info("order.dropped", extra=_about(received))
            await self._end(work, lambda delivery: delivery.ack())
            return False
        return True

    async def _set_aside(self, work: _Work, error: Exception) -> None:
        if work.over:
            return
        delivery = work.deliveries[-1]
        if delivery.deliveries < DELIVERIES_TO_PARK:
            await self._hand_back(work)
            return
        work.over = True
        self._forget(work)
        for older in work.deliveries[:-1]:
            await _settle(older.ack())
        failure = Failure(code="handler_failed", message=f"{type(error).__name__}: {error}"[:1000])
        await self._park(delivery, failure, error)

    def _situation(self, stream: str) -> decide.Situation:
        now_s = self._clock.monotonic_s()
        since_s = self._broker.connected_since_s
        return decide.Situation(
            now_ms=self._parts.time.now_ms(),
            ended=self._ended,
            revoked=self._revoked,
            ends_known_from_seq=self._ends[stream].from_seq if stream in self._ends else 0,
            reconnected_s_ago=None if since_s == self._first_connected_s else now_s - since_s,
        )

    async def _report(self, work: _Work, outcome: ev.Succeeded | ev.Failed | ev.Deferred) -> bool:
        """True when the report is stored; False when the order was handed back instead."""
        received = work.received
        now_ms = self._parts.time.now_ms()
        if isinstance(outcome, ev.Succeeded):
            report = decide.succeeded(received, outcome, source=self._source, now_ms=now_ms)
        elif isinstance(outcome, ev.Deferred):
            report = decide.deferred(received, outcome, source=self._source, now_ms=now_ms)
            log.info("attempt.deferred", extra=_about(received) | {"reason": outcome.reason})
        else:
            report = decide.failed(received, outcome, source=self._source, now_ms=now_ms)
            log.info("attempt.failed", extra=_about(received) | {"failure": outcome.failure.code})
        left_s = (received.order.due_ms - now_ms) / 1000
        within_s = max(names.UNKNOWN_RESOLVE_S, min(left_s, REPORT_LATE_MAX_S))
        try:
            await store(self._broker, report, clock=self._clock, within_s=within_s)
        except (RetryableError, UnknownOutcomeError) as error:
            log.error("report.given_up", extra=_about(received) | {"why": str(error)})
            await self._hand_back(work)
            return False
        crashpoint("report_stored_before_ack")
        return True

    async def _hand_back(self, work: _Work) -> None:
        delay_s = HAND_BACK_S * (0.5 + 0.5 * self._entropy.jitter())
        await self._end(work, lambda delivery: delivery.nak(delay_s=delay_s))

    async def _end(self, work: _Work, settle: Callable[[Delivery], Awaitable[None]]) -> None:
        """The order is out of our hands. The acknowledgement may be lost; then the order comes again."""
        if work.over:
            return
        work.over = True
        self._forget(work)
        for delivery in work.deliveries:
            await _settle(settle(delivery))

    def _forget(self, work: _Work) -> None:
        key = work.received.key
        if self._work.get(key) is work:
            del self._work[key]
            self.hands.release(key)
            attempts = self._of_step[key[:2]]
            attempts.discard(key[2])
            if not attempts:
                del self._of_step[key[:2]]

    async def _park(self, delivery: Delivery, failure: Failure, error: Exception) -> None:
        stored, hide = delivery.stored, self._parts.secrets.hide_text
        try:
            await park(
                self._broker,
                stored,
                self._parts.secrets.hidden(failure),
                deliveries=delivery.deliveries,
                source=self._source,
                now_ms=self._parts.time.now_ms(),
                stack=hide("".join(traceback.format_exception(error))),
            )
        except (RetryableError, UnknownOutcomeError) as unavailable:
            log.warning("park.waits", extra={"seq": stored.seq, "why": str(unavailable)})
            await _settle(delivery.nak(delay_s=HAND_BACK_S))
            return
        await _settle(delivery.term("parked"))

    # --- stopping work ------------------------------------------------------------------------------------

    async def _on_revoke(self, message: BusMessage) -> None:
        try:
            revoke = codec.decode_as(Revoke, message.body)
        except MalformedMessageError as error:
            log.warning("revoke.malformed", extra={"why": str(error)})
            return
        for held in revoke.held:
            self._revoked.add(held)
            work = self._work.get((held.run, held.path, held.attempt))
            if work is not None and work.received.order.offer <= held.offer:
                self._drop(work, "revoked")

    def _run_ended(self, stored: Stored) -> None:
        """A decision that ends a run's work was read."""
        self._parts.time.seen(stored.time_ms)
        place = subjects.parse_run_subject(stored.subject)
        if place is None:
            return
        self._ended.add(place.run)
        for work in [work for key, work in self._work.items() if key[0] == place.run]:
            self._drop(work, place.rest)

    def _drop(self, work: _Work, why: str) -> None:
        """Stop the work and let the order go; nothing is reported."""
        log.info("attempt.stopped", extra=_about(work.received) | {"why": why})
        self._cancel(work)
        self._supervisor.spawn(self._end(work, lambda delivery: delivery.ack()), "executor.let-go")

    def _cancel(self, work: _Work) -> None:
        if work.task is not None:
            work.task.cancel()

    async def _keep_secrets(self) -> None:
        """New secrets are advertised, new values hidden before anybody uses them."""
        while True:
            await self._clock.sleep(REFRESH_S)
            try:
                await asyncio.get_running_loop().run_in_executor(self._parts.threads, self._parts.secrets.load)
            except ConfigError as error:  # those that are known stay known
                log.error("secrets.not_read", extra={"why": str(error)})

    # --- keeping deliveries -------------------------------------------------------------------------------

    async def _keep_deliveries(self) -> None:
        while True:
            await self._clock.sleep(names.IN_PROGRESS_S)
            for work in list(self._work.values()):
                if not work.over:
                    await _settle(work.deliveries[-1].in_progress())


async def _settle(sending: Awaitable[None]) -> None:
    """Tell the broker; when it cannot be told the order comes again, and is checked then."""
    try:
        await sending
    except RetryableError as error:
        log.warning("delivery.not_settled", extra={"why": str(error)})


def _about(received: decide.Received) -> dict[str, object]:
    order = received.order
    return {
        "run_id": received.message.runid,
        "step_id": order.path,
        "attempt": order.attempt,
        "offer": order.offer,
    }
