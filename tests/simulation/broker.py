"""The in-memory broker behind a network that delays, repeats, withholds and forgets, and that dies and comes back.

The semantics are `headrace.runtime.memory`'s; here is only what happens to what passes between a connection and the
server, and to what the server remembers. With no faults it is the same broker with latency.
"""

import asyncio
import contextvars
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Protocol

from headrace.contracts.errors import AppendConflictError
from headrace.runtime.clock import Clock
from headrace.runtime.eventlog import Appended, Expected, Stored
from headrace.runtime.memory import MemoryBroker, MemoryServer
from headrace.runtime.memory_streams import MemoryQueue, Pull
from tests.simulation import faults as f
from tests.simulation.loop import Process

BROKER: Final = "broker"
RECONNECT_S: Final = 0.2
IN_ORDER_S: Final = 1e-7
"""Between two messages of a connection, so that no loop takes the second for as early as the first."""
LATE_RETRY_S: Final = 0.5
ACKS_REMEMBERED: Final = 64


@lru_cache(maxsize=16_384)
def site_of(what: str) -> str:
    """The kind of a message on the wire, without what is particular to it: `publish decision`, `ack EXEC-tool`."""
    verb, _, subject = what.partition(" ")
    tokens = subject.split(".")
    if tokens[0] == "hr" and len(tokens) > 1:
        if tokens[1] == "evt" and len(tokens) > 7:
            return f"{verb} {'claim' if tokens[7] == 'claim' else tokens[6]}"
        return f"{verb} {tokens[2] if tokens[1] in ('live', 'api') else tokens[1]}"
    if tokens[0] == "$KV":
        return f"{verb} {tokens[1]} {tokens[2]}"
    return what


class Place(Protocol):
    """Where a connection is opened: what `host.Host` is to the broker."""

    name: str
    starts: int
    process: Process | None

    @property
    def clock(self) -> Clock:
        """Its own."""
        ...

    def crash(self, *, restart_s: float) -> None:
        """See Host."""
        ...

    def freeze(self, seconds: float) -> None:
        """See Host."""
        ...


@dataclass(slots=True)
class Ack:
    """A work queue's message was ended: which, when, and how long the stream was then."""

    stream: str
    durable: str
    seq: int
    verb: str
    last_seq: int
    at_s: float


class SimServer(MemoryServer):
    """The broker. It may be down, accept what it should refuse, and forget what it confirmed."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        faults: f.Faults,
        *,
        seed: int,
        latency_s: tuple[float, float],
    ) -> None:
        super().__init__(clock)
        self.loop, self.clock, self.faults, self.seed, self.latency_s = loop, clock, faults, seed, latency_s
        self.own_context = contextvars.Context()
        self.down_until_s = 0.0
        self.links: dict[SimBroker, None] = {}
        self.acks: list[Ack] = []
        self.overlooked = 0
        self._late: dict[int, Callable[[], None]] = {}
        self._late_count = 0
        self._acked: dict[tuple[str, str], deque[int]] = {}

    def connection(self, host: Place, context: contextvars.Context) -> "SimBroker":
        """A new connection of a process."""
        return SimBroker(self, host, context)

    @property
    def is_down(self) -> bool:
        """Nothing arrives, nobody connects."""
        return self.loop.time() < self.down_until_s

    # --- what the server does wrongly --------------------------------------------------------------------------------

    def publish(
        self, subject: str, body: bytes, *, msg_id: str, expected: Expected | None, headers: Mapping[str, str]
    ) -> Appended:
        """As MemoryServer; a refused decision is sometimes stored all the same."""
        try:
            return super().publish(subject, body, msg_id=msg_id, expected=expected, headers=headers)
        except AppendConflictError:
            if ".decision." not in subject or expected is None or expected.seq == 0:
                raise  # only the fence of versions is tested so; a creation has none, and needs the broker's check
            if self.faults.at(BROKER, "conflict", f.BROKER_CONFLICT) is None:
                raise
            self.overlooked += 1
            return super().publish(subject, body, msg_id=msg_id, expected=None, headers=headers)

    def pull(self, stream: str, durable: str, pull: Pull) -> None:
        """As MemoryServer; after a delivery the queue may deliver twice, forget, skip, or die with the server."""

        def deliver(number: int, stored: Stored, deliveries: int) -> None:
            pull.deliver(number, stored, deliveries)
            fault = self.faults.at(BROKER, f"deliver {durable}", f.BROKER_DELIVERY)
            if fault is not None:
                self._later(fault.seconds, lambda: self._misbehave(fault, self.queues[stream, durable], stored.seq))

        super().pull(stream, durable, replace(pull, deliver=deliver))

    def settle(self, stream: str, durable: str, seq: int, verb: str, delay_s: float) -> None:
        """As MemoryServer; what was acknowledged may be delivered again."""
        if verb in ("ack", "term") and (stream, durable) in self.queues:
            last_seq = self.streams[stream].last_seq
            self.acks.append(Ack(stream, durable, seq, verb, last_seq, self.loop.time()))
            self._acked.setdefault((stream, durable), deque(maxlen=ACKS_REMEMBERED)).append(seq)
        super().settle(stream, durable, seq, verb, delay_s)
        if verb == "ack":
            fault = self.faults.at(BROKER, f"ack {durable}", f.BROKER_ACK)
            if fault is not None:
                self._later(fault.seconds, lambda: self.queues[stream, durable].unack(seq))

    def _misbehave(self, fault: f.Fault, queue: MemoryQueue, seq: int) -> None:
        match fault.kind:
            case "twice":
                queue.back(seq, 0.0)
            case "forget":
                queue.amnesia(max(1, seq - 3))
            case "skip":
                queue.amnesia(queue.stream.last_seq + 1)
            case _:
                self.restart(fault.seconds)

    def restart(self, seconds: float) -> None:
        """kill -9 and back: connections, requests and readers are gone, and so are the last acknowledgements."""
        if self.is_down:
            return
        self.down_until_s = self.loop.time() + seconds
        for broker in tuple(self.links):
            broker.cut(seconds + RECONNECT_S)
        for key, acked in self._acked.items():
            for seq in tuple(acked)[-(len(acked) // 4) :] if len(acked) >= 4 else ():
                self._later(seconds, lambda key=key, seq=seq: self.queues[key].unack(seq))  # type: ignore[misc]
        self._acked.clear()

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        self.loop.call_later(seconds, act, context=self.own_context)

    # --- what the network holds back ---------------------------------------------------------------------------------

    def commit_later(self, seconds: float, arrive: Callable[[], None]) -> None:
        """A request that was sent and given up reaches the server in the end, whoever owns what by then."""
        self._late_count += 1
        number = self._late_count
        self._late[number] = arrive

        def land() -> None:
            if number not in self._late:
                return
            if self.is_down:
                self._later(LATE_RETRY_S, land)
            else:
                self._late.pop(number)()

        self._later(seconds, land)

    def heal(self) -> None:
        """The server is up, everything that was held back arrives, everybody is connected."""
        self.down_until_s = 0.0
        for number in tuple(self._late):
            self._later(0.001 * number, self._late.pop(number))
        for broker in tuple(self.links):
            broker.heal()


class _Link:
    """A connection as TCP knows it: what is sent on it arrives in order, or not at all once it is gone."""

    __slots__ = ("alive", "down_free_s", "drains", "up_free_s")

    def __init__(self) -> None:
        self.alive = True
        self.drains = False
        self.up_free_s = self.down_free_s = 0.0


class SimBroker(MemoryBroker):
    """A connection of one process. Faults happen to what it sends and hears."""

    def __init__(self, server: SimServer, host: Place, context: contextvars.Context) -> None:
        super().__init__(server, host.clock)
        self._sim, self._host, self._context = server, host, context
        self._process = host.process
        self._random = random.Random(f"{server.seed}/{host.name}/{host.starts}")
        self._link = _Link()
        server.links[self] = None

    # --- the wire ----------------------------------------------------------------------------------------------------

    def to_server(self, what: str, arrive: Callable[[], None]) -> None:
        """See MemoryBroker."""
        link, process = self._link, self._process
        if not link.alive:
            return
        if process is not None and process.holding:
            self._sim.loop.call_soon(self._send, link, arrive, context=self._context)
            return
        site = site_of(what)
        verb = site.partition(" ")[0]
        kinds = f.UP_PUBLISH if verb == "publish" else f.UP_BUS if verb in ("send", "respond") else f.UP
        fault = self._sim.faults.at(self._host.name, site, kinds)
        if fault is None:
            self._send(link, arrive)
        else:
            self._send_badly(fault, link, arrive)

    def _send_badly(self, fault: f.Fault, link: _Link, arrive: Callable[[], None]) -> None:
        seconds = fault.seconds
        match fault.kind:
            case "cut":
                self.cut(seconds)
            case "lose":
                pass
            case "late":
                self._sim.commit_later(seconds, arrive)
                self.cut(min(seconds, RECONNECT_S))
            case "stall":
                link.up_free_s = max(link.up_free_s, self._sim.loop.time() + seconds)
                self._send(link, arrive)
            case "crash-before":
                self._host.crash(restart_s=seconds)
            case "crash-after":
                self._send(link, arrive)
                self._host.crash(restart_s=seconds)
            case "freeze-before":
                self._host.freeze(seconds)
                self._sim.loop.call_soon(self._send, link, arrive, context=self._context)
            case _:
                self._send(link, arrive)
                self._host.freeze(seconds)

    def _send(self, link: _Link, arrive: Callable[[], None]) -> None:
        if not link.alive:
            return
        loop = self._sim.loop
        at_s = max(loop.time() + self._latency_s(), link.up_free_s + IN_ORDER_S)
        link.up_free_s = at_s

        loop.call_at(at_s, self._land, link, arrive, context=self._sim.own_context)

    def _land(self, link: _Link, arrive: Callable[[], None]) -> None:
        """At the server. What a killed process had written still arrives; what it asked for has no reader any more."""
        if self._sim.is_down or not (link.alive or link.drains):
            return
        arrive()
        if not link.alive:
            self._sim.drop(self, tuple(self._readers.values()))

    def to_client(self, what: str, arrive: Callable[[], None]) -> None:
        """See MemoryBroker."""
        link = self._link
        if not link.alive:
            return
        site = site_of(what)
        verb = site.partition(" ")[0]
        if verb == "tail":
            site, verb = f"tailed {site.partition(' ')[2]}", "deliver"
        kinds = f.DOWN_DELIVERY if verb == "deliver" else f.DOWN_BUS if verb in ("hear", "answer") else f.DOWN
        fault = self._sim.faults.at(self._host.name, site, kinds)
        now_s = self._sim.loop.time()
        at_s = max(now_s + self._latency_s(), link.down_free_s + IN_ORDER_S)
        if fault is not None:
            match fault.kind:
                case "cut-answer":
                    self.cut(fault.seconds)
                    return
                case "lose":
                    return
                case "hold":
                    self._hand_over(link, now_s + fault.seconds, arrive)
                    return
                case "stall-answer":
                    at_s = max(at_s, now_s + fault.seconds)
                case "crash-on":
                    self._host.crash(restart_s=fault.seconds)
                    return
                case _:
                    self._host.freeze(fault.seconds)
        link.down_free_s = at_s
        self._hand_over(link, at_s, arrive)

    def _hand_over(self, link: _Link, at_s: float, arrive: Callable[[], None]) -> None:
        self._sim.loop.call_at(at_s, lambda: arrive() if link.alive else None, context=self._context)

    def _latency_s(self) -> float:
        low, high = self._sim.latency_s
        return low if low == high else self._random.uniform(low, high)

    # --- the connection ----------------------------------------------------------------------------------------------

    def cut(self, seconds: float) -> None:
        """The connection is lost now; the process notices when it runs, and is connected again after a while."""
        link = self._link
        if not link.alive:
            return
        link.alive = False
        self._drop()
        self._sim.loop.call_soon(self._lost, link, context=self._context)
        self._sim.loop.call_later(seconds, self._connect_again, link, context=self._context)

    def die(self) -> None:
        """The process is gone. Nothing that its code still does has an effect."""
        self._link.drains = self._link.alive
        self._link.alive = False
        self._drop()
        self._sim.links.pop(self, None)

    def _drop(self) -> None:
        """The server notices when it has finished what it is at."""
        readers = tuple(self._readers.values())
        self._sim.loop.call_soon(self._sim.drop, self, readers, context=self._sim.own_context)

    def heal(self) -> None:
        """Connected, now."""
        self._link.up_free_s = self._link.down_free_s = 0.0
        if not self._link.alive:
            self._sim.loop.call_soon(self._connect_again, self._link, context=self._context)

    def _lost(self, link: _Link) -> None:
        if link is self._link:
            self.disconnect()

    def _connect_again(self, link: _Link) -> None:
        if link is not self._link or self not in self._sim.links:
            return
        if self._sim.is_down:
            self._sim.loop.call_later(RECONNECT_S, self._connect_again, link, context=self._context)
            return
        self.disconnect()
        self._link = _Link()
        self.reconnect()
