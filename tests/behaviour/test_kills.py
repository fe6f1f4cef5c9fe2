"""kill -9 of schedulers and executors inside of loops, groups, children, waits, signals and approvals, at any moment:
what a run gives is what it gives when nothing happens.

In virtual time, so that `make simulate` has hundreds of seeds. Real processes are killed in tests/e2e and tests/chaos.
"""

import functools
import os
import random
import sys
from typing import Any, Final

import pytest

from headrace.contracts import events as ev
from headrace.pipeline.plan import approval_hash
from tests.behaviour.bodies import BESIDE, pipeline
from tests.behaviour.world import Act, Kill, Script, Seen, played

SEEDS: Final = int(os.environ.get("HEADRACE_KILL_SEEDS", "6"))
"""`make simulate` has 300."""
FIRST: Final = int(os.environ.get("HEADRACE_KILL_SEED", "0"))
SCHEDULERS: Final = 2
EXECUTORS: Final = 2
SPAN_S: Final = 2.0
"""A run takes a second and a half undisturbed."""


def do(ms: int, give: Any, **more: Any) -> dict[str, Any]:
    """A call that takes a while."""
    retry = {"attempts": 9, "initial": "50ms"}
    return {"tool": "play.do", "with": {"ms": ms, "give": give, **more}, "retry": retry, "timeout": "20s"}


INSIDE: Final = {
    "a": do(80, "${{ item * 2 }}"),
    "w": {"needs": ["a"], "wait": {"for": "150ms"}},
    "c": {"needs": ["w"], "pipeline": "taker", "with": {"v": "${{ steps.a.output + index }}", "how": {"ms": 60}}},
}
CASE: Final = {"steps": {"y": do(40, "${{ steps.turns.output.n }}")}, "outputs": {"y": "${{ steps.y.output }}"}}
EVERYTHING: Final = {
    "each": {"foreach": [1, 2, 3, 4], "max_parallel": 2, "steps": INSIDE, "outputs": {"v": "${{ steps.c.output.v }}"}},
    "turns": {
        "until": "carry.n > 20",
        "max_iterations": 9,
        "carry": {"n": 1},
        "steps": {"d": do(50, "${{ carry.n * 3 }}"), "n": {"needs": ["d"], "wait": {"for": "30ms"}}},
        "outputs": {"n": "${{ steps.d.output }}"},
    },
    "go": {"needs": ["turns"], "signal": {"name": "go"}},
    "ok": {"needs": ["each"], "approval": {"message": "Publish ${{ size(steps.each.output.items) }}?"}},
    "route": {"switch": [{"when": "steps.turns.output.n > 100", **CASE}, {"default": CASE}]},
    "broken": do(40, 1, fatal=True) | {"fallback": "instead"},
    "instead": do(40, "plan b"),
    "last": do(60, ["${{ steps.ok.output.decision }}", "${{ steps.go.output }}"]) | {"needs": ["broken", "route"]},
}
READ: Final = ("each", "turns", "go", "route", "broken", "last")
OUTPUTS: Final = {name: f"${{{{ steps.{name}.output }}}}" for name in READ}
UNDONE: Final = {
    "one": do(60, 1) | {"compensate": "undo-one"},
    "two": {"needs": ["one"], "steps": {"x": do(60, 2)}, "compensate": "undo-two"},
    "last": do(60, 3, fatal=True) | {"needs": ["two"]},
    "undo-one": do(60, "one"),
    "undo-two": do(60, "two"),
}


def scripts() -> dict[str, Script]:
    """Two runs of everything, and one that fails and is undone. The person answers until somebody has heard."""
    approve = {"step": "ok", "hash": approval_hash({"message": "Publish 4?"}), "by": "ann"}
    acts = (
        Act(0.3, "run-signal", {"name": "go", "payload": {"n": 5}}),
        *(Act(0.5 + 0.5 * number, "run-approve", approve) for number in range(40)),
    )
    whole = Script(pipeline(EVERYTHING, outputs=OUTPUTS), acts=acts, beside=BESIDE)
    return {"r1": whole, "r2": whole, "u1": Script(pipeline(UNDONE, name="undone"))}


def ends(seen: dict[str, Seen]) -> dict[str, Any]:
    """What each run gives: its status, its outputs or its failure, and what was undone in which order."""
    return {
        run: (
            seen[run].status,
            seen[run].outputs if seen[run].status == "completed" else seen[run].failure.code,
            [event.path for event in seen[run].of(ev.CompensationStarted)],
        )
        for run in ("r1", "r2", "u1")
    }


@functools.cache
def undisturbed() -> dict[str, Any]:
    """The same, where nobody dies."""
    found = ends(played(scripts(), schedulers=SCHEDULERS, executors=EXECUTORS))
    status, outputs, _ = found["r1"]
    assert status == "completed"
    assert outputs["each"]["items"] == [{"v": 2}, {"v": 5}, {"v": 8}, {"v": 11}]
    assert (outputs["turns"], outputs["go"], outputs["broken"]) == ({"n": 27}, {"n": 5}, "plan b")
    assert outputs["last"] == ["approved", {"n": 5}]
    assert found["u1"] == ("failed", "refused", ["two", "one"])
    return found


def kills(seed: int) -> tuple[Kill, ...]:
    """One to four of the hosts, at any instant of the runs and soon after."""
    draw = random.Random(f"kills/{seed}")
    hosts = [f"scheduler-{n}" for n in range(SCHEDULERS)] + [f"executor-{n}" for n in range(EXECUTORS)]
    return tuple(
        Kill(draw.uniform(0.0, SPAN_S), draw.choice(hosts), draw.uniform(0.05, 4.0))
        for _ in range(draw.choice((1, 1, 2, 3, 4)))
    )


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_a_kill_inside_of_anything_changes_no_output(seed: int) -> None:
    """Loops, groups, children, waits, signals, approvals, fallbacks and what is undone; a failing seed says itself."""
    killed = kills(seed)
    sys.stdout.write(f"HEADRACE_KILL_SEED={seed} HEADRACE_KILL_SEEDS=1 {killed}\n")
    seen = played(scripts(), schedulers=SCHEDULERS, executors=EXECUTORS, kills=killed)
    assert ends(seen) == undisturbed()
    for run in ("r1", "r2"):
        completed = [event.path for event in seen[run].of(ev.StepCompleted)]
        assert len(completed) == len(set(completed)), "a step is completed once"


def test_the_kills_hit_runs_that_are_under_way() -> None:
    """Otherwise nothing would be shown: most seeds kill somebody between the first step and the last."""
    whole = played(scripts(), schedulers=SCHEDULERS, executors=EXECUTORS)
    took_s = max(whole[run].took_s for run in ("r1", "r2"))
    hit = [seed for seed in range(200) if any(0.05 < kill.at_s < took_s for kill in kills(seed))]
    assert len(hit) > 100
