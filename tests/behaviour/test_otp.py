"""What the review found in nested runs (S11), bounds (N3), size (N4), deadlines of children (N12), paths (N17) and
control (N20), asked of the real services in virtual time."""

import functools
import json
import random
from pathlib import Path
from typing import Any, Final

import pytest

from headrace.contracts import events as ev
from tests.behaviour.bodies import BESIDE, pipeline
from tests.behaviour.cases import do
from tests.behaviour.test_kills import EVERYTHING, OUTPUTS, scripts
from tests.behaviour.world import Act, Kill, Script, Seen, most_at_once, played

NESTED: Final = 200
"""Runs with children and grandchildren at once; `make simulate` has thousands of runs."""
LEAF: Final = json.dumps(
    {"pipeline": "leaf", "inputs": {"v": {}}, "outputs": {"v": "${{ steps.s.output }}"},
     "steps": {"s": do(give="${{ inputs.v }}", ms=20)}}
)  # fmt: skip
MIDDLE: Final = json.dumps(
    {"pipeline": "middle", "inputs": {"v": {}}, "outputs": {"v": "${{ steps.s.output.v + 1 }}"},
     "steps": {"s": {"pipeline": "leaf", "with": {"v": "${{ inputs.v }}"}}}}
)  # fmt: skip
TOP: Final = pipeline(
    {"s": {"pipeline": "middle", "with": {"v": "${{ inputs.x }}"}}},
    name="top",
    outputs={"v": "${{ steps.s.output.v }}"},
)
CALLS_ITSELF: Final = json.dumps({"pipeline": "circle", "steps": {"s": {"pipeline": "circle"}}})


def test_otp_s11_what_is_allowed_depends_on_a_runs_own_tree() -> None:
    """Two hundred nested runs at once through the same processes, and before, among and after them one that calls
    itself: it fails at the same depth each time, with as many runs, and the others notice nothing."""
    many = {f"n{number}": Script(TOP, {"x": number, "zero": 0}, beside=(LEAF, MIDDLE)) for number in range(NESTED)}
    late = Act(3.0, "run-start", {"pipeline": "circle", "runid": "late"})
    circles = {"early": Script(CALLS_ITSELF, acts=(late,))}
    seen = played({**circles, **many})
    for number in range(NESTED):
        assert seen[f"n{number}"].outputs == {"v": number + 1}
    alone = played({"alone": Script(CALLS_ITSELF)})
    verdicts = []
    for root, runs in (("early", seen), ("late", seen), ("alone", alone)):
        tree = [one for run, one in runs.items() if run == root or run.startswith(f"{root}_")]
        created = [one.of(ev.RunCreated)[0] for one in tree]
        assert sorted(one.depth for one in created) == list(range(1, len(tree) + 1)), "the depth is in the run's events"
        codes = [one.error("s") for one in tree]
        verdicts.append((len(tree), codes.count("nesting_limit"), {one.status for one in tree}))
    assert verdicts == [(10, 10, {"failed"})] * 3, "each says why the one inside it failed"


def test_otp_s11_a_childs_outputs_are_taken_exactly_once_whenever_the_scheduler_dies() -> None:
    """Killed at a dozen instants around the child's end."""
    whole = played({"r": Script(TOP, beside=(LEAF, MIDDLE))})["r"]
    end_s = whole.at_s(ev.ChildEnded)
    for number in range(12):
        kill = Kill(max(0.0, end_s - 0.012 + number * 0.002), "scheduler-0", 0.5)
        seen = played({"r": Script(TOP, beside=(LEAF, MIDDLE))}, kills=(kill,))["r"]
        assert len(seen.of(ev.ChildEnded)) == 1, kill
        assert seen.outputs == whole.outputs == {"v": 8}


@functools.cache
def windows() -> dict[str, Seen]:
    """Every number of items with every bound, side by side; an executor has room for all."""
    each = {"foreach": "split(inputs.x, '')", "max_parallel": 0, **do(ms=30, give="${{ index }}")}
    found: dict[str, Script] = {}
    for n, p in [(n, p) for n in (1, 10, 11) for p in (1, 3, 10)] + [(500, 10), (501, 10), (501, 3)]:
        text = pipeline({"s": each | {"max_parallel": p}}, limits={"max_parallel": 10_000}, name=f"w{p}")
        found[f"n{n}-p{p}"] = Script(text, {"x": "x" * n, "zero": 0})
    return played(found, executors=4)


@pytest.mark.parametrize(
    ("n", "p"), [(n, p) for n in (1, 10, 11) for p in (1, 3, 10)] + [(500, 10), (501, 10), (501, 3)]
)
def test_otp_n3_calls_in_flight_at_the_callee_are_min_of_items_and_max_parallel(n: int, p: int) -> None:
    """Never more, and so many at some instant. 10,000 items are asked about in the scheduler's own tests."""
    seen = windows()[f"n{n}-p{p}"]
    assert len(seen.calls) == n
    assert most_at_once(seen.calls) == min(n, p)


@pytest.mark.parametrize("around", [0, 1, 8, 16, 64])
def test_otp_n4_one_item_more_is_one_result_more_and_nothing_else(around: int) -> None:
    """n and n + 1 items around every bound: the results of the n are the same, in order, and the counts say so."""
    found = {}
    for n in (around, around + 1):
        text = pipeline({"s": {"foreach": "split(inputs.x, '')", **do(give="${{ item + string(index) }}")}})
        found[f"n{n}"] = Script(text, {"x": "abcdefgh"[: 1 + around % 8] * (n // (1 + around % 8) + 1), "zero": 0})
    texts = {run: script.inputs["x"] for run, script in found.items()}
    for run in texts:
        n = int(run[1:])
        found[run] = Script(found[run].text, {"x": texts[run][:n], "zero": 0})
    seen = played(found)
    shorter, longer = (seen[f"n{n}"].output("s") for n in (around, around + 1))
    assert longer["items"][:around] == shorter["items"]
    assert [one["counts"]["succeeded"] for one in (shorter, longer)] == [around, around + 1]
    assert shorter["failed"] == longer["failed"] == []


def test_otp_n12_a_child_over_its_limit_is_cancelled_with_its_own_children(tmp_path: Path) -> None:
    """At the limit and not later than a second after; nothing outside of the runs' own folders is made or removed."""
    canary = tmp_path / "canary.txt"
    canary.write_text("here")
    leaf = json.dumps({"pipeline": "slow", "workspace": True, "steps": {
        "w": {"tool": "fs.write", "with": {"path": "a.txt", "text": "x"}},
        "s": {"needs": ["w"], **do(hang=9)}}})  # fmt: skip
    middle = json.dumps({"pipeline": "between", "steps": {"s": {"pipeline": "slow"}}})
    top = pipeline({
        "s": {"pipeline": "between", "timeout": "1s", "retry": {"attempts": 1}, "on_error": "continue"},
        "t": {"needs": ["s"], "tool": "fs.write", "with": {"path": "own.txt", "text": "mine"}},
    }, workspace=True)  # fmt: skip
    seen = played({"r": Script(top, beside=(leaf, middle))}, folder=tmp_path)
    parent, below = seen["r"], [one for run, one in seen.items() if run != "r"]
    assert parent.error("s") == "timeout"
    assert 0.9 <= parent.at_s(ev.StepFailed, "s") <= 2.0
    assert len(below) == 2
    assert all(one.status == "cancelled" or one.failure.code == "deadline_exceeded" for one in below)
    limit_s = parent.began_s + 1.0
    assert all(one.events[-1][0] <= limit_s + 1.0 for one in below)
    assert parent.step("t") == "succeeded" and parent.status == "completed"
    made = {path.relative_to(tmp_path).parts for path in tmp_path.rglob("*") if path.is_file()}
    inside = {parts for parts in made if parts[:2] == ("workspaces", "default") and parts[2] in seen}
    assert made - inside == {("canary.txt",)}
    assert ("workspaces", "default", "r", "own.txt") in inside, "the parent's own folder outlives its child"


PARTS: Final = (
    "..",
    ".",
    "a",
    "",
    "...",
    "\u2024\u2024",
    "．．",
    "%2e%2e",
    "..\\",
    "link",
    "out",
    "a\u0000b",
    "~",
    "C:",
)


def test_otp_n17_no_path_leads_out_of_a_runs_workspace(tmp_path: Path) -> None:
    """Three hundred paths of all sorts, written, read and deleted by a run: what lies outside is never touched."""
    outside = tmp_path / "outside"
    outside.mkdir()
    secret = outside / "secret.txt"
    secret.write_text("secret")
    draw = random.Random(17)
    paths = ["../../../../outside/secret.txt", str(secret), "/etc/passwd", f"a/../../../../../{secret}"]
    paths += ["/".join(draw.choices(PARTS, k=draw.randrange(1, 7))) + "/secret.txt" for _ in range(300)]
    steps: dict[str, Any] = {}
    for tool, more in (("write", {"text": "hacked"}), ("read", {}), ("delete", {}), ("append", {"text": "x"})):
        steps[tool] = {
            "foreach": "inputs.x", "on_item_error": "continue", "tool": f"fs.{tool}",
            "with": {"path": "${{ item }}", **more}, "retry": {"attempts": 1},
        }  # fmt: skip
    before = sorted(path for path in Path("/etc").iterdir() if path.name.startswith("passwd"))
    seen = played({"r": Script(pipeline(steps, workspace=True), {"x": paths})}, folder=tmp_path / "data")["r"]
    assert seen.status == "completed"
    assert secret.read_text() == "secret"
    assert sorted(path.name for path in outside.iterdir()) == ["secret.txt"]
    assert sorted(path for path in Path("/etc").iterdir() if path.name.startswith("passwd")) == before
    home = tmp_path / "data" / "workspaces" / "default" / "r"
    assert all(home in path.parents or path == home or path in home.parents for path in (tmp_path / "data").rglob("*"))
    read = seen.output("read")
    assert "secret" not in json.dumps([item and item["content"] for item in read["items"]])
    assert {one["code"] for one in read["failed"]} <= {"path_denied", "path_invalid", "not_found"}
    assert read["counts"]["failed"] >= 4


def test_otp_n20_a_run_is_cancelled_at_any_instant_within_two_seconds() -> None:
    """At twenty instants of a run of everything: `run-cancelled`, and no further call begins."""
    whole = scripts()["r1"]
    at = {f"c{number}": 0.02 + number * 0.07 for number in range(20)}
    seen = played(
        {
            run: Script(whole.text, acts=(Act(at_s, "run-cancel"), *whole.acts), beside=BESIDE)
            for run, at_s in at.items()
        }
    )
    cancelled = 0
    for run in at:
        own = [one for other, one in seen.items() if other == run or other.startswith(f"{run}_")]
        if seen[run].status == "completed":
            continue  # it had ended before it was asked
        cancelled += 1
        assert seen[run].status == "cancelled", seen[run].end
        (asked,) = seen[run].of(ev.RunCancelling) or [None]
        asked_s = seen[run].at_s(ev.RunCancelling) if asked is not None else seen[run].took_s
        assert seen[run].took_s - asked_s <= 2.0
        last_s = seen[run].began_s + asked_s + 0.1
        assert all(call.began_s <= last_s for one in own for call in one.calls), "a call began after the cancellation"
    assert cancelled >= 15


def test_otp_n20_a_pause_keeps_what_there_is_and_independent_branches_merge_alike() -> None:
    """Paused in the middle and resumed: the same outputs as undisturbed, each step completed once; the branches ran at
    the same time."""
    whole = scripts()["r1"]
    pauses = {f"p{number}": 0.1 + 0.15 * number for number in range(6)}
    paused = {
        run: Script(
            whole.text, acts=(Act(at_s, "run-pause"), Act(at_s + 1.5, "run-resume"), *whole.acts), beside=BESIDE
        )
        for run, at_s in pauses.items()
    }
    seen = played({"plain": whole, **paused})
    for run in pauses:
        assert seen[run].outputs == seen["plain"].outputs
        done = [event.path for event in seen[run].of(ev.StepCompleted)]
        assert len(done) == len(set(done))
        assert seen[run].of(ev.RunPaused), run
    calls = [call for one in seen.values() if one.id == "plain" for call in one.calls]
    assert most_at_once(calls) >= 2
    assert set(EVERYTHING) >= set(OUTPUTS)
