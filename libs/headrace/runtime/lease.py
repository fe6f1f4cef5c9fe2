"""Who decides for which partition: rendezvous hashing over living members, handed over by compare-and-set.

An optimisation, never a correctness condition: two owners waste work, the log's own check lets one of them
write.

**Members.** A member renews the record `member.<instance>` every 0.5 s. It is *live* (is dealt partitions),
*leaving* (is dealt none, keeps what it has until it has let go) or *gone*.

**Silence is counted in own renewals.** Everybody's records and one's own come through one ordered tail, so
when an own renewal comes round, everything the others had stored before it has been seen. Silence grows by
the time between two own renewals, at most SILENCE_STEP_MAX_S a time, and starts from zero after a
reconnect. So a frozen process, a stalled tail or a frozen broker makes nobody look dead.

**The owner stops first.** A member may decide for 1.5 s after it *sent* the last of its renewals that came
round; others received it later than that and wait 1.5 s from there. Who could not renew stops deciding and
keeps what nobody else has claimed: a process that is too busy to renew must not have to read it all again.

**Claims.** `claim.<part>` says who holds a partition and is written only when it changes hands: by the new
owner, over a released claim or one whose holder is gone; by the old owner, to release it after its
`on_lost` has finished.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import msgspec

from headrace.contracts import codec, names, subjects
from headrace.contracts.canonical import blake2b_hex
from headrace.contracts.errors import (
    AppendConflictError,
    MalformedMessageError,
    RetryableError,
    UnknownOutcomeError,
)
from headrace.runtime.clock import Clock
from headrace.runtime.entropy import Entropy
from headrace.runtime.eventlog import Broker, Expected, Stored, Tail
from headrace.runtime.lease_records import BURY_EVERY_S, Departed

log = logging.getLogger("headrace.lease")

Callback = Callable[[int], Awaitable[None]]

SILENCE_STEP_MAX_S: Final = 1.5 * names.LEASE_RENEW_S
"""What one pair of own renewals can add to a silence: a longer gap was our own or the broker's, not the
member's."""
WRITE_DEADLINE_S: Final = 1.0
"""A lease write that takes longer is worth nothing: the lease itself lasts 1.5 s. What it did shows in the
tail."""
RETRY_S: Final = 0.1
LEARN_WITHIN_S: Final = 0.25
"""A renewal that took longer to come round says too little about the broker's time now."""
LEARN_PATIENCE_S: Final = 5.0
"""Where the network was slow for this long, the best time there is must do."""
STALE_S: Final = 2 * names.LEASE_SILENT_S
"""A record that was this old by the broker's clock when we joined belongs to nobody alive; its holder is
not waited for."""
HAND_OVER_S: Final = 5.0
"""How long a clean stop waits for its own partitions to be let go before it leaves all the same."""
PREFIX: Final = subjects.kv(subjects.LEASES, "")


class Member(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Record of a member. `counter` rises by 1 a renewal: an older record that is stored late is no sign of
    life."""

    instance: str
    counter: int
    state: str = "live"
    """live, leaving or gone."""
    declined: tuple[int, ...] = ()
    """Partitions it cannot read, e.g. because they hold events of a newer release."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """Record of a partition. `holder` is empty when it was released."""

    holder: str


class _Peer:
    """A member as seen from here."""

    __slots__ = ("heard_s", "member", "seq", "silence_s", "time_ms")

    def __init__(self, member: Member, heard_s: float, stored: Stored) -> None:
        self.member, self.heard_s = member, heard_s
        self.seq, self.time_ms = stored.seq, stored.time_ms
        self.silence_s = 0.0


class _Hold:
    """A partition in our hands, from its claim to its release."""

    __slots__ = ("over", "release", "task")

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.release = False
        self.task: asyncio.Task[None] | None = None

    def end(self, *, release: bool) -> None:
        """Let go; `release` says whether the claim is still ours to give back."""
        if not self.over.is_set():
            self.release = release
            self.over.set()


def rendezvous(instances: Iterable[str], part: int) -> str | None:
    """The member that should own a partition. A change of members moves only what must move."""
    return max(instances, key=lambda instance: (blake2b_hex(f"{instance}|{part}".encode()), instance), default=None)


class Leases:
    """This process's share of the partitions. `run()` is one supervised child; callbacks are called from it.

    `on_gained(part)` is awaited when the partition is ours; `on_lost(part)` when it is no longer, after
    `on_gained` has returned. Of one partition one callback runs at a time; different partitions do not wait
    for each other. `may_decide` turns false before `on_lost` begins. A callback that raises ends `run()`.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        instance: str,
        clock: Clock,
        entropy: Entropy,
        on_gained: Callback,
        on_lost: Callback,
        partitions: int = names.PARTITIONS,
    ) -> None:
        self._broker, self._clock, self._entropy = broker, clock, entropy
        self.instance = instance
        self._on_gained, self._on_lost = on_gained, on_lost
        self._partitions = partitions
        self._peers: dict[str, _Peer] = {}
        self._departed = Departed(broker, clock)
        self._claims: dict[int, tuple[str, int]] = {}
        self._holds: dict[int, _Hold] = {}
        self._owned: set[int] = set()
        self._declined: set[int] = set()
        self._counter = 0
        self._state = "live"
        self._sent_s: dict[int, float] = {}
        self._renewed_s = float("-inf")
        self._came_round_s: float | None = None
        self._best_s = float("inf")
        self._began_s = clock.monotonic_s()
        self._connected_since_s = float("-inf")
        self._changed = asyncio.Event()
        self._dealt: tuple[object, frozenset[int]] = ((), frozenset())

    @property
    def owned(self) -> frozenset[int]:
        """Partitions in our hands; empty as soon as our renewals fail."""
        return frozenset(self._owned) if self._is_fresh() else frozenset()

    @property
    def members(self) -> tuple[str, ...]:
        """Live members as seen from here, ourselves included once our record came round."""
        return tuple(sorted(name for name, peer in self._peers.items() if peer.member.state == "live"))

    @property
    def caught_up(self) -> bool:
        """True once the tail is, and an own renewal has come round."""
        return self._came_round_s is not None

    @property
    def unclaimed(self) -> frozenset[int]:
        """Partitions that nobody alive holds, as seen from here."""
        return frozenset(
            part for part in range(self._partitions) if self._claims.get(part, ("", 0))[0] not in self._peers
        )

    def may_decide(self, part: int | None = None) -> bool:
        """True while we own the partition (without one: while our lease lasts). Ask before every decision."""
        return self._is_fresh() and (part is None or part in self._owned)

    def decline(self, part: int) -> None:
        """Give a partition up until restart: we cannot read it, another member may. Returns at once."""
        self._declined.add(part)
        self._changed.set()

    async def run(self) -> None:
        """Take part until `stop` has finished or the task is cancelled. Owns nothing afterwards."""
        tail = await self._open_tail()
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch(tail, group), name="lease.watch")
                burying = group.create_task(self._bury(), name="lease.bury")
                await self._renew_until_gone()
                watching.cancel()
                burying.cancel()
                for hold in self._holds.values():  # those that `stop` did not wait for any longer
                    if hold.task is not None:
                        hold.task.cancel()
        finally:
            self._forget_everything()
            await self._stop_tail(tail)

    async def _stop_tail(self, tail: Tail) -> None:
        """A reader that cannot be removed now, because the broker is away, is removed by the broker itself later."""
        try:
            async with asyncio.timeout(WRITE_DEADLINE_S):
                await tail.stop()
        except (TimeoutError, RetryableError) as error:
            log.warning("lease.tail_left_behind", extra={"why": f"{type(error).__name__}: {error}"})

    def _forget_everything(self) -> None:
        """Own nothing, know nobody: a restarted `run` begins from the log."""
        self._renewed_s, self._came_round_s = float("-inf"), None
        for known in (self._owned, self._holds, self._peers, self._claims):
            known.clear()
        self._departed.forget()

    async def stop(self) -> None:
        """Let go of everything and leave. Others own it when this returns, or within milliseconds."""
        if self._state == "live":
            self._state = "leaving"
        self._changed.set()
        try:
            async with asyncio.timeout(HAND_OVER_S):
                while self._holds:
                    await self._clock.sleep(0.005)
        except TimeoutError:
            log.error("lease.hand_over_late", extra={"partitions": sorted(self._holds)})
        self._state = "gone"
        self._changed.set()
        await self._write_member()

    # --- renewing -------------------------------------------------------------------------------------------

    async def _renew_until_gone(self) -> None:
        """Renew every 0.5 s, and at once when our own state changed."""
        while self._state != "gone":
            self._changed.clear()
            stored = await self._write_member()
            try:
                async with asyncio.timeout(names.LEASE_RENEW_S if stored else RETRY_S):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _write_member(self) -> bool:
        """True when the broker has stored our record."""
        self._counter += 1
        counter, sent_s = self._counter, self._clock.monotonic_s()
        record = Member(
            instance=self.instance, counter=counter, state=self._state, declined=tuple(sorted(self._declined))
        )
        self._sent_s[counter] = sent_s
        self._sent_s.pop(counter - 100, None)  # records that never come round are forgotten after 50 s
        try:
            async with asyncio.timeout(WRITE_DEADLINE_S):
                await self._broker.append(PREFIX + f"member.{self.instance}", codec.encode(record))
        except (RetryableError, UnknownOutcomeError, TimeoutError) as error:
            log.warning("lease.renewal_failed", extra={"why": f"{type(error).__name__}: {error}"})
            return False
        return True

    def _is_fresh(self) -> bool:
        return self._state != "gone" and self._clock.monotonic_s() - self._renewed_s < names.LEASE_SILENT_S

    # --- watching -------------------------------------------------------------------------------------------

    async def _watch(self, tail: Tail, group: asyncio.TaskGroup) -> None:
        while True:
            for stored in await tail.batch(max_count=1000, wait_s=RETRY_S):
                self._see(stored)
            self._reconcile(group)

    async def _bury(self) -> None:
        """One member for all, more or less: removing a record twice is removing it once."""
        while True:
            await self._clock.sleep(BURY_EVERY_S)
            if 0 in self.owned:
                await self._departed.bury()

    async def _open_tail(self) -> Tail:
        """Waits as long as the broker is away; until then we own nothing and are not caught up."""
        while True:
            try:
                return await self._broker.tail(subjects.LEASES, (PREFIX + ">",), start_seq=1, last_per_subject=True)
            except RetryableError as error:
                log.warning("lease.tail_failed", extra={"why": f"{type(error).__name__}: {error}"})
                await self._clock.sleep(RETRY_S)

    def _see(self, stored: Stored) -> None:
        kind, _, key = stored.subject.removeprefix(PREFIX).partition(".")
        try:
            if kind == "member":
                self._see_member(codec.decode_as(Member, stored.body), stored)
            elif kind == "claim" and key.isdigit():
                holder = codec.decode_as(Claim, stored.body).holder
                if stored.seq > self._claims.get(int(key), ("", 0))[1]:
                    self._claims[int(key)] = (holder, stored.seq)
        except MalformedMessageError as error:  # leases are a cache: what is unreadable is as good as absent
            log.warning("lease.unreadable", extra={"subject": stored.subject, "why": str(error)})

    def _see_member(self, member: Member, stored: Stored) -> None:
        now = self._clock.monotonic_s()
        peer = self._peers.get(member.instance)
        if peer is not None and member.counter <= peer.member.counter:
            return
        if member.state == "gone":
            self._peers.pop(member.instance, None)
            self._departed.left(member.instance, stored.seq)
            return
        self._departed.is_back(member.instance)
        self._peers[member.instance] = _Peer(member, now, stored)
        if member.instance == self.instance:
            self._came_round(member.counter, stored.time_ms, now)

    def _came_round(self, counter: int, time_ms: int, now: float) -> None:
        """An own renewal was seen: learn the broker's time, and let the others' silences grow."""
        sent_s = self._sent_s.pop(counter, None)
        if sent_s is None:
            return  # of an earlier life under the same name
        self._renewed_s = max(self._renewed_s, sent_s)  # whoever claimed from us before that has been seen by now
        took_s = now - sent_s
        if took_s <= LEARN_WITHIN_S or (took_s < self._best_s and now - self._began_s > LEARN_PATIENCE_S):
            self._clock.learn(time_ms)
            self._best_s = min(self._best_s, took_s)
        if self._best_s == float("inf"):
            return  # a wall clock decides nothing: without the broker's time we own nothing
        first, previous_s = self._came_round_s is None, self._came_round_s
        self._came_round_s = sent_s
        since_s = self._broker.connected_since_s
        reconnected, self._connected_since_s = since_s != self._connected_since_s, since_s
        for name, peer in list(self._peers.items()):
            if name == self.instance:
                continue
            if first and time_ms - peer.time_ms > STALE_S * 1000:
                peer.silence_s = names.LEASE_SILENT_S
            elif reconnected or previous_s is None:
                peer.silence_s = 0.0
            else:
                step_s = min(sent_s - previous_s, sent_s - peer.heard_s, SILENCE_STEP_MAX_S)
                peer.silence_s += max(0.0, step_s)
            if peer.silence_s >= names.LEASE_SILENT_S:
                del self._peers[name]
                self._departed.left(name, peer.seq)
                log.info("lease.member_lost", extra={"member": name, "silence_s": round(peer.silence_s, 3)})

    # --- holding --------------------------------------------------------------------------------------------

    def _reconcile(self, group: asyncio.TaskGroup) -> None:
        """Compare what is with what should be, and begin what is missing. Level-triggered: nothing is
        remembered."""
        if not self.caught_up:
            return
        fresh, dealt = self._is_fresh(), self._dealt_to_us()
        for part in range(self._partitions):
            holder, _ = self._claims.get(part, ("", 0))
            mine = part in dealt
            hold = self._holds.get(part)
            if hold is not None:
                if part not in self._owned:
                    continue  # being claimed or let go
                if holder != self.instance:
                    hold.end(release=False)
                elif not mine:
                    hold.end(release=fresh)
                if hold.over.is_set():
                    self._owned.discard(part)
            elif fresh and mine and (holder == self.instance or holder not in self._peers):
                self._holds[part] = hold = _Hold()
                hold.task = group.create_task(self._hold(part), name=f"lease.hold.{part}")
            elif fresh and not mine and holder == self.instance:
                self._holds[part] = hold = _Hold()  # an earlier release did not arrive
                hold.end(release=True)
                hold.task = group.create_task(self._let_go(part), name=f"lease.release.{part}")

    def _dealt_to_us(self) -> frozenset[int]:
        """Partitions that rendezvous hashing gives to us among the members seen now."""
        live = tuple(
            (name, peer.member.declined) for name, peer in sorted(self._peers.items()) if peer.member.state == "live"
        )
        key = (live, self._state, frozenset(self._declined))
        if self._dealt[0] != key:
            mine = frozenset(
                part
                for part in range(self._partitions)
                if rendezvous((name for name, declined in live if part not in declined), part) == self.instance
            )
            self._dealt = (key, mine - self._declined if self._state == "live" else frozenset())
        return self._dealt[1]

    async def _hold(self, part: int) -> None:
        """One holding, from claim to release."""
        if self._claims.get(part, ("", 0))[0] != self.instance and not await self._claim(part, self.instance):
            del self._holds[part]
            return
        hold = self._holds[part]
        self._owned.add(part)
        log.info("lease.gained", extra={"partition": part})
        await self._on_gained(part)
        await hold.over.wait()
        await self._on_lost(part)
        log.info("lease.lost", extra={"partition": part, "released": hold.release})
        await self._let_go(part)

    async def _let_go(self, part: int) -> None:
        if self._holds[part].release:
            await self._claim(part, "")
        del self._holds[part]

    async def _claim(self, part: int, holder: str) -> bool:
        """True when the claim is stored. After False the tail, or what was read, shows what stands."""
        subject = PREFIX + f"claim.{part:02d}"
        _, seq = self._claims.get(part, ("", 0))
        try:
            async with asyncio.timeout(WRITE_DEADLINE_S):
                done = await self._broker.append(
                    subject, codec.encode(Claim(holder=holder)), expected=Expected(seq, subject)
                )
        except AppendConflictError:
            await self._read_claim(part, subject)
            return False
        except (RetryableError, UnknownOutcomeError, TimeoutError) as error:
            log.warning("lease.claim_failed", extra={"partition": part, "why": f"{type(error).__name__}: {error}"})
            await self._clock.sleep(RETRY_S * (1 + self._entropy.jitter()))
            return False
        if done.seq > self._claims.get(part, ("", 0))[1]:  # an answer may be later than what the tail has shown since
            self._claims[part] = (holder, done.seq)
        return True

    async def _read_claim(self, part: int, subject: str) -> None:
        """Another claim stands where ours should go. The tail shows it, or has skipped it: then nothing else would."""
        try:
            async with asyncio.timeout(WRITE_DEADLINE_S):
                stored = await self._broker.last(subjects.LEASES, subject)
        except (RetryableError, UnknownOutcomeError, TimeoutError) as error:
            log.warning("lease.claim_unread", extra={"partition": part, "why": f"{type(error).__name__}: {error}"})
            return
        log.info("lease.claim_refused", extra={"partition": part, "standing": 0 if stored is None else stored.seq})
        if stored is None:
            self._claims.pop(part, None)  # leases are a cache: somebody may have removed it
        else:
            self._see(stored)
