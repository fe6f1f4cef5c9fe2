"""Results that are used again: looked for, found or not, and recorded as what they are."""

from typing import Any

import msgspec
import pytest
from tests.builders import NOON_MS, by_reference, plan, tool
from tests.unit.scheduler.stage import LEFT_NONE, Stage

from headrace.contracts import events as ev
from headrace.contracts.canonical import sha256_hex
from headrace.contracts.codec import encode, inline
from headrace.contracts.decisions import Origin
from headrace_scheduler.caching import LOOK_AHEAD
from headrace_scheduler.reuse import Found, Reuse

TTL_MS = 3_600_000
ORIGIN = Origin(run="earlier", path="a", report="r", at_ms=NOON_MS - 1_000, sha256="0" * 64)


def cached(key: Any = "${{ inputs.k }}", **over: Any) -> dict[str, Any]:
    """A call whose result may be used again for an hour."""
    return tool(cache={"key": key, "ttl": "1h"}, **over)


def of(steps: dict[str, Any], given: dict[str, Any] | None = None, **top: Any) -> Stage:
    """A run of these steps, at its beginning."""
    return Stage(plan(steps, inputs={"k": {"default": 1}}, **top), {"k": 1, **(given or {})})


def wanted(stage: Stage, found: dict[str, Found | None] | None = None) -> list[str]:
    """What the decision that is due wants to be looked for; nothing is decided."""
    reuse = Reuse(found or {})
    assert stage.propose(reuse=reuse) is None
    return list(reuse.wanted)


def look(stage: Stage, *found: Found | None) -> None:
    """Decide until nothing is missing, every look answered in turn, the last answer for all that follow."""
    known: dict[str, Found | None] = {}
    answers = list(found)
    for _ in range(200):
        reuse = Reuse(known)
        decision = stage.propose(reuse=reuse)
        if decision is not None:
            stage.store(decision)
        new = [digest for digest in reuse.wanted if digest not in known]
        for digest in new:
            known[digest] = answers.pop(0) if len(answers) > 1 else answers[0]
        if decision is None and not new:
            return
    raise AssertionError("no end of looks")


def hit(value: Any = "old", *, at_ms: int = NOON_MS - 1_000) -> Found:
    return Found(inline(value), msgspec.structs.replace(ORIGIN, at_ms=at_ms))


def test_a_step_waits_for_the_look_and_leaves_no_trace() -> None:
    """Asking again asks the same; it is ready all the while, and no event is written."""
    stage = of({"a": cached()})
    (digest,) = wanted(stage)
    assert wanted(stage) == [digest]
    assert stage.status("a") == "ready" and stage.events(ev.StepScheduled) == []
    assert wanted(of({"a": cached()}, {"k": 1})) == [digest] != wanted(of({"a": cached()}, {"k": 2}))


def test_a_miss_is_executed_and_its_result_kept_under_the_key() -> None:
    """The digest is in the log with the order, so whoever folds the report knows where the result belongs."""
    stage = of({"a": cached(), "b": {"transform": "${{ steps.a.output }}"}})
    (digest,) = wanted(stage)
    look(stage, None)
    (scheduled,) = stage.events(ev.StepScheduled)
    assert scheduled.cache_key == digest and stage.status("a") == "running"
    assert stage.order("a").attempt == 1
    stage.succeed("a", {"n": 1})
    stage.settle()
    kept = [one for decision in stage.decisions for one in decision.kept.items()]
    (completed,) = [event for event in stage.events(ev.StepCompleted) if event.path == "a"]
    origin = Origin(run=stage.run_id, path="a", report=completed.report, at_ms=NOON_MS, sha256=sha256_hex(b'{"n":1}'))
    assert kept == [(digest, Found(inline({"n": 1}), origin))] and completed.cached is None
    assert stage.output("b") == {"n": 1}


def test_a_hit_is_a_completion_with_its_origin_and_nothing_is_executed() -> None:
    """The same on replay, without looking: the decision has all of it."""
    stage = of(
        {"a": cached(), "b": {"transform": "${{ steps.a.output }}"}, "c": {"transform": "${{ steps.a.attempts }}"}}
    )
    look(stage, hit())
    (completed,) = [event for event in stage.events(ev.StepCompleted) if event.path == "a"]
    assert completed == ev.StepCompleted(path="a", output=inline("old"), cached=ORIGIN)
    assert (stage.output("b"), stage.output("c")) == ("old", 0)
    assert stage.orders() == {} and stage.run.status == "completed"
    assert encode(stage.folded()) == encode(stage.run)


@pytest.mark.parametrize(("age_ms", "is_hit"), [(TTL_MS - 1, True), (TTL_MS, False), (TTL_MS + 1, False)])
def test_a_result_is_used_until_its_ttl_is_over(age_ms: int, is_hit: bool) -> None:
    """By the broker's clock: that of the decision, and that of the moment at which it was kept."""
    stage = of({"a": cached()})
    look(stage, hit(at_ms=NOON_MS - age_ms))
    assert (stage.status("a") == "succeeded") == is_hit


def test_a_failure_is_not_kept_and_the_next_attempt_is_made_without_looking() -> None:
    """What the second attempt gives is kept under the key of the first."""
    stage = of({"a": cached()})
    look(stage, None)
    stage.fail("a")
    stage.settle()
    stage.until_due()
    reuse = Reuse({})
    stage.decide(reuse=reuse)
    assert not reuse.wanted and stage.order("a").attempt == 2
    assert [one for decision in stage.decisions for one in decision.kept] == []
    stage.succeed("a", 2)
    stage.settle()
    (kept,) = [digest for decision in stage.decisions for digest in decision.kept]
    assert kept == stage.events(ev.StepScheduled)[0].cache_key


def test_a_step_that_has_no_room_does_not_look() -> None:
    """And where its queue has none, what was found is asked for again when there is."""
    full = of({"z": tool(), "a": cached(priority=-1)}, limits={"max_parallel": 1})
    full.decide()
    assert full.running() == ["z"] and wanted(full) == []
    stage = of({"a": cached()})
    (digest,) = wanted(stage)
    assert stage.propose(reuse=Reuse({digest: None}), left=dict(LEFT_NONE)) is None
    assert stage.status("a") == "ready"


def test_items_of_a_map_share_a_look_and_their_results() -> None:
    """Sixty-four keys at a time; equal keys are one. Some are hits, some are executed; the order is the list's."""
    steps = {"m": cached("${{ item % 100 }}", foreach="inputs.xs", max_parallel=3)}
    stage = Stage(plan(steps, inputs={"xs": {"type": "array"}}), {"xs": list(range(150))})
    stage.settle(reuse=(reuse := Reuse({})))
    assert len(reuse.wanted) == LOOK_AHEAD
    known: dict[str, Found | None] = {digest: hit(n) for n, digest in enumerate(reuse.wanted)}
    known[list(reuse.wanted)[1]] = None
    stage.decide(reuse=(reuse := Reuse(known)))
    assert stage.running() == ["m[1]"] and stage.run.get("m").fan.cursor == LOOK_AHEAD  # type: ignore[union-attr]  # it is a map
    assert len(reuse.wanted) == 100 - LOOK_AHEAD  # of the rest, 36 are new
    again = Stage(stage.plan, {"xs": [7, 107, 7]})
    again.settle(reuse=(reuse := Reuse({})))
    assert len(reuse.wanted) == 1


def test_items_with_one_key_one_after_the_other_are_executed_once() -> None:
    """What the run itself has just got is at hand without looking."""
    steps = {"m": cached("k", foreach="inputs.xs", max_parallel=1)}
    stage = Stage(plan(steps, inputs={"xs": {"type": "array"}}), {"xs": [1, 2, 3]})
    stage.settle(reuse=(reuse := Reuse({})))
    known = dict.fromkeys(reuse.wanted)
    stage.settle(reuse=Reuse(known))
    stage.succeed("m[0]", "once")
    stage.settle(reuse=Reuse(known))
    assert stage.output("m")["items"] == ["once"] * 3 and list(stage.orders()) == ["m[0]"]
    hits = [event.cached.path for event in stage.events(ev.StepCompleted) if event.cached is not None]
    assert hits == ["m[0]", "m[0]"]


def test_a_key_that_an_executor_evaluates_is_asked_once() -> None:
    """A file's text, say; its answer is kept until the step begins."""
    stage = of({"a": cached("${{ file('x') }}")})
    stage.decide(reuse=Reuse({}))
    assert stage.running() == ["a?cache"]
    stage.succeed("a?cache", "text of x")
    stage.decide(reuse=Reuse({}))
    (digest,) = wanted(stage)
    stage.decide(reuse=Reuse({digest: None}))
    assert "a" in stage.running() and stage.status("a?cache") == ""


def test_a_key_without_a_value_fails_the_step() -> None:
    """As every expression does; and one that is too large says so."""
    stage = of({"a": cached("${{ inputs.k.none }}"), "b": tool(needs=["a"])})
    stage.settle()
    assert stage.run.failure is not None and stage.run.failure.code == "expr_eval"
    stage = of({"a": cached("${{ file('x') }}")})
    stage.decide(reuse=Reuse({}))
    stage.succeed("a?cache", by_reference(b"x" * 70_000))
    stage.settle()
    assert stage.run.failure is not None and stage.run.failure.code == "too_large"


def test_keys_belong_to_a_step_of_a_pipeline_of_a_tenant() -> None:
    """Equal keys of two steps, or of two pipelines, are two."""
    stage = of({"a": cached(), "b": cached()})
    assert len(set(wanted(stage))) == 2
    other = Stage(plan({"a": cached()}, pipeline="other", inputs={"k": {"default": 1}}), {"k": 1})
    assert not {*wanted(other)} & {*wanted(stage)}


def test_a_large_transform_is_looked_for_and_a_small_one_is_evaluated() -> None:
    """What costs less than the look is not looked for."""
    steps = {
        "small": {"transform": "${{ inputs.k }}", "cache": {"key": "s", "ttl": "1h"}},
        "file": {"transform": "${{ file('x') }}", "cache": {"key": "f", "ttl": "1h"}},
    }
    stage = of(steps)
    stage.decide(reuse=(reuse := Reuse({})))
    assert len(reuse.wanted) == 1 and stage.output("small") == 1 and stage.status("file") == "ready"


def test_an_iteration_may_be_a_hit() -> None:
    """Each has its own key; what a hit gives is carried on."""
    steps = {"w": cached("${{ iteration }}", **{"while": "iteration < 2", "max_iterations": 5})}
    stage = of(steps)
    look(stage, hit("zero"), hit("one"))
    assert stage.output("w") == "one" and [event.path for event in stage.events(ev.StepCompleted)] == [
        "w(0)", "w(1)", "w",
    ]  # fmt: skip


def test_the_digest_is_no_secret_of_this_process() -> None:
    """Other schedulers, of other releases, find the same."""
    (digest,) = wanted(of({"a": cached("k")}))
    assert digest == sha256_hex(b'["default","demo","a","k"]')
