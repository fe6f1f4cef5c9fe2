"""Random plans under random weather: reports late, twice, of the wrong attempt; timers; controls; two schedulers.

Whatever happens, the log says each thing once, every reader folds the same, limits hold, and the run ends.
"""

from collections import Counter
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.builders import by_reference, failure, plan, tool
from tests.unit.scheduler.stage import LEFT_NONE, Stage, state_hash

from headrace.contracts import events as ev
from headrace.contracts.codec import encode
from headrace.pipeline.plan import Plan, node_of
from headrace_scheduler.decide import Decision
from headrace_scheduler.paths import part_of, scope_of
from headrace_scheduler.records import ACTIVE, ENDED, RUNNING, Run

ROUNDS_MAX = 600
"""Five steps, each a map of four with three attempts, need about 200 rounds."""


# --- plans ---------------------------------------------------------------------------------------


KINDS = ("tool", "unsafe", "transform", "map", "child", "wait", "children")
HOLDERS = ("group", "switch", "while", "until", "groups", "turns")


@st.composite
def steps(draw: st.DrawFn, prefix: str = "s", depth: int = 0) -> dict[str, Any]:
    """A block of steps: each may need earlier ones, in every way there is, and hold others."""
    made: dict[str, Any] = {}
    standby: dict[str, Any] = {}
    for number in range(draw(st.integers(1, (5, 3, 2)[depth]))):
        earlier = list(made)
        needs: list[str] = draw(st.lists(st.sampled_from(earlier), max_size=2, unique=True)) if earlier else []
        step = draw(st.sampled_from(KINDS if depth == 2 else (*KINDS, *HOLDERS)))
        body = _held(step, draw, f"{prefix}{number}", depth) if step in HOLDERS else _body(step, draw)
        if needs:
            body["needs"] = needs
        asked: bool = draw(st.booleans())
        if needs and asked:
            body["when"] = f"steps.{needs[0]}.output == 1"
        elif draw(st.integers(0, 5)) == 0:
            body["when"] = draw(st.sampled_from(["inputs.yes", "!inputs.yes", "size(inputs.xs) > 1", "inputs.xs"]))
        if draw(st.integers(0, 3)) == 0:
            body["on_error"] = "continue"
        standby |= _recovery(draw, f"{prefix}{number}", body)
        made[f"{prefix}{number}"] = body
    return made | standby


def _recovery(draw: st.DrawFn, name: str, body: dict[str, Any]) -> dict[str, Any]:
    """Now and then something stands in for a step, or undoes it."""
    made: dict[str, Any] = {}
    if "wait" in body or draw(st.integers(0, 3)):
        return made
    fallback = draw(st.sampled_from([None, {"value": "${{ inputs.xs }}"}, f"{name}f"]))
    if fallback:
        body["fallback"] = fallback
    if fallback == f"{name}f":
        made[fallback] = _body(draw(st.sampled_from(["tool", "map", "wait"])), draw)
    if "transform" not in body and draw(st.booleans()):
        body["compensate"] = f"{name}u"
        made[f"{name}u"] = _body(draw(st.sampled_from(["tool", "unsafe", "child"])), draw)
    return made


def _held(step: str, draw: st.DrawFn, name: str, depth: int) -> dict[str, Any]:
    """A step with steps inside, or one that is repeated."""
    loop: dict[str, Any] = {"max_iterations": 3, "carry": "${{ inputs.xs }}"}
    if draw(st.booleans()):
        loop["on_limit"] = "ok"
    retry = {"retry": {"attempts": 2, "on": ["unavailable"]}} if draw(st.booleans()) else {}
    match step:
        case "switch":
            cases: list[dict[str, Any]] = [{"when": draw(st.sampled_from(["inputs.yes", "size(inputs.xs) > 1"]))}]
            cases[0] |= _block(draw, f"{name}a", depth)
            if draw(st.booleans()):
                cases.append({"default": _block(draw, f"{name}b", depth)})
            return {"switch": cases, **retry}
        case "groups":
            parallel = {
                "max_parallel": draw(st.integers(1, 3)),
                "on_item_error": draw(st.sampled_from(["fail", "continue"])),
            }
            return {"foreach": "inputs.xs", **parallel, **retry, **_block(draw, name, depth)}
        case "while":
            return {**loop, **retry, "while": "iteration < size(inputs.xs)", **_block(draw, name, depth)}
        case "until":
            return {**loop, **retry, "until": "iteration >= size(inputs.xs)", **_block(draw, name, depth)}
        case "turns":
            return tool(
                **loop, **retry, until="iteration == 1 || carry == inputs.xs", **{"with": {"x": "${{ carry }}"}}
            )
    timeout = {"timeout": "100s"} if draw(st.booleans()) else {}
    return {**retry, **timeout, **_block(draw, name, depth)}


def _block(draw: st.DrawFn, name: str, depth: int) -> dict[str, Any]:
    inner = draw(steps(f"{name}_", depth + 1))
    made: dict[str, Any] = {"steps": inner}
    if draw(st.booleans()):
        made["outputs"] = {"x": "${{ steps.?" + next(iter(inner)) + ".?output.orValue(0) }}"}
    return made


def _body(step: str, draw: st.DrawFn) -> dict[str, Any]:
    retry = {"attempts": draw(st.integers(1, 3))}
    parallel = {"max_parallel": draw(st.integers(1, 3)), "on_item_error": draw(st.sampled_from(["fail", "continue"]))}
    match step:
        case "tool":
            return tool(retry=retry)
        case "unsafe":
            return tool(retry=retry, effect="at_most_once", on_unknown=draw(st.sampled_from(["fail", "retry"])))
        case "transform":
            return {"transform": "${{ inputs.xs }}"}
        case "map":
            return tool(foreach="inputs.xs", retry=retry, **parallel, **{"with": {"x": "${{ item }}"}})
        case "children":
            return {"foreach": "inputs.xs", "pipeline": "child", "with": {}, **parallel}
        case "child":
            return {"pipeline": "child", "with": {}, "retry": retry}
    return {"wait": {"for": "10s"}}


@st.composite
def stages(draw: st.DrawFn) -> Stage:
    """A run of a random plan, created and not yet decided about."""
    body = draw(steps())
    outputs = {name: "${{ steps.?" + name + ".?output.orValue(0) }}" for name in body if name[-1] not in "fu"}
    top = {
        "inputs": {"xs": {"type": "array"}, "yes": {"type": "boolean"}},
        "limits": {"max_parallel": draw(st.integers(1, 4))},
        "outputs": outputs if draw(st.booleans()) else {},
    }
    inputs = {"xs": draw(st.lists(st.integers(0, 2), max_size=4)), "yes": True}
    return Stage(plan(body, **top), inputs, definitions={"child": "d"})


# --- weather -------------------------------------------------------------------------------------

DOINGS = (
    *("decide",) * 4,
    *("answer",) * 4,
    "answer wrongly",
    "repeat",
    "time",
    "control",
    "lose",
    "claim",
    "race",
    "land",
    "no room",
    "offer again",
)


class Weather:
    """Does one thing after another to a run."""

    def __init__(self, stage: Stage, draw: Any) -> None:
        self.stage, self.draw = stage, draw
        self.held: tuple[int, Decision] | None = None
        """A decision that another scheduler made, and the sequence that it expects."""
        self.controls = 0
        self.old: list[ev.Order] = []

    def blow(self) -> None:
        """One thing happens."""
        doing = self.draw(st.sampled_from(DOINGS))
        stage = self.stage
        match doing:
            case "decide":
                stage.decide()
            case "no room":
                stage.decide(left=self.draw(st.sampled_from([LEFT_NONE, {"tool": 1}])))
            case "answer":
                self.answer(good=self.draw(st.integers(0, 3)) > 0)
            case "answer wrongly":
                self.answer_wrongly()
            case "repeat":
                made = self.draw(st.sampled_from(stage.log))
                stage.append(made)
            case "time":
                stage.later(self.draw(st.sampled_from([0, 1, 500, 20_000, 400_000])))
            case "control":
                self.controls += 1
                kind = self.draw(st.sampled_from(["pause", "resume", "resume", "resume", "cancel"]))
                stage.control(kind, cause=str(self.controls))
            case "lose":
                if stage.running():
                    stage.decide(lost=frozenset({self.draw(st.sampled_from(stage.running()))}))
            case "claim":
                if self.waiting():
                    stage.claim(self.draw(st.sampled_from(self.waiting())))
            case _:
                self.compete(doing)

    def compete(self, doing: str) -> None:
        """What a second scheduler, or the same one after a crash, does."""
        match doing:
            case "race":
                decision = self.stage.propose()
                if decision is not None:
                    self.held = (self.stage.run.decision_seq, decision)
            case "land":
                self.land()
            case _:
                self.offer_again()

    def waiting(self) -> list[str]:
        """Running instances whose order executors have been shown."""
        orders = self.stage.orders()
        runs = self.stage.run.insts
        return [path for path in self.stage.running() if path in orders and orders[path].attempt == runs[path].attempt]

    def answer(self, *, good: bool) -> None:
        """An executor, or a child, answers something that is out."""
        stage = self.stage
        out = [path for path in stage.run.active if stage.status(path) == "child"] + self.waiting()
        if not out:
            return
        path = self.draw(st.sampled_from(out))
        self.old += [stage.orders()[path]] if path in stage.orders() else []
        if stage.status(path) == "child":
            over = {} if good else {"failure": failure(retryable=self.draw(st.booleans()))}
            stage.child_ended(path, "completed" if good else "failed", **over)
        elif good:
            stage.succeed(path, self.value(path))
        elif self.draw(st.booleans()):
            stage.defer(path, self.draw(st.sampled_from([0, 700, 30_000])))
        else:
            stage.fail(path, retryable=self.draw(st.booleans()))

    def value(self, path: str) -> Any:
        """What an executor gives: for an evaluation what was asked for, else anything, now and then by reference."""
        if path.rpartition("?")[2] in ("when", "while", "until", "case0"):
            return self.draw(st.sampled_from([True, True, False, 3]))
        if path.endswith("?items"):
            return [1, 2]
        if path.endswith("?outputs"):
            return {}
        return self.draw(st.sampled_from([1, 1, 1, 0, {"x": 1.0}, by_reference(b"x" * 70_000)]))

    def answer_wrongly(self) -> None:
        """A report of an order that is no longer current, or of a decision that lost."""
        if not self.old:
            return
        order = self.draw(st.sampled_from(self.old))
        names = {"attempt": order.attempt, "decision": order.decision, "offer": order.offer}
        if self.draw(st.booleans()):
            names["decision"] = "of another"
        self.stage.succeed(order.path, "stale", **names)

    def land(self) -> None:
        """The other scheduler's decision arrives: refused by the broker when it came too late, or not even that."""
        if self.held is None:
            return
        expected_seq, decision = self.held
        self.held = None
        if expected_seq == self.stage.run.decision_seq or self.draw(st.booleans()):
            self.stage.store(decision, orders=self.draw(st.booleans()))

    def offer_again(self) -> None:
        """The owner publishes what is missing, or offers once more what nobody seems to hold."""
        stage = self.stage
        for order in stage.missing().values():
            stage.publish(order)
        if self.waiting() and self.draw(st.booleans()):
            order = stage.order(self.draw(st.sampled_from(self.waiting())))
            stage.publish(msgspec.structs.replace(order, offer=order.offer + 1))

    def clear(self) -> None:
        """From now on everybody answers, until the run has ended."""
        stage = self.stage
        for number in range(ROUNDS_MAX):
            if stage.run.ended:
                return
            stage.control("resume", cause=f"clear{number}")
            stage.settle()
            for order in stage.missing().values():
                stage.publish(order)
            out = [path for path in stage.run.active if stage.status(path) == "child"] + self.waiting()
            for path in out:
                if stage.status(path) == "child":
                    stage.child_ended(path)
                elif path in self.waiting():
                    stage.succeed(path, self.value(path))
            if not out and not stage.run.ended:
                assert stage.until_due() is not None, "nothing is out, nothing is due, and the run has not ended"
        raise AssertionError(f"no end after {ROUNDS_MAX} rounds: {encode(stage.run)!r}")


# --- what holds ----------------------------------------------------------------------------------


def parts_of(run: Run, whole: str) -> list[str]:
    """Items or iterations that have not ended; those that did are remembered where they may have to be undone."""
    parts = [path for path in run.insts if (part_of(path) or ("",))[0] == whole]
    return [path for path in parts if run.insts[path].status not in ENDED]


def check(run: Run, whole: Plan) -> None:
    """The state agrees with itself and with the limits."""
    statuses = {path: inst.status for path, inst in run.insts.items()}
    flying = [path for path, status in statuses.items() if status in ("running", "child")]
    assert len(flying) == run.in_flight <= whole.max_parallel
    assert {path for path, status in statuses.items() if status in ACTIVE} == set(run.active)
    assert sorted(entry[3] for entry in (*run.ready, *run.lined)) == sorted(
        p for p, s in statuses.items() if s == "ready"
    )
    assert run.ready == sorted(run.ready) and run.lined == sorted(run.lined)
    assert set(run.reported) == {path for path in run.active if run.insts[path].report is not None}
    assert set(run.unordered) <= {path for path in run.active if statuses[path] == RUNNING}
    queues = Counter(run.insts[path].queue for path in flying if statuses[path] == RUNNING)
    assert {queue: count for queue, count in run.out.items() if count} == dict(queues)
    opened: Counter[str] = Counter()
    for path, status in statuses.items():
        if "?" not in path and part_of(path) is None and node_of(whole, path).standby_for is None:
            opened[scope_of(path)] += status not in ENDED
    assert run.open == opened[""]
    for inst in run.insts.values():
        if inst.scope is not None:
            assert inst.status == "inside" and inst.scope.open == opened[inst.scope.path]
        if inst.turns is not None:
            living = parts_of(run, inst.path)
            assert len(living) == inst.turns.living
    for path, inst in run.insts.items():
        if inst.fan is not None and inst.status == "fanned":
            foreach = node_of(whole, path).foreach
            assert foreach is not None
            living = parts_of(run, path)
            assert len(living) == inst.fan.in_flight <= foreach.max_parallel
            stored = sum(part.count for part in inst.fan.parts.values())
            assert len(inst.fan.results) + stored == inst.fan.done == inst.fan.cursor - inst.fan.in_flight


def check_history(stage: Stage, draw: Any) -> None:
    """The log says everything once, and every reader reads the same."""
    assert all(count == 1 for count in stage.ends().values()), stage.ends()
    versions = [made.data.version for made in stage.log if isinstance(made, ev.RunDecided)]
    assert set(versions) == set(range(1, stage.run.version + 1)) | {v for v in versions if v > stage.run.version}
    attempts: dict[str, int] = {}
    for event in stage.events(ev.StepScheduled):
        assert event.attempt == attempts.get(event.path, 0) + 1, event
        attempts[event.path] = event.attempt
    assert stage.folded() == stage.run
    place = draw(st.integers(1, len(stage.log)))
    assert stage.folded(place) == stage.folded(place)
    assert stage.folded(snapshot_at=place) == stage.run


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_whatever_happens_the_run_ends_and_its_history_is_sound(data: st.DataObject) -> None:
    """Invariants after every message; termination once everybody answers."""
    stage = data.draw(stages())
    weather = Weather(stage, data.draw)
    for _ in range(data.draw(st.integers(0, 40))):
        weather.blow()
        check(stage.run, stage.plan)
    weather.clear()
    check(stage.run, stage.plan)
    assert stage.run.ended
    check_history(stage, data.draw)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_two_schedulers_that_read_the_same_log_decide_the_same(data: st.DataObject) -> None:
    """At every point: one folded from the beginning, one from a snapshot."""
    stage = data.draw(stages())
    weather = Weather(stage, data.draw)
    for _ in range(data.draw(st.integers(1, 25))):
        weather.blow()
        other = Stage.__new__(Stage)
        other.__dict__ = stage.__dict__ | {"run": stage.folded(snapshot_at=data.draw(st.integers(1, len(stage.log))))}
        one, two = stage.propose(), other.propose()
        assert (one is None) == (two is None)
        assert encode(one) == encode(two)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_folding_any_prefix_twice_gives_the_same_state(data: st.DataObject) -> None:
    """From the messages' bytes, whatever they are: byte-equal, also when a snapshot lies in between."""
    stage = data.draw(stages())
    weather = Weather(stage, data.draw)
    for _ in range(data.draw(st.integers(0, 30))):
        weather.blow()
    for upto in range(1, len(stage.log) + 1):
        once = state_hash(stage.folded(upto))
        assert state_hash(stage.folded(upto)) == once
        assert state_hash(stage.folded(upto, snapshot_at=data.draw(st.integers(1, upto)))) == once
