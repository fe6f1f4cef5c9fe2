"""One run on a stage: a log in memory, its fold, and the scheduler's pure core deciding on it.

What an executor is given is read from the log by subject, as a real executor's consumer would, so that an order which
nobody could see is no order. Every call of `decide` is checked to be pure and repeatable.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from tests.builders import NOON_MS, RUN, message, run_created

from headrace.contracts import events as ev
from headrace.contracts import names, subjects
from headrace.contracts.canonical import sha256_hex
from headrace.contracts.codec import decode, encode, inline, plain
from headrace.contracts.envelope import ItemResult, Value
from headrace.contracts.failure import Failure
from headrace.pipeline.plan import Plan
from headrace.runtime.values import foreach_output, joined
from headrace_scheduler import messages
from headrace_scheduler.decide import Decision, Limits, decide, draft_decision, next_due_ms
from headrace_scheduler.orders import content_for, make_order
from headrace_scheduler.records import Run
from headrace_scheduler.state import created, evolve

_WORK = re.compile(r"hr\.evt\.[^.]+\.[^.]+\.[^.]+\.[^.]+\.[^.]+\.scheduled\.(.+)")
DECISIONS_MAX = 20_000
CHECKED_INSTANCES_MAX = 60
"""Hashing the state around every decision is quadratic; the small runs show the same."""


def state_hash(run: Run) -> str:
    """Hash over everything that a run's state holds, the order of its maps included."""
    return sha256_hex(encode(run))


def same(one: Decision | None, other: Decision | None) -> bool:
    """Whether two decisions are the same in every byte."""
    if one is None or other is None:
        return one is other
    return encode(one) == encode(other)


class Stage:
    """A run, from its first decision on."""

    def __init__(self, plan: Plan, inputs: Mapping[str, Any] | None = None, **over: Any) -> None:
        self.plan, self.now_ms = plan, NOON_MS
        self.log: list[Any] = []
        self.subjects: list[str] = []
        self._shown: dict[str, ev.Order] = {}
        self.definitions: dict[str, str] = over.pop("definitions", {})
        self.run_id: str = over.pop("run", RUN)
        self.blobs: dict[str, bytes] = {}
        self.decisions: list[Decision] = []
        forked: ev.RunForked | None = over.pop("forked", None)
        fields = {
            "inputs": inline(dict(inputs or {})),
            "deadline_ms": NOON_MS + plan.deadline_ms,
            "defdigest": plan.digest,
        }
        first = messages.first_decision(
            messages.Creation(
                run=self.run_id,
                tenant="default",
                pipeline=plan.pipeline,
                created=run_created(**fields | over),
                cause="command",
                source="/scheduler/one",
                now_ms=self.now_ms,
                correlation=self.run_id,
                forked=forked,
            )
        )
        made = decode(first.body)
        assert isinstance(made, ev.RunDecided)
        run = created(made)
        assert run is not None
        self.run = run
        self.append(made, first.subject)

    # --- the log -------------------------------------------------------------------------------

    def append(self, made: ev.RunMessage, subject: str = "") -> bool:
        """Store a message and fold it, as every reader does: from its bytes."""
        again = decode(encode(made))
        assert again == made
        self.log.append(made)
        self.subjects.append(subject)
        self._show(made, subject)
        return evolve(self.run, len(self.log), made, self.plan)

    def folded(self, upto: int | None = None, *, snapshot_at: int = 0) -> Run:
        """The fold of a prefix, on the way written to a snapshot and read back after `snapshot_at` messages."""
        run = created(self.log[0])
        assert run is not None
        for seq, made in enumerate(self.log[:upto], start=1):
            evolve(run, seq, made, self.plan)
            if seq == snapshot_at:
                run = msgspec.json.decode(msgspec.json.encode(run), type=Run)
        return run

    def events(self, kind: type | None = None) -> list[Any]:
        """All events of all decisions that count, in order."""
        found = []
        version = 0
        for made in self.log:
            if isinstance(made, ev.RunDecided) and made.data.version == version + 1:
                version += 1
                found += [event for event in made.data.events if kind is None or isinstance(event, kind)]
        return found

    # --- deciding ------------------------------------------------------------------------------

    def limits(self, **over: Any) -> Limits:
        return Limits(**{"left": {}, "definitions": self.definitions} | over)

    def propose(self, **limits: Any) -> Decision | None:
        """What `decide` says; asking changes nothing and asking again says the same."""
        left = dict(limits.pop("left", {}))
        checked = len(self.run.insts) <= CHECKED_INSTANCES_MAX
        before = state_hash(self.run) if checked else ""
        first = decide(self.run, self.plan, now_ms=self.now_ms, limits=self.limits(left=dict(left), **limits))
        if not checked:
            return first
        again = decide(self.run, self.plan, now_ms=self.now_ms, limits=self.limits(left=dict(left), **limits))
        assert same(first, again)
        if not self.run.ended and self.run.status != "stalled":  # where `decide` spared itself the draft, rightly
            limits_ = self.limits(left=dict(left), **limits)
            assert same(first, draft_decision(self.run, self.plan, now_ms=self.now_ms, limits=limits_))
        assert state_hash(self.run) == before
        return first

    def decide(self, **limits: Any) -> Decision | None:
        """Decide once, store the decision, and publish the orders that do not lie inside."""
        decision = self.propose(**limits)
        if decision is not None:
            self.store(decision)
        return decision

    def store(self, decision: Decision, *, orders: bool = True) -> ev.RunDecided:
        """The decision's message and its orders, as the owner publishes them."""
        outgoing, made = messages.decided(self.run, decision, source="/scheduler/one")
        assert len(outgoing.body) < 1_000_000
        self.blobs |= dict(decision.blobs)
        self.decisions.append(decision)
        self.append(made, outgoing.subject)
        if orders:
            for path, order in decision.orders.items():
                if self.run.get(path) is None or (decision.order is not None and decision.order.path == path):
                    continue
                self.publish(messages.at_decision(order, made.id, made.data.version))
        return made

    def publish(self, order: ev.Order) -> None:
        """One work order."""
        outgoing = messages.ordered(self.run, order, source="/scheduler/one")
        made = decode(outgoing.body)
        assert isinstance(made, ev.StepOrdered)
        self.append(made, outgoing.subject)

    def missing(self) -> dict[str, ev.Order]:
        """Orders that state wants and the log has not shown, derived again."""
        found = {}
        for path in self.run.unordered:
            inst = self.run.get(path)
            assert inst is not None
            content = content_for(self.run, self.plan, path, now_ms=inst.scheduled_ms)
            assert content.sha == inst.input_sha, path
            found[path] = make_order(self.run, self.plan, inst, content)
        return found

    def settle(self, **limits: Any) -> None:
        """Decide until nothing is missing."""
        for _ in range(DECISIONS_MAX):
            if self.decide(**limits) is None:
                return
        raise AssertionError("no end of decisions")

    def later(self, ms: int) -> "Stage":
        """Time passes; nobody decides."""
        self.now_ms += ms
        return self

    def until_due(self) -> int | None:
        """Time passes up to the next instant that matters; None when only a message can change anything."""
        due_ms = next_due_ms(self.run, self.plan, now_ms=self.now_ms)
        if due_ms is not None:
            self.now_ms = due_ms
        return due_ms

    # --- executors -----------------------------------------------------------------------------

    def orders(self) -> dict[str, ev.Order]:
        """The newest order of every step instance that executors have been shown, as they read it."""
        return self._shown

    def _show(self, made: ev.RunMessage, subject: str) -> None:
        order = made.data.order if isinstance(made, ev.RunDecided) else None
        if isinstance(made, ev.StepOrdered):
            order = made.data
        if order is None or (work := _WORK.fullmatch(subject)) is None:
            return
        assert work[1] == order.queue
        if isinstance(made, ev.RunDecided):
            assert not order.decision  # a decision cannot name itself
            order = msgspec.structs.replace(order, decision=made.id, version=made.data.version)
        assert order.decision
        kept, inst = self._shown.get(order.path), self.run.get(order.path)
        stands = kept is not None and inst is not None and kept.decision == inst.decision != order.decision
        if stands and kept.attempt == order.attempt:
            return  # of a decision that lost: executors have both, and the answer to this one counts for nothing
        self._shown[order.path] = order

    def order(self, path: str) -> ev.Order:
        """The order of one instance."""
        return self.orders()[path]

    def _report(self, kind: Any, path: str, data: Any, **over: Any) -> bool:
        attempt = over.pop("attempt", None) or self.order(path).attempt
        fields = {"stepid": path, "attempt": attempt, "runid": self.run_id, "source": "/step-executor/two"} | over
        made = message(kind, data, pipeline=self.plan.pipeline, **fields)
        event = kind.__struct_config__.tag.split(".")[2:4]
        prefix = subjects.run_prefix("default", self.plan.pipeline, self.run_id)
        return self.append(made, subjects.report(prefix, "-".join(event)))

    def _names(self, path: str, over: dict[str, Any]) -> dict[str, Any]:
        given: dict[str, Any] = {name: over.pop(name) for name in ("decision", "offer") if name in over}
        if len(given) < 2:
            order = self.order(path)
            given = {"decision": order.decision, "offer": order.offer} | given
        return given

    def succeed(self, path: str, value: Any = None, **over: Any) -> bool:
        """The executor of the newest order reports a result."""
        output = value if isinstance(value, Value) else inline(value)
        cost = over.pop("cost", None)
        data = ev.Succeeded(**self._names(path, over), output=output, cost=cost)
        return self._report(ev.AttemptSucceeded, path, data, **over)

    def fail(self, path: str, code: str = "unavailable", *, retryable: bool = True, **over: Any) -> bool:
        """… an error."""
        after_ms = over.pop("retry_after_ms", 0)
        failure = Failure(code=code, message=f"{code}!", retryable=retryable, retry_after_ms=after_ms)
        cost = over.pop("cost", None)
        data = ev.Failed(**self._names(path, over), failure=failure, cost=cost)
        return self._report(ev.AttemptFailed, path, data, **over)

    def defer(self, path: str, ms: int = 1_000, **over: Any) -> bool:
        """… that it cannot run now."""
        data = ev.Deferred(**self._names(path, over), reason="breaker_open", due_ms=self.now_ms + ms)
        return self._report(ev.AttemptDeferred, path, data, **over)

    def claim(self, path: str, **over: Any) -> bool:
        """An at-most-once call begins."""
        data = ev.Claimed(**self._names(path, over), token="t", executor="two")
        return self._report(ev.AttemptStarted, path, data, **over)

    def control(self, kind: str, *, cause: str = "one") -> bool:
        """Somebody asks to pause, resume or cancel."""
        target = messages.Target("default", self.plan.pipeline, self.run_id)
        out = messages.control(target, kind, cause=cause, reason="because", source="/x", now_ms=self.now_ms)
        made = decode(out.body)
        assert isinstance(made, ev.CancelRequested | ev.PauseRequested | ev.ResumeRequested)
        return self.append(made, out.subject)

    def signal(self, name: str, payload: Any = None, *, cause: str = "one") -> bool:
        """Somebody sends a signal."""
        target = messages.Target("default", self.plan.pipeline, self.run_id)
        value = payload if isinstance(payload, Value) else inline(payload)
        out = messages.signal_received(target, name, value, cause=cause, source="/x", now_ms=self.now_ms)
        made = decode(out.body)
        assert isinstance(made, ev.SignalReceived)
        return self.append(made, out.subject)

    def more(self, usd_nanos: int = 0, *, tokens: int = 0, cause: str = "one") -> bool:
        """Somebody allows the run to cost more."""
        target = messages.Target("default", self.plan.pipeline, self.run_id)
        data = ev.Raise(usd_nanos=usd_nanos, tokens=tokens)
        out = messages.raise_requested(target, data, cause=cause, source="/x", now_ms=self.now_ms)
        made = decode(out.body)
        assert isinstance(made, ev.BudgetRaiseRequested)
        return self.append(made, out.subject)

    def child_ended(self, path: str, status: str = "completed", **over: Any) -> bool:
        """The owner tells the parent how its child ended."""
        inst = self.run.get(path)
        assert inst is not None
        fields: dict[str, Any] = {"child": inst.child, "attempt": inst.attempt, "status": status}
        fields["outputs"] = inline({"from": inst.child}) if status == "completed" else None
        data = ev.ChildResult(**fields | over)
        made = message(ev.ChildReported, data, stepid=path, attempt=data.attempt, runid=self.run_id)
        return self.append(made)

    # --- looking -------------------------------------------------------------------------------

    def status(self, path: str) -> str:
        """Status of an instance, empty when there is none."""
        inst = self.run.get(path)
        return "" if inst is None else inst.status

    def running(self) -> list[str]:
        """Instances with an order out, in the order in which they began."""
        return [path for path in self.run.active if self.status(path) == "running"]

    def output(self, path: str) -> Any:
        """The output of an ended step, as expressions see it."""
        inst = self.run.get(path)
        assert inst is not None and inst.output is not None, path
        return self.read(inst.output)

    def read(self, value: Value) -> Any:
        """A value, wherever it is held."""
        if value.parts:
            raw = joined([self.blobs[part.ref] for part in value.parts])
        else:
            raw = self.blobs[value.ref] if value.ref else bytes(value.json)  # type: ignore[arg-type]  # one is set
        if value.form == "items":
            return foreach_output(msgspec.json.decode(raw, type=list[ItemResult]))
        return plain(msgspec.Raw(raw))

    def outputs(self) -> Any:
        """Outputs of a completed run."""
        assert self.run.status == "completed", (self.run.status, self.run.failure)
        assert self.run.outputs is not None
        return self.read(self.run.outputs)

    def ends(self) -> dict[str, int]:
        """How often each instance ended."""
        ended: dict[str, int] = {}
        for event in self.events():
            if isinstance(event, ev.StepCompleted | ev.StepFailed | ev.StepSkipped | ev.StepCancelled):
                ended[event.path] = ended.get(event.path, 0) + 1
        return ended


LEFT_NONE = dict.fromkeys(names.QUEUES, 0)
"""Limits under which nothing may be offered."""
