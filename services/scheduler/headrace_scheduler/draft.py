"""A decision being written: events so far, and the draft of the state that they lead to. Pure."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from headrace.contracts import events as ev
from headrace.contracts import names, subjects
from headrace.contracts.canonical import sha256_hex
from headrace.contracts.codec import encode, encode_value
from headrace.contracts.envelope import Value
from headrace.contracts.failure import Failure
from headrace.pipeline.plan import Plan
from headrace.pipeline.prices import PriceTable, shipped
from headrace_scheduler import ends
from headrace_scheduler.orders import Content, content_for, make_order
from headrace_scheduler.records import RUNNING, Run, draft_of
from headrace_scheduler.reuse import Found, Reuse
from headrace_scheduler.state import apply

FULL_BYTES: Final = names.DECISION_BYTES_MAX * 3 // 8
"""One more question may add the values of an item, of its foreach and of the run, 64 KiB each, and must still fit."""
CROWDED_BYTES: Final = names.DECISION_BYTES_MAX * 3 // 4
"""Ends of steps are small; what ends a whole run may use what is left up to here."""
ENVELOPE_BYTES: Final = 2_048
"""The envelope with the longest names and a full trace context."""


class Writer:
    """Collects events; every event is applied to `run`, a draft, so that the next question sees its effect."""

    def __init__(
        self,
        run: Run,
        plan: Plan,
        now_ms: int,
        left: dict[str, int],
        refused: set[str],
        definitions: Mapping[str, str],
        reuse: Reuse,
    ) -> None:
        self.run = draft_of(run)
        self.plan, self.now_ms, self.definitions, self.reuse = plan, now_ms, definitions, reuse
        self.prices: PriceTable = shipped()
        self._left, self._refused = left, refused
        self.events: list[ev.DecisionEvent] = []
        self.orders: dict[str, ev.Order] = {}
        self.blobs: list[tuple[str, bytes]] = []
        self.kept: dict[str, Found] = {}
        """Results that may be used again, by digest of their key."""
        self.fatal: tuple[str, Failure] | None = None
        """The first step failure that the pipeline does not tolerate."""
        self._bytes = self._blob_bytes = 0

    @property
    def full(self) -> bool:
        """No further event fits; the next decision goes on from here."""
        return (
            len(self.events) >= names.DECISION_EVENTS_MAX - 100
            or self._bytes > FULL_BYTES
            or self._blob_bytes > names.VALUE_BYTES_MAX
        )

    @property
    def goes_on(self) -> bool:
        """More may begin in this decision."""
        return not self.full and self.fatal is None and self.run.status != "blocked"

    @property
    def crowded(self) -> bool:
        """Not even the end of a step fits."""
        return len(self.events) >= names.DECISION_EVENTS_MAX - 10 or self._bytes > CROWDED_BYTES

    def emit(self, event: ev.DecisionEvent) -> None:
        """Say it, and see its effect."""
        self.events.append(event)
        self._bytes += len(encode(event)) + 1
        apply(self.run, self.plan, event, at_ms=self.now_ms)
        if isinstance(event, ev.StepCompleted | ev.StepFailed | ev.StepSkipped):
            ends.follow(self, event)

    def room(self) -> bool:
        """One more instance may be in flight in this run."""
        return not self.full and self.run.in_flight < self.plan.max_parallel

    def take(self, queue: str) -> bool:
        """Reserve an offer on a queue, or note that there was no room."""
        if self._left.get(queue, names.OFFERS_OUT_MAX) <= 0:
            self._refused.add(queue)
            return False
        self._left[queue] = self._left.get(queue, names.OFFERS_OUT_MAX) - 1
        return True

    def refuses(self, queue: str) -> bool:
        """An offer on this queue was asked for in vain."""
        return queue in self._refused

    def fail_fatally(self, path: str, failure: Failure) -> None:
        """The run fails at the end of this decision; the first reason is the reason."""
        if self.fatal is None:
            self.fatal = (path, failure)

    def fail_step(self, path: str, failure: Failure) -> None:
        """The instance ends badly, and what that ends with it."""
        ends.fail_step(self, path, failure)

    def store(self, value: Any) -> Value:
        """A JSON value for an event: inline while small, else by reference to a blob that is stored first."""
        return self.store_bytes(encode_value(value), form="json")

    def store_bytes(self, data: bytes, *, form: str) -> Value:
        """As `store`, for bytes that are JSON already."""
        if len(data) <= names.INLINE_BYTES_MAX:
            return Value(json=msgspec.Raw(data), form=form)
        return Value(ref=self.store_blob(data), size=len(data), form=form)

    def store_blob(self, data: bytes) -> str:
        """The reference of bytes that are stored before the decision."""
        ref = subjects.blob_ref(self.run.run, sha256_hex(data))
        self.blobs.append((ref, data))
        self._blob_bytes += len(data)
        return ref

    def add_order(self, path: str, content: Content) -> None:
        """The order of a step just scheduled goes with this decision."""
        inst = self.run.get(path)
        assert inst is not None, path
        self.orders[path] = make_order(self.run, self.plan, inst, content)
        self.blobs.extend(content.blobs)

    def drop_ended(self) -> None:
        """Forget the orders of attempts that this very decision has ended again."""
        for path, order in list(self.orders.items()):
            inst = self.run.get(path)
            if inst is None or inst.status != RUNNING or inst.attempt != order.attempt:
                del self.orders[path]

    def only_order(self) -> ev.Order | None:
        """The order that may go inside the decision: that of the only step scheduled, when both fit one message."""
        if len(self.orders) != 1 or sum(isinstance(event, ev.StepScheduled) for event in self.events) != 1:
            return None
        order = next(iter(self.orders.values()))
        fits = self._bytes + len(encode(order)) + ENVELOPE_BYTES <= names.DECISION_BYTES_MAX
        return order if fits else None

    def reoffer(self, path: str) -> None:
        """The order of an attempt already scheduled goes out again, as its next offer."""
        inst = self.run.get(path)
        assert inst is not None, path
        self.add_order(path, content_for(self.run, self.plan, path, now_ms=inst.scheduled_ms))
