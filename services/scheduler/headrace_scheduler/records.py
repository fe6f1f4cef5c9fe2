"""What a run's state is made of: the run, its step instances, windows of maps, and drafts of all that.

Pure. The fold in `state.py` is what changes it.
"""

from copy import copy
from typing import Final

import msgspec

from headrace.contracts import events as ev
from headrace.contracts import names
from headrace.contracts.codec import inline
from headrace.contracts.envelope import ItemResult, Part, Value
from headrace.contracts.failure import Failure
from headrace.contracts.money import Amount
from headrace.pipeline.plan import Plan, node_of

WAITING: Final = "waiting"
READY: Final = "ready"
RUNNING: Final = "running"
SLEEPING: Final = "sleeping"
"""A timer has to fire first: a retry's delay, a wait, a deferred order."""
FANNED: Final = "fanned"
"""A `foreach` whose items are under way."""
TURNING: Final = "turning"
"""A `while` or `until` whose iterations are under way."""
INSIDE: Final = "inside"
"""A group or a switch whose steps are under way."""
STANDING: Final = "standing"
"""It has failed, and its fallback is under way."""
CHILD: Final = "child"
SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
SKIPPED: Final = "skipped"
CANCELLED: Final = "cancelled"
ORDERED: Final = frozenset({"tool", "llm", "pipeline"})
"""Kinds whose every attempt counts against `max_parallel`."""
ENDED: Final = frozenset({SUCCEEDED, FAILED, SKIPPED, CANCELLED})
ACTIVE: Final = frozenset({RUNNING, SLEEPING, FANNED, TURNING, INSIDE, STANDING, CHILD})
TIMELESS: Final = frozenset({FANNED, TURNING, STANDING})
"""They have no attempt of their own, so only the step's deadline ends them."""

NULL: Final = inline(None)

RUN_ENDED: Final = frozenset({"completed", "failed", "cancelled"})


Place = tuple[int, int, str, str]
"""(−priority, number of the step, place among its instances, path)."""


class Report(msgspec.Struct, omit_defaults=True):
    """An accepted report that no decision has dealt with yet."""

    id: str
    value: Value | None = None
    failure: Failure | None = None
    deferred: str = ""
    deferred_ms: int = 0
    detail: str = ""
    usage: ev.Usage | None = None
    cost: ev.Cost | None = None


class Account(msgspec.Struct, frozen=True, omit_defaults=True):
    """What counts against one budget."""

    spent: Amount = Amount()
    raised: Amount = Amount()
    """By how much the budget has grown."""
    reserved: Amount = Amount()
    """Of attempts that are not over."""


class Signal(msgspec.Struct):
    """A signal that no step has taken yet."""

    id: str
    payload: Value


class Answer(msgspec.Struct, omit_defaults=True):
    """What a person answered, and no decision has dealt with yet."""

    id: str
    decision: str
    by: str
    at_ms: int
    comment: str = ""
    value: Value | None = None


class Fan(msgspec.Struct, omit_defaults=True):
    """The window of a `foreach`: what is in flight, and results by index."""

    count: int
    items: list[msgspec.Raw] | None = None
    """The list, split; None when it is held by reference."""
    ref: str = ""
    cursor: int = 0
    in_flight: int = 0
    done: int = 0
    failed: int = 0
    degraded: bool = False
    """The result of an item is."""
    results: dict[int, ItemResult] = {}
    """Of items that have ended and lie in no part."""
    ended: list[int] = []
    """Of a long list: how many items of each part have ended."""
    parts: dict[int, Part] = {}
    """Of a long list: what has been stored, by the part's number."""


class Turns(msgspec.Struct, omit_defaults=True):
    """A loop between and during its iterations, of which one lives at a time."""

    carry: Value
    """What the next iteration is given: the output of the one that ended last."""
    done: int = 0
    """Iterations that have ended; the number of the living one."""
    living: bool = False
    degraded: bool = False
    """The result of an iteration was."""


class Scope(msgspec.Struct, omit_defaults=True):
    """A living instance of a block."""

    path: str
    """What the paths of its steps begin with."""
    block: int
    open: int
    """Steps that have not ended."""
    degraded: bool = False
    """A step failed and was tolerated, or gave a degraded result."""


class Inst(msgspec.Struct, omit_defaults=True):
    """A step instance. `path` is e.g. `review`, `review[3]`, or `review?when` for a condition evaluated elsewhere."""

    path: str
    status: str = WAITING
    unmet: int = 0
    attempt: int = 0
    offer: int = 0
    """The newest offer seen in the log; 0 before the first."""
    want_offer: int = 0
    """The newest offer that ought to be in the log."""
    order_seq: int = 0
    """Sequence of the newest offer."""
    lost: int = 0
    """Offers of this attempt made because a holder died."""
    queue: str = ""
    decision: str = ""
    version: int = 0
    deadline_ms: int = 0
    """When all its attempts are over; known once it has begun."""
    scheduled_ms: int = 0
    not_after_ms: int = 0
    due_ms: int = 0
    timer: str = ""
    timer_ms: int = 0
    input_sha: str = ""
    cache_key: str = ""
    """Under which its result is kept for later."""
    claim_seq: int = 0
    claim_attempt: int = 0
    claim_holder: str = ""
    claim_base: int = 0
    """The claim that the current attempt may follow: 0, or that of an attempt known to be over."""
    report: Report | None = None
    output: Value | None = None
    failure: Failure | None = None
    usage: ev.Usage | None = None
    """What the attempt that ended it used."""
    degraded: bool = False
    fan: Fan | None = None
    turns: Turns | None = None
    scope: Scope | None = None
    carry: Value | None = None
    """Of an iteration: what it was given."""
    question: str = ""
    """Of a step that asks a person: the hash of what it shows."""
    answer: Answer | None = None
    emitting: ev.EmitStarted | None = None
    """The event that it publishes, and that the broker is not known to have stored."""
    emitted: bool = False
    """The broker has; no decision has dealt with it yet."""
    child: str = ""
    reserved: Amount | None = None
    """What the current attempt may cost, where a budget bounds it."""
    accounts: tuple[str, ...] = ()
    """Where that is set aside."""
    begun: ev.ChildStarted | None = None
    """What the child's first decision derives from."""


class Run(msgspec.Struct, omit_defaults=True):
    """A run. Everything `decide` needs beside the plan."""

    run: str
    tenant: str
    pipeline: str
    defdigest: str
    status: str = "running"
    """running, paused, cancelling, failing, stalled, completed, failed, cancelled."""
    version: int = 0
    decision_id: str = ""
    decision_seq: int = 0
    created_ms: int = 0
    deadline_ms: int = 0
    cancel_due_ms: int = 0
    inputs: Value = Value()
    outputs: Value | None = None
    failure: Failure | None = None
    labels: dict[str, str] = {}
    request: str = ""
    parent: str = ""
    parent_path: str = ""
    depth: int = 1
    traceparent: str = ""
    tracestate: str = ""
    correlation: str = ""
    tools: dict[str, str] = {}
    """Pinned versions by tool."""
    attempt: int = 1
    """Which try of the same work it is."""
    event: Value | None = None
    hops: int = 0
    key: str = ""
    """The text of its concurrency key, if it has one."""
    key_answer: str = ""
    """granted or refused, once it has heard."""
    durability: str = ""
    insts: dict[str, Inst] = {}
    ready: list[Place] = []
    """What may begin, sorted: the order in which steps start is the same everywhere."""
    lined: list[Place] = []
    """As `ready`, of steps that nothing can happen to before the run has room for another order. Apart, so that a line
    of thousands costs those at its head only."""
    active: dict[str, None] = {}
    reported: dict[str, None] = {}
    unordered: dict[str, None] = {}
    """Instances whose newest wanted offer has not been seen in the log."""
    out: dict[str, int] = {}
    """Orders in flight by queue."""
    asked: dict[str, tuple[str, ...]] = {}
    """Instance → evaluations that executors make for it, and whose answers are kept until it begins or ends."""
    open: int = 0
    """Steps of the run's own scope that have not ended."""
    degraded: bool = False
    """A step failed and was tolerated, or gave a degraded result."""
    undo: list[str] = []
    """Steps that succeeded and can be undone, in the order in which they did."""
    signals: dict[str, list[Signal]] = {}
    """Those that came and were not taken, by name, in the order in which they came."""
    ledger: dict[str, Account] = {}
    """What is spent and set aside, by budget."""
    raises: list[ev.Raise] = []
    """What somebody has allowed, that no decision has dealt with yet."""
    blocked_on: str | None = None
    """Whose budget a blocked run waits for."""
    undo_began: bool = False
    undo_due_ms: int = 0
    """When undoing is over; 0 while the run is not about to end."""
    failing_path: str = ""
    in_flight: int = 0
    """Instances that count against `max_parallel`: running orders and children."""
    controls: list[tuple[str, str]] = []
    """(cancel | pause | resume, reason), each of which will change something, that no decision has dealt with yet."""
    cancel_reason: str = ""
    inputs_seen: list[str] = []
    late: int = 0
    """Messages that changed nothing: stale reports, decisions of a lost race."""

    def get(self, path: str) -> Inst | None:
        """The instance to read."""
        insts = self.insts
        return insts.find(path) if type(insts) is Overlay else insts.get(path)

    def edit(self, path: str) -> Inst:
        """The instance to change; made when it does not exist yet."""
        if isinstance(self.insts, Overlay):
            return self.insts.edit(path)
        inst = self.insts.get(path)
        if inst is None:
            inst = self.insts[path] = Inst(path)
        return inst

    def drop(self, path: str) -> None:
        """Forget an instance whose result is kept elsewhere."""
        if isinstance(self.insts, Overlay):
            self.insts.drop(path)
        else:
            self.insts.pop(path, None)

    @property
    def end_ms(self) -> int:
        """Until when its steps may run."""
        return self.undo_due_ms or self.deadline_ms

    @property
    def ended(self) -> bool:
        """No decision may follow."""
        return self.status in RUN_ENDED


class Overlay(dict[str, Inst]):
    """Instances of a draft. Reads fall through to the base; what is changed is copied first."""

    __slots__ = ("base", "dropped")

    def __init__(self, base: dict[str, Inst]) -> None:
        super().__init__()
        self.base = base
        self.dropped: set[str] = set()

    def find(self, path: str) -> Inst | None:
        """The instance to read."""
        inst = self.get(path)
        if inst is None and path not in self.dropped:
            return self.base.get(path)
        return inst

    def edit(self, path: str) -> Inst:
        """The instance to change."""
        inst = self.get(path)
        if inst is None:
            below = None if path in self.dropped else self.base.get(path)
            inst = Inst(path) if below is None else copy(below)
            if inst.fan is not None:
                # Only results of this decision are written to the copy; `fan_results` reads through.
                inst.fan = copy(inst.fan)
                inst.fan.results = {}
                inst.fan.ended, inst.fan.parts = inst.fan.ended.copy(), inst.fan.parts.copy()
            if inst.scope is not None:
                inst.scope = copy(inst.scope)
            if inst.turns is not None:
                inst.turns = copy(inst.turns)
            self.dropped.discard(path)
            self[path] = inst
        return inst

    def drop(self, path: str) -> None:
        """Forget an instance."""
        self.pop(path, None)
        self.dropped.add(path)


def draft_of(run: Run) -> Run:
    """A run to try events on: changing it leaves `run` as it is."""
    draft = copy(run)
    draft.insts = Overlay(run.insts)
    draft.ready, draft.active, draft.reported = run.ready.copy(), run.active.copy(), run.reported.copy()
    draft.lined = run.lined.copy()
    draft.unordered, draft.out, draft.controls = {}, run.out.copy(), run.controls.copy()
    draft.asked, draft.undo = run.asked.copy(), run.undo.copy()
    draft.ledger, draft.raises = run.ledger.copy(), run.raises.copy()
    if run.signals:
        draft.signals = {name: waiting.copy() for name, waiting in run.signals.items()}
    return draft


def fan_results(run: Run, path: str, items: range) -> list[ItemResult]:
    """The results of ended items of a `foreach` that lie in no part, in the list's order."""
    inst = run.get(path)
    assert inst is not None and inst.fan is not None, path
    results, earlier = inst.fan.results, inst.fan.results
    if isinstance(run.insts, Overlay):
        below = run.insts.base.get(path)
        if below is not None and below.fan is not None:
            earlier = below.fan.results
    return [results[index] if index in results else earlier[index] for index in items]


def part_range(fan: Fan, part: int) -> range:
    """The items of one part of a long list."""
    first = part * names.ITEMS_PART_MAX
    return range(first, min(first + names.ITEMS_PART_MAX, fan.count))


def is_claimed(inst: Inst, plan: Plan) -> bool:
    """An at-most-once call may have happened: there is a claim that the current attempt did not know of, or its own."""
    if "?" in inst.path or node_of(plan, inst.path).effect != "at_most_once":
        return False
    return inst.claim_seq != inst.claim_base
