"""Every pair of a kind and a modifier that the schema allows, with what it does.

The pairs are read from the schema: a new kind without a body, a new modifier without a case, and a pair that either
does not know are failures. What `pending` names is refused when it is loaded, and its case must be here all the same
once its entry is gone.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pytest

from headrace.contracts import events as ev
from headrace.pipeline.pending import PENDING
from headrace.pipeline.plan import approval_hash
from headrace.pipeline.schema import KINDS, rows
from headrace_scheduler.outcomes import question
from tests.behaviour.bodies import BESIDE, BODIES, Body, pipeline
from tests.behaviour.world import LABEL, LABELLED, Act, Script, Seen, most_at_once, played

Judge = Callable[[dict[str, Seen]], None]


@dataclass(slots=True, frozen=True)
class Case:
    """Scripts by name, and what must be seen of them. `alone`: it kills executors, which others would notice."""

    scripts: Mapping[str, Script]
    judge: Judge
    alone: bool = False


def allowed() -> list[tuple[str, str]]:
    """Every (kind, modifier) that a step may have."""
    modifiers = [row for row in rows("step").values() if row.key not in KINDS]
    return [(kind, row.key) for row in modifiers for kind in row.kinds or KINDS]


def due(kind: str, modifier: str) -> bool:
    """Whether the engine refuses the pair so far."""
    return f"step.{kind}" in PENDING or f"step.{modifier}" in PENDING


@functools.cache
def world() -> dict[str, Seen]:
    """All pairs that disturb nobody, played side by side."""
    return played(
        {
            run_id(kind, modifier, name): script
            for kind, modifier in allowed()
            if not due(kind, modifier) and not case(kind, modifier).alone
            for name, script in case(kind, modifier).scripts.items()
        }
    )


def run_id(kind: str, modifier: str, name: str) -> str:
    """Of a pair's script."""
    return f"{kind}-{modifier}-{name}".replace("_", "-")


@functools.cache
def case(kind: str, modifier: str) -> Case:
    """What is expected of a pair."""
    return CASES[modifier](BODIES[kind])


@pytest.mark.parametrize(("kind", "modifier"), allowed(), ids=["-".join(pair) for pair in allowed()])
def test_otp_n13_a_pair_of_kind_and_modifier_does_what_the_table_says(kind: str, modifier: str) -> None:
    """Run by the real services; where the engine cannot yet, the entry of `pending` says so."""
    if due(kind, modifier):
        return  # refused with E1401: test_pending
    found = case(kind, modifier)
    seen = played(found.scripts) if found.alone else world()
    found.judge({name: seen[name if found.alone else run_id(kind, modifier, name)] for name in found.scripts})


def test_otp_n13_every_kind_has_a_body_and_every_modifier_a_case() -> None:
    """None is missing, and none is for something that is gone."""
    modifiers = {modifier for kind, modifier in allowed() if not due(kind, modifier)}
    assert modifiers <= set(CASES) <= {modifier for _, modifier in allowed()}
    assert {kind for kind in KINDS if f"step.{kind}" not in PENDING} <= set(BODIES) <= set(KINDS)


# --- cases -----------------------------------------------------------------------------------------------------------


def _script(body: Body, step: Mapping[str, Any], *, sent: int = 1, **more: Any) -> Script:
    """The step `s` in a pipeline of its own; `sent`: how many signals come, one every 30 ms."""
    return Script(pipeline({"s": dict(step)}, **more), acts=body.acts(sent), beside=BESIDE, inputs={"x": 7, "zero": 0})


def _plain(body: Body) -> Case:
    """The modifier changes nothing of what the step gives."""

    def judge(seen: dict[str, Seen]) -> None:
        assert seen["it"].step("s") == "succeeded", seen["it"].end
        assert seen["it"].output("s") == body.gives(7)

    return Case({"it": _script(body, body.step("inputs.x") | {"description": "For people."})}, judge)


def _with(body: Body) -> Case:
    """The tool, or the child, is given just that."""

    def judge(seen: dict[str, Seen]) -> None:
        assert seen["it"].output("s") == body.gives({"deep": [7]})

    return Case({"it": _script(body, body.step("{'deep': [inputs.x]}"))}, judge)


def _needs(body: Body) -> Case:
    """It begins after what it needs has ended, and is skipped where that was skipped."""

    def scripts(when: str) -> Script:
        before = {"tool": "play.do", "with": {"ms": 40}, "when": when}
        text = pipeline({"before": before, "s": body.step("1") | {"needs": ["before"]}})
        return Script(text, acts=body.acts(1), beside=BESIDE, inputs={"x": 7, "zero": 0})

    def judge(seen: dict[str, Seen]) -> None:
        after = seen["after"]
        order = [getattr(event, "path", "") for _, event in after.events]
        ended = next(at for at, (_, one) in enumerate(after.events) if isinstance(one, ev.StepCompleted))
        assert order[ended] == "before" and "s" not in order[:ended]
        assert after.step("s") == "succeeded"
        assert seen["skipped"].step("s") == "skipped"
        assert not seen["skipped"].called("s")

    return Case({"after": scripts("true"), "skipped": scripts("false")}, judge)


def _when(body: Body) -> Case:
    """True runs it, false skips it, and nothing is called."""

    def judge(seen: dict[str, Seen]) -> None:
        assert (seen["yes"].step("s"), seen["no"].step("s")) == ("succeeded", "skipped")
        assert seen["no"].status == "completed"
        assert not seen["no"].calls

    holds, fails = ({"when": f"inputs.x == {value}"} for value in (7, 8))
    return Case(
        {"yes": _script(body, body.step("1") | holds), "no": _script(body, body.step("1") | fails, sent=0)}, judge
    )


def _foreach(body: Body, **more: Any) -> Case:
    """Once an item, in the order of the list."""
    name = more.get("as", "item")

    def judge(seen: dict[str, Seen]) -> None:
        assert seen["it"].output("s") == {
            "items": [body.gives(value, nth) for nth, value in enumerate((5, 6, 7))],
            "failed": [],
            "counts": {"total": 3, "succeeded": 3, "failed": 0, "skipped": 0},
        }
        assert seen["none"].output("s")["items"] == []

    step = body.step(name) | more
    over = {"it": _script(body, step | {"foreach": [5, 6, 7]}, sent=3), "none": _script(body, step | {"foreach": []})}
    return Case(over, judge)


def _max_parallel(body: Body) -> Case:
    """Just so many at a time, in the log and at the callee; what takes no time is never seen in flight."""

    def judge(seen: dict[str, Seen]) -> None:
        for bound in (1, 2, 3):
            run = seen[f"p{bound}"]
            assert run.output("s")["counts"]["succeeded"] == 5
            begun: dict[str, float] = {}
            most = 0
            for at_s, event in run.events:
                path = getattr(event, "path", "")
                if path.startswith("s["):
                    path = path.partition("]")[0] + "]"
                    begun.setdefault(path, at_s)
                    most = max(most, len(begun))
                    if isinstance(event, ev.StepCompleted) and event.path == path:
                        del begun[path]
            assert most == (1 if body.at_once else bound), (body.kind, most)
            if run.calls:
                assert most_at_once(run.calls) == bound

    step = body.step("item", ms=40) | {"foreach": [1, 2, 3, 4, 5]}
    return Case({f"p{bound}": _script(body, step | {"max_parallel": bound}, sent=5) for bound in (1, 2, 3)}, judge)


def _on_item_error(body: Body) -> Case:
    """`continue`: the others give what they give, and the failed are named; `fail`: the step fails."""

    def judge(seen: dict[str, Seen]) -> None:
        output = seen["goes-on"].output("s")
        failed = [0, 1, 2] if body.fails_for_all else [1]
        assert [one["index"] for one in output["failed"]] == failed
        assert output["counts"] == {
            "total": 3, "succeeded": 3 - len(failed), "failed": len(failed), "skipped": 0
        }  # fmt: skip
        assert [item is None for item in output["items"]] == [index in failed or body.null for index in range(3)]
        assert seen["goes-on"].status == "completed" and seen["goes-on"].end.degraded
        assert seen["fails"].step("s") == "failed"
        assert seen["fails"].status == "failed"

    step = body.failing("item == 2", "item") | {"foreach": [1, 2, 3]}
    goes_on = _script(body, step | {"on_item_error": "continue"}, sent=0)
    return Case({"goes-on": goes_on, "fails": _script(body, step | {"on_item_error": "fail"}, sent=0)}, judge)


def _loop(body: Body, more: Mapping[str, Any], *, turns: int) -> Case:
    """So many iterations, one after the other; the output is the last one's."""

    def judge(seen: dict[str, Seen]) -> None:
        run = seen["it"]
        assert run.output("s") == body.gives(turns - 1, turns - 1)
        done = [one.path for one in run.of(ev.StepCompleted) if one.path.startswith("s(") and one.path.endswith(")")]
        assert done == [f"s({number})" for number in range(turns)]

    return Case({"it": _script(body, body.step("iteration") | more, sent=turns)}, judge)


def _max_iterations(body: Body) -> Case:
    """Reaching it is a failure."""

    def judge(seen: dict[str, Seen]) -> None:
        assert seen["it"].error("s") == "limit_exceeded"
        assert len([one for one in seen["it"].of(ev.StepCompleted) if one.path in ("s(0)", "s(1)", "s(2)")]) == 2

    return Case({"it": _script(body, body.step("iteration") | {"while": "true", "max_iterations": 2}, sent=3)}, judge)


def _carry(body: Body) -> Case:
    """What a loop begins with; without an iteration it is the output. Each iteration is given the one before."""

    def judge(seen: dict[str, Seen]) -> None:
        assert seen["none"].output("s") == {"n": 7}
        first = body.gives({"n": 7}, 0)
        assert seen["two"].output("s") == body.gives(first, 1)

    carried = {"carry": {"n": "${{ inputs.x }}"}, "max_iterations": 3}
    none = body.step("carry") | carried | {"while": "inputs.x == 8"}
    two = body.step("carry") | carried | {"until": "iteration == 1"}
    return Case({"none": _script(body, none, sent=0), "two": _script(body, two, sent=2)}, judge)


def _on_limit(body: Body) -> Case:
    """`ok`: reaching the limit is a success with the last output."""

    def judge(seen: dict[str, Seen]) -> None:
        assert seen["it"].step("s") == "succeeded"
        assert seen["it"].output("s") == body.gives(1, 1)
        assert not seen["it"].end.degraded

    more = {"while": "true", "max_iterations": 2, "on_limit": "ok"}
    return Case({"it": _script(body, body.step("iteration") | more, sent=2)}, judge)


def _timeout(body: Body) -> Case:
    """An attempt that takes longer is over then."""

    def judge(seen: dict[str, Seen]) -> None:
        run = seen["it"]
        if body.at_once:
            assert run.output("s") == body.gives(7)
            return
        assert run.error("s") == "timeout"
        assert 0.3 <= run.at_s(ev.StepFailed, "s") <= 1.3

    more = {"timeout": "300ms", "retry": {"attempts": 1}}
    return Case({"it": _script(body, body.step("inputs.x", hang=9) | more)}, judge)


def _deadline(body: Body) -> Case:
    """However long an attempt may take, and however many are left, the step is over then."""

    def judge(seen: dict[str, Seen]) -> None:
        for run in seen.values():
            if body.at_once:
                assert run.output("s") == body.gives(7)
                continue
            assert run.error("s") in ("timeout", "deadline_exceeded")
            assert run.at_s(ev.StepFailed, "s") <= 1.7
        assert body.at_once or seen["long"].at_s(ev.StepFailed, "s") >= 0.7
        assert body.at_once or seen["many"].at_s(ev.StepFailed, "s") >= 0.4, "a second attempt was made"

    step = body.step("inputs.x", hang=90) | {"deadline": "700ms"}
    many = {"timeout": "200ms", "retry": {"attempts": 90, "initial": "1ms", "on": ["timeout"]}}
    once = {"timeout": "9s", "retry": {"attempts": 1}}
    return Case({"many": _script(body, step | many), "long": _script(body, step | once)}, judge)


def _retry(body: Body) -> Case:
    """So many attempts and not one more; what can only fail again is not tried again."""

    def judge(seen: dict[str, Seen]) -> None:
        enough, short = seen["enough"], seen["short"]
        if body.at_once:
            assert enough.step("s") == short.step("s") == "failed"
            return
        assert enough.output("s") == body.gives(7)
        assert len(enough.calls) + sum(len(run.calls) for run in children(seen, enough)) == (0 if body.far else 3)
        assert short.step("s") == "failed"
        assert len(short.calls) == (0 if body.far else 2)

    def tried(attempts: int, name: str) -> Script:
        how = {"fail": 2, "tally": f"retry-{body.kind}-{name}"}
        step = body.failing("inputs.x == 7", "inputs.x") if body.at_once else body.step("inputs.x", **how)
        return _script(body, step | {"retry": {"attempts": attempts, "initial": "10ms"}})

    return Case({"enough": tried(3, "enough"), "short": tried(2, "short")}, judge)


def children(seen: Mapping[str, Seen], run: Seen) -> list[Seen]:
    """Runs that this one started, among those at hand."""
    ids = {one.child for one in run.of(ev.ChildStarted)}
    return [found for found in seen.values() if found.id in ids]


def _on_error(body: Body) -> Case:
    """`continue`: the step has failed, the run goes on and says that it is degraded."""

    def judge(seen: dict[str, Seen]) -> None:
        for name, status in (("goes-on", "completed"), ("fails", "failed")):
            assert seen[name].step("s") == "failed"
            assert seen[name].status == status
        assert seen["goes-on"].end.degraded
        assert seen["goes-on"].of(ev.StepFailed, "s")[0].tolerated

    step = body.failing("inputs.x == 7", "inputs.x")
    goes_on = _script(body, step | {"on_error": "continue"}, sent=0)
    return Case({"goes-on": goes_on, "fails": _script(body, step | {"on_error": "fail"}, sent=0)}, judge)


def _fallback(body: Body) -> Case:
    """A value, or another step, stands in; the result is degraded."""

    def judge(seen: dict[str, Seen]) -> None:
        for name, given in (("value", {"n": 7}), ("other", "plan b")):
            assert seen[name].output("s") == given
            assert seen[name].status == "completed" and seen[name].end.degraded

    step = body.failing("inputs.x == 7", "inputs.x")
    value = _script(body, step | {"fallback": {"value": {"n": "${{ inputs.x }}"}}}, sent=0)
    steps = {"s": step | {"fallback": "other"}, "other": {"tool": "play.do", "with": {"give": "plan b"}}}
    other = Script(pipeline(steps), beside=BESIDE, inputs={"x": 7, "zero": 0})
    return Case({"value": value, "other": other}, judge)


def _effect(body: Body) -> Case:
    """`at_most_once`: claimed before it is made, and never made again when nobody knows how it went. The others are
    made again, and nobody claims them."""

    def judge(seen: dict[str, Seen]) -> None:
        run = seen["it"]
        assert [type(one) for one in run.messages].count(ev.AttemptStarted) == 1
        assert run.error("s") == "outcome_unknown"
        assert {name: len(run.called(name)) for name in ("s", "t", "u")} == {"s": 1, "t": 2, "u": 2}
        assert run.output("t") == run.output("u") == body.gives(7)

    step = body.step("inputs.x", crash=1) | {"retry": {"attempts": 3, "initial": "10ms"}, "on_error": "continue"}
    steps = {
        "s": step | {"effect": "at_most_once"},
        "t": step | {"effect": "idempotent", "needs": ["s"]},
        "u": step | {"effect": "pure", "needs": ["t"]},
    }
    return Case({"it": Script(pipeline(steps))}, judge, alone=True)


def _on_unknown(body: Body) -> Case:
    """`retry`: the author says that a second call does no harm. `ask`: somebody says what it gave."""

    def judge(seen: dict[str, Seen]) -> None:
        run, asked = seen["it"], seen["asked"]
        assert [call.attempt for call in run.calls] == [1, 2]
        assert run.output("s") == body.gives(7)
        assert [type(one) for one in asked.messages].count(ev.AttemptStarted) == 1
        assert asked.output("s") == {"said": "so"}

    step = body.step("inputs.x", crash=1) | {"effect": "at_most_once", "retry": {"attempts": 3, "initial": "10ms"}}
    call = step.get("tool", body.kind)
    answer = {"step": "s", "hash": approval_hash(question("s", 1, call)), "by": "ann", "decision": "complete"}
    acts = tuple(Act(1.0 + later_s, "run-approve", answer | {"value": {"said": "so"}}) for later_s in range(0, 30, 2))
    scripts = {"it": _script(body, step | {"on_unknown": "retry"})}
    asks = Script(pipeline({"s": step | {"on_unknown": "ask"}}), acts=acts, inputs={"x": 7, "zero": 0})
    return Case(scripts | {"asked": asks}, judge, alone=True)


def _compensate(body: Body) -> Case:
    """Undone once the run fails, and not when it does not; what the step gave can be read."""

    def scripts(fatal: bool) -> Script:
        steps = {
            "s": body.step("inputs.x") | {"compensate": "undo"},
            "undo": {"tool": "play.do", "with": {"give": "${{ steps.s.output }}"}},
            "last": {"needs": ["s"], "tool": "play.do", "with": {"fatal": fatal}},
        }
        return Script(pipeline(steps), acts=body.acts(1), beside=BESIDE, inputs={"x": 7, "zero": 0})

    def judge(seen: dict[str, Seen]) -> None:
        fails, goes = seen["fails"], seen["goes"]
        assert (fails.status, goes.status) == ("failed", "completed")
        assert fails.failure.code == "refused"
        (undone,) = fails.called("undo")
        assert undone.args["give"] == body.gives(7)
        assert undone.began_s >= fails.called("last")[0].ended_s
        assert not goes.called("undo")

    return Case({"fails": scripts(True), "goes": scripts(False)}, judge)


def _artifacts(body: Body) -> Case:
    """Files of the workspace that match are kept under their hashes."""

    def judge(seen: dict[str, Seen]) -> None:
        run = seen["it"]
        (report,) = [one for one in run.messages if isinstance(one, ev.AttemptSucceeded) and one.stepid == "s"]
        assert [(one.path, one.size) for one in report.data.artifacts] == [("out/a.txt", 5)]
        assert run.blobs[report.data.artifacts[0].ref] == b"hello"

    write = {"tool": "fs.write", "with": {"path": "out/a.txt", "text": "hello"}}
    other = {"tool": "fs.write", "with": {"path": "b.txt", "text": "not this"}}
    step = body.step("inputs.x", **({} if body.kind != "transform" else {"there": True}))
    steps = {"w": write, "v": other, "s": step | {"needs": ["w", "v"], "artifacts": ["out/*.txt"]}}
    text = pipeline(steps, workspace=True)
    return Case({"it": Script(text, inputs={"x": 7, "zero": 0})}, judge)


def _priority(body: Body) -> Case:
    """Of steps that could start and may not all, the one with more."""

    def scripts(priority: int) -> Script:
        steps = {
            "a": body.step("1", ms=30),
            "b": {"tool": "play.do", "with": {"ms": 30}, "priority": priority},
            "s": body.step("1", ms=30) | {"priority": 5},
        }
        del steps["a"]
        text = pipeline(steps, limits={"max_parallel": 1})
        return Script(text, acts=body.acts(1), beside=BESIDE, inputs={"x": 7, "zero": 0})

    def judge(seen: dict[str, Seen]) -> None:
        for name, first in (("first", "s"), ("second", "b")):
            paths = [getattr(event, "path", "").partition("/")[0] for _, event in seen[name].events]
            assert next(path for path in paths if path) == first
            assert seen[name].status == "completed"

    return Case({"first": scripts(0), "second": scripts(9)}, judge)


def _cache(body: Body) -> Case:
    """Of items with one key, one after the other, the first is executed; the others take what it gave, and say so. What
    costs nothing is not looked for."""

    def judge(seen: dict[str, Seen]) -> None:
        run = seen["it"]
        assert run.output("s")["items"] == [body.gives(7, number) for number in range(3)]
        hits = [one.cached.path for one in run.of(ev.StepCompleted) if one.cached is not None]
        assert (len(run.calls), hits) == ((0, []) if body.at_once else (1, ["s[0]", "s[0]"]))

    cached = {"cache": {"key": body.kind, "ttl": "1h"}, "max_parallel": 1}
    return Case({"it": _script(body, body.step("inputs.x") | {"foreach": [1, 2, 3]} | cached)}, judge)


def _queue(body: Body) -> Case:
    """Only executors with the label are given it; here that is one of them."""

    def judge(seen: dict[str, Seen]) -> None:
        run = seen["it"]
        assert run.output("s") == body.gives(7)
        assert {call.host for call in run.calls} <= {LABELLED}
        queues = {one.queue for one in run.of(ev.StepScheduled)}
        assert queues == (set() if body.at_once else {f"{body.kind}-{LABEL}"})

    return Case({"it": _script(body, body.step("inputs.x") | {"queue": LABEL})}, judge)


def _version(body: Body) -> Case:
    """That version and no other; a tool of this process has version 0."""

    def judge(seen: dict[str, Seen]) -> None:
        assert seen["there"].output("s") == body.gives(7)
        assert (seen["other"].error("s"), seen["other"].calls) == ("tool_unavailable", [])

    there = body.step("inputs.x") | {"version": "0"}
    other = body.step("inputs.x") | {"version": "9", "retry": {"attempts": 1}}
    return Case({"there": _script(body, there), "other": _script(body, other)}, judge)


def _budget(body: Body) -> Case:
    """What may cost more than the step has is not called; with room it is."""

    def judge(seen: dict[str, Seen]) -> None:
        assert seen["short"].error("s") == "budget_exceeded"
        assert not seen["short"].calls
        assert seen["enough"].output("s") == body.gives(7)

    def with_tokens(tokens: int) -> Script:
        return _script(body, body.step("inputs.x") | {"budget": {"tokens": tokens, "on_exceed": "fail"}})

    return Case({"short": with_tokens(1), "enough": with_tokens(10_000_000)}, judge)


CASES: Final[dict[str, Callable[[Body], Case]]] = {
    "budget": _budget,
    "with": _with,
    "outputs": _with,
    "description": _plain,
    "needs": _needs,
    "when": _when,
    "foreach": _foreach,
    "as": functools.partial(_foreach, **{"as": "thing"}),
    "max_parallel": _max_parallel,
    "on_item_error": _on_item_error,
    "while": lambda body: _loop(body, {"while": "iteration < 2", "max_iterations": 5}, turns=2),
    "until": lambda body: _loop(body, {"until": "iteration == 2", "max_iterations": 5}, turns=3),
    "max_iterations": _max_iterations,
    "carry": _carry,
    "on_limit": _on_limit,
    "timeout": _timeout,
    "deadline": _deadline,
    "retry": _retry,
    "on_error": _on_error,
    "fallback": _fallback,
    "effect": _effect,
    "on_unknown": _on_unknown,
    "compensate": _compensate,
    "artifacts": _artifacts,
    "cache": _cache,
    "queue": _queue,
    "version": _version,
    "priority": _priority,
    "labels": _plain,
}
