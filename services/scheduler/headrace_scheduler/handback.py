"""Orders of executors that died, offered again: death is noticed by process, acted on by the owner alone.

A round subtracts. Every order that was delivered (the consumer's own word), has no report, and is in the full
list of no living executor, is offered again. The order of looking makes that safe: first what was delivered,
then the lists (asked for afterwards), then the log up to its present end. A wrong suspicion costs a second
call, never a wrong history.

Silence is counted in own beats that came round: they travel the same way as everybody's, so when one is heard, every
beat that the broker had before it has been heard too. It grows by the time between two of them, at most
SILENCE_STEP_MAX_S, and starts from zero after a reconnect. So a pause of this process, or of the broker, makes nobody
look dead.
"""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Final

import msgspec

from headrace.contracts import names, subjects
from headrace.contracts.codec import decode_as
from headrace.contracts.errors import ConsumerGoneError, MalformedMessageError, RetryableError, UnknownOutcomeError
from headrace.contracts.live import Beat, Held
from headrace.runtime.eventlog import BusMessage, Subscription
from headrace.runtime.presence import Presence
from headrace_scheduler.entries import Entry, Shared
from headrace_scheduler.ledger import affords_again
from headrace_scheduler.orders import content_for, make_order
from headrace_scheduler.partition import Partition
from headrace_scheduler.publishing import REPUBLISH_S
from headrace_scheduler.records import RUNNING, Inst, is_claimed
from headrace_scheduler.serving import Serving

log = logging.getLogger("headrace.scheduler")

TICK_S: Final = 0.1
SILENCE_STEP_MAX_S: Final = 2 * names.PRESENCE_BEAT_S
"""What one pair of own beats can add to a silence: a longer gap was our own or the broker's."""
LISTS_WITHIN_S: Final = names.PRESENCE_FULL_EVERY * names.PRESENCE_BEAT_S + 0.5
"""Until then each that lives has said in full what it holds, whether or not it heard the question; who is silent is
not waited for any longer than it takes to be thought dead. Asking again sooner would never have an answer from one
that has much to do."""
LOG_WITHIN_S: Final = 2.0
ROUND_EVERY_S: Final = 1.0
AFTER_DEATH_S: Final = 40.0
"""Rounds go on this long after a death: a frozen process is sent orders until its pulls have expired (30 s). And they
go on until one has come to its end."""
EVERYTHING: Final = 1 << 62

Key = tuple[str, str, int]
"""(run, step instance, attempt)."""


@dataclass(slots=True)
class Peer:
    """An executor, as it was heard."""

    boot: str
    counter: int
    heard_s: float = 0.0
    silence_s: float = 0.0
    full_at_s: float = float("-inf")
    held: dict[Key, int] = field(default_factory=dict)
    queues: frozenset[str] = frozenset()
    secrets: frozenset[str] = frozenset()
    providers: frozenset[str] = frozenset()
    """`<tenant>/<name>`."""
    known: bool = False
    """Every beat since its last full list was heard, so that `held` is what it holds."""

    @property
    def alive(self) -> bool:
        """It was heard lately enough."""
        return self.silence_s < names.PRESENCE_SILENT_S


class HandBack:
    """Watches the executors for all partitions of this scheduler. `run` is a supervised child."""

    def __init__(self, shared: Shared, partitions: dict[int, Partition], presence: Presence) -> None:
        self._shared, self._partitions, self._presence = shared, partitions, presence
        self._came_round_s: float | None = None
        self.peers: dict[str, Peer] = {}
        self._next_round_s = self._rounds_until_s = float("-inf")
        self._since_s = float("-inf")
        self._connected_since_s = float("-inf")
        self._behind: dict[int, int] = {}
        """Up to where each partition was read at the last sweep, if the leader held more; else -1."""
        self._beats: Subscription | None = None
        self.rounds = 0
        self.offered_again = 0

    async def run(self) -> None:
        """Watch for ever."""
        shared = self._shared
        self._beats = await shared.broker.subscribe(subjects.PRESENCE_ALL, self._hear)
        self._since_s = now_s = shared.clock.monotonic_s()
        next_sweep_s = now_s + names.SWEEP_S
        try:
            while True:
                await shared.clock.sleep(TICK_S)
                now_s = shared.clock.monotonic_s()
                self._start_over_after_reconnect()
                if now_s - self._since_s < names.PRESENCE_SILENT_S or not shared.broker.connected:
                    continue
                sweep = now_s >= next_sweep_s
                if now_s < self._next_round_s or not (sweep or now_s < self._rounds_until_s):
                    continue
                self._next_round_s = now_s + ROUND_EVERY_S
                if not await self._round_ends(sweep=sweep):
                    self._rounds_until_s = max(self._rounds_until_s, now_s + AFTER_DEATH_S)
                elif sweep:
                    next_sweep_s = now_s + names.SWEEP_S
        finally:
            await self._beats.stop()

    def serving(self) -> Serving:
        """What the executors that live can do."""
        living = [peer for peer in self.peers.values() if peer.alive]
        return Serving(
            heard_for_s=self._shared.clock.monotonic_s() - self._since_s,
            executors=len(living),
            queues=frozenset().union(*(peer.queues for peer in living)),
            secrets=frozenset().union(*(peer.secrets for peer in living)),
            providers=frozenset().union(*(peer.providers for peer in living)),
        )

    def look_again(self) -> None:
        """Rounds are due, the first at once: a partition was taken over, or an executor died."""
        self._next_round_s = self._shared.clock.monotonic_s()
        self._rounds_until_s = self._next_round_s + AFTER_DEATH_S

    # --- hearing -----------------------------------------------------------------------------------

    async def _hear(self, message: BusMessage) -> None:
        try:
            beat = decode_as(Beat, message.body)
        except MalformedMessageError as error:
            log.warning("presence.malformed", extra={"subject": message.subject, "why": str(error)})
            return
        if beat.instance == self._presence.instance:
            self._came_round(beat.counter)
        if beat.service != "step-executor":
            return
        peer = self.peers.get(beat.instance)
        if peer is not None and peer.boot == beat.boot and beat.counter <= peer.counter:
            return
        if peer is None or peer.boot != beat.boot:
            if peer is not None:
                self.look_again()  # it died and was started again
            peer = self.peers[beat.instance] = Peer(boot=beat.boot, counter=beat.counter - 1)
        if beat.leaving:
            del self.peers[beat.instance]
            self.look_again()
            return
        if beat.counter != peer.counter + 1:
            peer.known = False
        peer.queues, peer.secrets = frozenset(beat.queues), frozenset(beat.secrets)
        peer.providers = frozenset(beat.providers)
        peer.counter, peer.silence_s, peer.heard_s = beat.counter, 0.0, self._shared.clock.monotonic_s()
        if beat.full is not None:
            peer.held = {_key(held): held.offer for held in beat.full}
            peer.full_at_s, peer.known = self._shared.clock.monotonic_s(), True
            return
        for held in beat.taken:
            peer.held[_key(held)] = held.offer
        for held in beat.finished:
            peer.held.pop(_key(held), None)

    def _start_over_after_reconnect(self) -> None:
        since_s = self._shared.broker.connected_since_s
        if since_s == self._connected_since_s:
            return
        self._connected_since_s, self._came_round_s = since_s, None
        self._since_s = self._shared.clock.monotonic_s()
        for peer in self.peers.values():
            peer.silence_s = 0.0
        self.look_again()

    def _came_round(self, counter: int) -> None:
        """An own beat was heard: who was not heard since the one before it has grown more silent."""
        self._start_over_after_reconnect()
        sent_s, previous_s = self._presence.sent_s.get(counter), self._came_round_s
        if sent_s is None:
            return
        self._came_round_s = sent_s
        if previous_s is None:
            return
        for instance, peer in list(self.peers.items()):
            was_alive = peer.alive
            step_s = min(sent_s - previous_s, sent_s - peer.heard_s, SILENCE_STEP_MAX_S)
            peer.silence_s += max(0.0, step_s)
            if was_alive and not peer.alive:
                log.warning("executor.silent", extra={"instance": instance, "held": len(peer.held)})
                self.look_again()
            if peer.silence_s > names.RECONNECT_CAUTION_S:
                del self.peers[instance]

    # --- a round -----------------------------------------------------------------------------------

    async def _round_ends(self, *, sweep: bool) -> bool:
        """True when a round has come to its end: nothing that was delivered is held by the dead alone any more."""
        try:
            return await self._round(sweep=sweep)
        except (RetryableError, UnknownOutcomeError, TimeoutError) as error:
            log.warning("handback.waits", extra={"why": f"{type(error).__name__}: {error}"})
            return False

    async def _round(self, *, sweep: bool) -> bool:
        """One subtraction over all partitions in our hands."""
        self.rounds += 1
        if not self._partitions:
            return True
        if sweep:
            await self._look_for_skipped()
        if not any(peer.alive for peer in self.peers.values()):
            return False  # there is nobody to offer anything to
        delivered = await self._delivered(sweep=sweep)
        living = [peer for peer in self.peers.values() if peer.alive]  # whoever holds what was delivered is among them
        asked_s = self._shared.clock.monotonic_s()
        await self._shared.broker.send(subjects.PRESENCE_PLEASE, b"{}")
        if not await self._lists_since(living, asked_s):
            log.warning("handback.waits", extra={"why": f"not all of {len(living)} executors say what they hold"})
            return False
        partitions = list(self._partitions.values())
        suspected = [one for one in partitions if one.live and self._suspects(one, living, delivered)]
        async with asyncio.timeout(LOG_WITHIN_S + 2 * names.REQUEST_DEADLINE_S):  # each of them has its own, as long
            read = await asyncio.gather(*(self._is_at_end(one) for one in suspected))  # in turn they took a second
        for partition, is_at_end in zip(suspected, read, strict=True):
            for entry, inst in self._suspects(partition, living, delivered) if is_at_end else ():
                await self._offer_again(partition, entry, inst, living)
        return all(read) and all(partition.live for partition in partitions)

    async def _is_at_end(self, partition: Partition) -> bool:
        """As `read_to_end`, and we may still decide; a leader that does not say where the end is, is asked again in the
        next round."""
        try:
            return await self.read_to_end(partition) and self._shared.may_decide(partition.part)
        except (RetryableError, UnknownOutcomeError) as error:
            log.warning("handback.waits", extra={"partition": partition.part, "why": str(error)})
            return False

    async def _look_for_skipped(self) -> None:
        """What a tail has not shown though the leader holds it: an own decision that lies behind what was read, or
        anything at all when nothing was read since the last sweep. Reading all of it again is the cure."""
        for partition in list(self._partitions.values()):
            last = await self._shared.broker.last(partition.stream, subjects.partition_filter(partition.part))
            behind = last is not None and last.seq > partition.seq
            stands = behind and self._behind.get(partition.part) == partition.seq
            self._behind[partition.part] = partition.seq if behind else -1
            flying = (entry.in_flight.seq for entry in partition.entries.values() if entry.in_flight is not None)
            if partition.live and (stands or any(0 < seq <= partition.seq for seq in flying)):
                partition.skipped = f"the tail of partition {partition.part:02d}, at {partition.seq}, left messages out"
                log.error("tail.skipped", extra={"partition": partition.part, "seq": partition.seq})

    async def _delivered(self, *, sweep: bool) -> dict[tuple[str, str], int]:
        """Highest sequence delivered, by stream and queue. A sweep also finds what a consumer skipped."""
        found: dict[tuple[str, str], int] = {}
        for stream in subjects.runs_streams(self._shared.run_streams):
            for queue in sorted({*names.QUEUES, *self._labelled()}):
                try:
                    state = await self._shared.broker.consumer_state(stream, subjects.order_consumer(queue))
                except ConsumerGoneError:
                    continue  # no such queue here: nothing can have been delivered from it
                found[(stream, queue)] = EVERYTHING if sweep and state.pending == 0 else state.delivered_seq
        return found

    def _labelled(self) -> set[str]:
        """Queues that runs in our hands have orders in, those with a label among them."""
        entries = (entry for partition in self._partitions.values() for entry in partition.entries.values())
        return {queue for entry in entries for queue in entry.run.out}

    async def _lists_since(self, living: list[Peer], asked_s: float) -> bool:
        """True when every living executor has said in full what it holds, after we asked."""
        clock = self._shared.clock
        while clock.monotonic_s() - asked_s < LISTS_WITHIN_S:
            if all(peer.full_at_s >= asked_s and peer.known for peer in living if peer.alive):
                return True
            await clock.sleep(0.01)
        return False

    async def read_to_end(self, partition: Partition) -> bool:
        """True when everything that the leader holds of the partition now has been folded."""
        clock = self._shared.clock
        last = await self._shared.broker.last(partition.stream, subjects.partition_filter(partition.part))
        until_s = clock.monotonic_s() + LOG_WITHIN_S
        while last is not None and partition.seq < last.seq:
            if clock.monotonic_s() > until_s or not partition.live:
                return False
            await clock.sleep(0.01)
        return True

    def _suspects(
        self, partition: Partition, living: list[Peer], delivered: dict[tuple[str, str], int]
    ) -> list[tuple[Entry, Inst]]:
        """Orders that were delivered and that nobody alive holds."""
        now_s = self._shared.clock.monotonic_s()
        found = []
        for entry in partition.entries.values():
            run = entry.run
            if run.ended or run.status == "stalled" or entry.in_flight is not None:
                continue
            for path in run.active:
                inst = run.get(path)
                if inst is None or inst.status != RUNNING or inst.report is not None or inst.offer < inst.want_offer:
                    continue
                if inst.order_seq > delivered.get((partition.stream, inst.queue), 0):
                    continue
                published_s = entry.published.get((path, inst.attempt, inst.offer + 1))
                if published_s is not None and now_s - published_s < REPUBLISH_S:
                    continue
                key = (run.run, path, inst.attempt)
                if not any(key in peer.held for peer in living if peer.alive):
                    found.append((entry, inst))
        return found

    async def _offer_again(self, partition: Partition, entry: Entry, inst: Inst, living: list[Peer]) -> None:
        run = entry.run
        claimed = is_claimed(inst, entry.plan)
        holder = self.peers.get(inst.claim_holder)
        if claimed and holder is not None and holder.alive and (run.run, inst.path, inst.claim_attempt) in holder.held:
            return  # whoever claimed it is still at it, and has a deadline
        if claimed or inst.lost + 1 >= names.HOLDERS_LOST_MAX or not affords_again(entry.run, entry.plan, inst):
            entry.lost.add(inst.path)
            await partition.follow(run.run)
            return
        self.offered_again += 1
        log.warning(
            "order.offered_again",
            extra={"run_id": run.run, "step_id": inst.path, "attempt": inst.attempt, "offer": inst.offer + 1},
        )
        content = content_for(run, entry.plan, inst.path, now_ms=inst.scheduled_ms)
        order = make_order(run, entry.plan, inst, content)
        await partition.publisher.publish_order(entry, msgspec.structs.replace(order, offer=inst.offer + 1))


def _key(held: Held) -> Key:
    return held.run, held.path, held.attempt
