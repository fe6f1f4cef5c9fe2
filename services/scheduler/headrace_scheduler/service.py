"""The shell: leases decide which partitions are read here, commands and triggers come in, orders of the dead go
out again.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from headrace.contracts import codec, names, subjects
from headrace.contracts.errors import ConsumerGoneError, MalformedMessageError, RetryableError, UnknownOutcomeError
from headrace.contracts.live import CurrentAnswer, CurrentAsk
from headrace.pipeline.price_files import table_of
from headrace.runtime.clock import Clock
from headrace.runtime.entropy import Entropy
from headrace.runtime.eventlog import Broker, BusMessage, Consumer, Delivery, Subscription
from headrace.runtime.lease import Leases
from headrace.runtime.presence import Condition, Presence
from headrace.runtime.probes import Admission
from headrace.runtime.supervisor import Child, Supervisor
from headrace_scheduler.config import Config
from headrace_scheduler.definitions import Definitions
from headrace_scheduler.entries import Shared
from headrace_scheduler.handback import HandBack
from headrace_scheduler.intake import Intake
from headrace_scheduler.intake_handback import IntakeHandBack
from headrace_scheduler.intake_sweep import IntakeSweep
from headrace_scheduler.partition import Partition
from headrace_scheduler.plans import Plans
from headrace_scheduler.records import RUNNING
from headrace_scheduler.room import Room
from headrace_scheduler.schedules import Schedules
from headrace_scheduler.serving import Served
from headrace_scheduler.tool_versions import ToolVersions
from headrace_scheduler.triggers import Triggers

log = logging.getLogger("headrace.scheduler")

RETRY_S: Final = 0.2
BATCH_WAIT_S: Final = 1.0
ASKED_MAX: Final = 1_000
"""Orders in one question whether they are still current."""


class Scheduler:
    """Service `scheduler`. Replicas share the partitions; any of them takes commands."""

    name: Final = "scheduler"

    def __init__(
        self,
        broker: Broker,
        supervisor: Supervisor,
        *,
        clock: Clock,
        entropy: Entropy,
        instance: str,
        config: Config,
    ) -> None:
        self._broker, self._supervisor, self._clock, self._config = broker, supervisor, clock, config
        source = f"/{self.name}/{instance}"
        self.partitions: dict[int, Partition] = {}
        self._children: dict[int, Child] = {}
        self._current: dict[int, Subscription] = {}
        self._consumers: list[Consumer] = []
        self._draining = False
        self.leases = Leases(
            broker,
            instance=instance,
            clock=clock,
            entropy=entropy,
            on_gained=self._on_gained,
            on_lost=self._on_lost,
        )
        plans = Plans(broker, prices=table_of(config.prices_file))
        definitions = Definitions(broker, clock)
        self._definitions = definitions
        self._tool_versions = ToolVersions(broker, clock)
        self._admission = Admission(broker, clock=clock, source=source, tenant=config.tenant)
        self._intake = Intake(
            broker,
            clock=clock,
            served=Served(plans, lambda: self.handback.serving(), self._tool_versions),
            definitions=definitions,
            admission=self._admission,
            source=source,
            run_streams=config.run_streams,
            durability=config.durability,
        )
        self._shared = Shared(
            broker=broker,
            clock=clock,
            supervisor=supervisor,
            plans=plans,
            room=Room(config.offers_out_max),
            source=source,
            run_streams=config.run_streams,
            may_decide=self.leases.may_decide,
            definitions=definitions.newest,
            schedules=Schedules(definitions, plans, self._intake),
            tool_versions=self._tool_versions,
            snapshots_on=config.snapshots,
        )
        self._intake_handback = IntakeHandBack(
            broker, clock=clock, members=lambda: self.leases.members, may_act=lambda: self.leases.may_decide(0)
        )
        self._triggers = Triggers(
            broker, clock=clock, plans=plans, definitions=definitions, intake=self._intake, source=source
        )
        self._presence = Presence(
            broker,
            clock=clock,
            entropy=entropy,
            service=self.name,
            instance=instance,
            condition=lambda: Condition(ready=self.caught_up, partitions=tuple(sorted(self.partitions))),
            interval_s=names.PRESENCE_BEAT_S,
        )
        self.handback = HandBack(self._shared, self.partitions, self._presence)

    @property
    def caught_up(self) -> bool:
        """See harness.Service."""
        return (
            self.leases.caught_up
            and self._definitions.fold.caught_up
            and self._tool_versions.fold.caught_up
            and all(partition.live for partition in self.partitions.values())
        )

    @property
    def ready(self) -> bool:
        """See harness.Service."""
        return not self._draining

    async def start(self) -> None:
        """See harness.Service."""
        self._admission.probe()
        start = self._supervisor.start
        start("scheduler.definitions", self._definitions.fold.run)
        start("scheduler.tools", self._tool_versions.fold.run)
        start("scheduler.leases", self.leases.run, "transient")
        start("scheduler.handback", self.handback.run)
        start("scheduler.admission", self._admission.run)
        start("scheduler.presence", self._presence.run)
        for durable in (subjects.INTAKE_CONSUMER, subjects.TRIGGER_CONSUMER):
            sweep = IntakeSweep(self._broker, durable, clock=self._clock, may_act=lambda: self.leases.may_decide(0))
            start(f"scheduler.{durable.lower()}-sweep", sweep.run)
        start("scheduler.intake-handback", self._intake_handback.run)
        start(
            "scheduler.intake",
            lambda: self._consume(subjects.COMMANDS, subjects.INTAKE_CONSUMER, self._intake.handle),
        )
        start(
            "scheduler.triggers",
            lambda: self._consume(subjects.TRIGGERS, subjects.TRIGGER_CONSUMER, self._triggers.handle),
        )

    async def drain(self) -> None:
        """See harness.Service."""
        self._draining = True
        for consumer in self._consumers:
            for delivery in await consumer.stop_fetching():
                await delivery.nak()
        await self._presence.leave()
        await self.leases.stop()

    async def stop(self) -> None:
        """See harness.Service."""
        self._draining = True
        for consumer in self._consumers:
            await consumer.stop()
        for subscription in self._current.values():
            await subscription.stop()
        self._current.clear()

    # --- partitions --------------------------------------------------------------------------------

    async def _on_gained(self, part: int) -> None:
        self._children[part] = self._supervisor.start(f"scheduler.partition.{part:02d}", lambda: self._own(part))
        self._current[part] = await self._broker.subscribe(
            subjects.order_current(part), lambda message: self._answer_current(part, message)
        )
        self.handback.look_again()

    async def _own(self, part: int) -> None:
        partition = self.partitions[part] = Partition(part, self._shared)
        try:
            await partition.run()
        finally:
            if self.partitions.get(part) is partition:
                del self.partitions[part]

    async def _on_lost(self, part: int) -> None:
        subscription = self._current.pop(part, None)
        if subscription is not None:
            await subscription.stop()
        child = self._children.pop(part, None)
        if child is not None:
            await self._supervisor.stop_child(child)

    async def _answer_current(self, part: int, message: BusMessage) -> None:
        """Say which orders are current; silence means "ask again", so whoever does not know says nothing."""
        partition = self.partitions.get(part)
        if partition is None or not partition.live or not self.leases.may_decide(part):
            return
        try:
            ask = codec.decode_as(CurrentAsk, message.body)
        except MalformedMessageError as error:
            log.warning("order_current.malformed", extra={"why": str(error)})
            return
        if len(ask.orders) > ASKED_MAX:
            log.warning("order_current.too_many", extra={"orders": len(ask.orders)})
            return
        answers = tuple(is_current(partition, *order) for order in ask.orders)
        if not all(answers):  # the executor may have read further than we have: a "no" must be about the log's end
            if not await self._has_read_all(partition) or not self.leases.may_decide(part):
                return
            answers = tuple(is_current(partition, *order) for order in ask.orders)
        await message.respond(codec.encode(CurrentAnswer(current=answers)))

    async def _has_read_all(self, partition: Partition) -> bool:
        try:
            return await self.handback.read_to_end(partition)
        except (RetryableError, UnknownOutcomeError) as error:
            log.warning("order_current.waits", extra={"partition": partition.part, "why": str(error)})
            return False

    # --- work queues -------------------------------------------------------------------------------

    async def _consume(self, stream: str, durable: str, handle: Callable[[Delivery], Awaitable[None]]) -> None:
        """Take part in a work queue; each delivery is handled by a task of its own. What it makes has instants in it,
        so the broker's time must be known first."""
        while not self.leases.caught_up:
            await self._clock.sleep(RETRY_S)
        while not self._draining:
            try:
                await self._share(stream, durable, handle)
            except ConsumerGoneError as error:  # made afresh by the sweep, or removed: somebody has to make it again
                log.warning("consumer.gone", extra={"stream": stream, "durable": durable, "why": str(error)})
                await self._clock.sleep(RETRY_S)
        await self._clock.sleep(names.DRAIN_S)  # draining: this child must not return

    async def _share(self, stream: str, durable: str, handle: Callable[[Delivery], Awaitable[None]]) -> None:
        consumer = await self._open(stream, durable)
        self._consumers.append(consumer)
        try:
            while not self._draining:
                for delivery in await consumer.batch(max_count=64, wait_s=BATCH_WAIT_S):
                    self._supervisor.spawn(_handled(handle, delivery), f"scheduler.{durable.lower()}")
        finally:
            self._consumers.remove(consumer)
            await consumer.stop()

    async def _open(self, stream: str, durable: str) -> Consumer:
        while True:
            try:
                return await self._broker.consume(stream, durable, in_flight_max=self._config.commands_in_flight)
            except RetryableError as error:
                if isinstance(error, ConsumerGoneError):
                    log.warning("consumer.missing", extra={"stream": stream, "durable": durable})
                await self._clock.sleep(RETRY_S)


async def _handled(handle: Callable[[Delivery], Awaitable[None]], delivery: Delivery) -> None:
    try:
        await handle(delivery)
    except RetryableError as error:  # the acknowledgement itself did not go out: it will be delivered again
        log.warning("delivery.not_settled", extra={"why": str(error)})


def is_current(partition: Partition, run_id: str, path: str, attempt: int, offer: int, decision: str) -> bool:
    """True when an executor may run this order: a current attempt, unreported, with no newer offer out."""
    entry = partition.entries.get(run_id)
    inst = None if entry is None or entry.run.ended else entry.run.get(path)
    return (
        inst is not None
        and inst.status == RUNNING
        and inst.report is None
        and inst.attempt == attempt
        and inst.decision == decision
        and offer >= inst.offer
    )
