"""What each key of the language does when a run meets it, for the keys that are no modifiers of steps: scripts, and
what must be seen of their runs."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from headrace.contracts import events as ev
from headrace.contracts.instants import rfc3339
from tests.behaviour.bodies import BESIDE, expr, pipeline
from tests.behaviour.world import Act, Script, Seen
from tests.simulation.host import EPOCH_MS

Runs = Mapping[str, Seen]


@dataclass(slots=True, frozen=True)
class KeyCase:
    """Scripts by name, and what must be seen of them: `judge(mine, all)`, where `all` are all runs of the world."""

    scripts: Mapping[str, Script]
    judge: Callable[[Runs, Runs], None]


def gives(expected: Any, text: str, **more: Any) -> KeyCase:
    """A run with these outputs."""

    def judge(mine: Runs, all_: Runs) -> None:
        del all_
        assert mine["it"].outputs == expected

    return KeyCase({"it": Script(text, **more)}, judge)


def fails(code: str, text: str, **more: Any) -> KeyCase:
    """A run that fails with this code."""

    def judge(mine: Runs, all_: Runs) -> None:
        del all_
        assert mine["it"].failure.code == code

    return KeyCase({"it": Script(text, **more)}, judge)


def do(**args: Any) -> dict[str, Any]:
    """A step that calls `play.do`."""
    return {"tool": "play.do", "with": args}


def started(all_: Runs, name: str) -> list[Seen]:
    """The runs of a pipeline, in order."""
    runs = [seen for seen in all_.values() if seen.messages and seen.messages[0].pipeline == name]
    return sorted(runs, key=lambda seen: seen.began_s)


# --- the file --------------------------------------------------------------------------------------------------------

OUT: Final = {"outputs": {"v": "${{ steps.s.output }}"}}


def _name() -> KeyCase:
    def judge(mine: Runs, all_: Runs) -> None:
        (run,) = started(all_, "a-name")
        assert run is mine["it"]

    return KeyCase({"it": Script(pipeline({"s": do()}, name="a-name"))}, judge)


def _inputs() -> KeyCase:
    """Checked, completed, and refused with every reason before anything is written."""
    text = json.dumps(
        {
            "pipeline": "p",
            "inputs": {"n": {"type": "integer"}, "d": {"type": "integer", "default": 4}},
            "outputs": {"v": "${{ inputs.n + inputs.d }}"},
            "steps": {"s": do()},
        }
    )

    def judge(mine: Runs, all_: Runs) -> None:
        assert mine["fits"].outputs == {"v": 7}
        for name in ("wrong", "missing", "unknown"):
            assert not mine[name].messages
            assert isinstance(mine[name].outcomes[0], ev.CommandRefused)

    scripts = {"fits": {"n": 3}, "wrong": {"n": "x"}, "missing": {}, "unknown": {"n": 1, "other": 2}}
    return KeyCase({name: Script(text, inputs) for name, inputs in scripts.items()}, judge)


def _workspace() -> KeyCase:
    """Files of one step are there for the next, and not for another run."""

    def text(value: bool) -> str:
        write = {"tool": "fs.write", "with": {"path": "a.txt", "text": "hello"}}
        read = {"needs": ["w"], "tool": "fs.read", "with": {"path": "a.txt"}}
        return pipeline({"w": write, "s": read}, workspace=value, outputs={"v": "${{ steps.s.output.content }}"})

    def judge(mine: Runs, all_: Runs) -> None:
        del all_
        assert mine["yes"].outputs == {"v": "hello"}
        assert mine["other"].failure.code == "not_found"

    other = pipeline({"s": {"tool": "fs.read", "with": {"path": "a.txt"}}}, workspace=True)
    return KeyCase({"yes": Script(text(True)), "other": Script(other)}, judge)


def _event(key: str) -> KeyCase:
    """An event starts what is armed for it, if its condition holds, with inputs made from it."""
    name = f"on-{key}"
    trigger = {"event": f"pushed-{key}", "when": "event.data.go", "inputs": {"n": "${{ event.data.n + 1 }}"}}
    text = json.dumps(
        {
            "pipeline": name,
            "triggers": [trigger],
            "inputs": {"n": {"type": "integer"}},
            "outputs": {"v": "${{ inputs.n }}"},
            "steps": {"s": do()},
        }
    )
    acts = tuple(
        Act(1.0 + number, f"hr.trig.default.pushed-{key}", {"go": go, "n": number})
        for number, go in enumerate((True, False, True))
    )

    def judge(mine: Runs, all_: Runs) -> None:
        del mine
        assert [run.outputs for run in started(all_, name)] == [{"v": 1}, {"v": 3}]

    return KeyCase({"it": Script(text, acts=acts, starts=False)}, judge)


def _cron() -> KeyCase:
    """Each minute, once, when it has come."""
    text = json.dumps(
        {
            "pipeline": "each-minute",
            "triggers": [{"cron": "* * * * *", "inputs": {"at": "${{ event.due }}"}}],
            "inputs": {"at": {}},
            "outputs": {"at": "${{ inputs.at }}"},
            "steps": {"s": do()},
        }
    )

    def judge(mine: Runs, all_: Runs) -> None:
        del mine
        runs = started(all_, "each-minute")
        minute_ms = 60_000
        first_ms = (EPOCH_MS // minute_ms + 1) * minute_ms
        due = [run.outputs["at"] for run in runs]
        assert len(due) >= 1
        assert due == [rfc3339(first_ms + number * minute_ms) for number in range(len(runs))]
        assert all(run.began_s * 1000 + EPOCH_MS >= first_ms + n * minute_ms - 300 for n, run in enumerate(runs))

    return KeyCase({"it": Script(text, acts=(Act(66.0, "hr.trig.default.nothing"),), starts=False)}, judge)


def _default(key: str) -> KeyCase:
    """What stands in `defaults` counts for every step of its kinds that says nothing else."""
    slow, own = do(hang=9), do(hang=9)
    defaults: dict[str, Any] = {"retry": {"attempts": 1}}
    match key:
        case "timeout":
            defaults["timeout"] = "200ms"
            own |= {"timeout": "600ms"}
        case "deadline":
            defaults |= {"deadline": "200ms"}
            own |= {"deadline": "600ms"}
        case "retry":
            defaults = {"retry": {"attempts": 3, "initial": "1ms"}}
            slow, own = do(fail=9), do(fail=9) | {"retry": {"attempts": 2, "initial": "1ms"}}
    steps = {"slow": slow | {"on_error": "continue"}, "own": own | {"on_error": "continue"}}

    def judge(mine: Runs, all_: Runs) -> None:
        del all_
        run = mine["it"]
        if key == "retry":
            assert (len(run.called("slow")), len(run.called("own"))) == (3, 2)
            return
        assert 0.2 <= run.at_s(ev.StepFailed, "slow") < 0.6 <= run.at_s(ev.StepFailed, "own") < 1.6

    return KeyCase({"it": Script(pipeline(steps, defaults=defaults))}, judge)


def _default_model() -> KeyCase:
    steps = {
        "a": {"llm": {"prompt": "x", "allow_unpriced": True}},
        "b": {"llm": {"prompt": "x", "model": "echo/echo"}},
    }
    outputs = {name: f"${{{{ steps.{name}.output.model }}}}" for name in steps}
    return gives(
        {"a": "play/m", "b": "echo/echo"}, pipeline(steps, defaults={"model": "play/m"}, outputs=outputs)
    )  # fmt: skip


def _run_deadline() -> KeyCase:
    def judge(mine: Runs, all_: Runs) -> None:
        del all_
        assert mine["it"].failure.code == "deadline_exceeded"
        assert 0.5 <= mine["it"].took_s <= 1.5

    return KeyCase({"it": Script(pipeline({"s": do(hang=9)}, limits={"deadline": "500ms"}))}, judge)


def _run_parallel() -> KeyCase:
    def judge(mine: Runs, all_: Runs) -> None:
        del all_
        assert {name: run.in_flight_max() for name, run in mine.items()} == {"p1": 1, "p3": 3, "p16": 7}

    steps = {f"s{number}": do(ms=50) for number in range(7)}
    limits = (1, 3, 16)
    return KeyCase({f"p{n}": Script(pipeline(steps, limits={"max_parallel": n})) for n in limits}, judge)


def _concurrency(key: str, on_excess: str = "queue", limit: int = 1) -> KeyCase:
    """Three runs of one key and one of another, at once."""
    rest = do(ms=300)
    limits = {"concurrency": {"key": f"{key}-${{{{ inputs.x }}}}", "max": limit, "on_excess": on_excess}}
    text = pipeline({"s": rest}, name=f"limited-{key}", limits=limits)

    def judge(mine: Runs, all_: Runs) -> None:
        del all_
        same = [mine[name] for name in ("one", "two", "three")]
        edges = [(call.began_s, call.ended_s or 1e9) for run in same for call in run.calls]
        most = max(sum(a <= at < b for a, b in edges) for at, _ in edges)
        assert mine["other"].status == "completed" and mine["other"].took_s < 0.5
        ends = sorted(run.status for run in same)
        match on_excess:
            case "queue":
                assert ends == ["completed"] * 3 and most == limit
            case "reject":
                assert ends == ["completed", "failed", "failed"]
                assert {run.failure.code for run in same if run.status == "failed"} == {"concurrency_limit"}
            case "cancel_oldest":
                assert ends == ["cancelled", "cancelled", "completed"]

    return KeyCase({name: Script(text, {"x": 1 if name != "other" else 2, "zero": 0})
                    for name in ("one", "two", "three", "other")}, judge)  # fmt: skip


def _waits_between(retry: Mapping[str, Any], bounds_ms: list[int]) -> KeyCase:
    """The wait before each further attempt is drawn from zero to its bound, and is what really passes."""

    def judge(mine: Runs, all_: Runs) -> None:
        del all_
        run = mine["it"]
        delays = [one.delay_ms for one in run.of(ev.TimerSet, "s")]
        assert len(delays) == len(bounds_ms) and all(0 <= d <= b for d, b in zip(delays, bounds_ms, strict=True))
        assert any(delays)
        gaps = [b.began_s - a.ended_s for a, b in zip(run.calls, run.calls[1:], strict=False)]
        assert all(d / 1000 <= gap <= d / 1000 + 0.2 for d, gap in zip(delays, gaps, strict=True))

    text = pipeline({"s": do(fail=9) | {"retry": {"attempts": len(bounds_ms) + 1, **retry}}})
    return KeyCase({"it": Script(text)}, judge)


def _retried_codes() -> KeyCase:
    def judge(mine: Runs, all_: Runs) -> None:
        del all_
        assert {name: len(run.calls) for name, run in mine.items()} == {"named": 3, "other": 1}

    def text(code: str) -> Script:
        retry = {"attempts": 3, "initial": "1ms", "on": ["rate_limited"]}
        return Script(pipeline({"s": do(fail=9, code=code) | {"retry": retry}}))

    return KeyCase({"named": text("rate_limited"), "other": text("unavailable")}, judge)


# --- kinds -----------------------------------------------------------------------------------------------------------


def _switch() -> KeyCase:
    """The first case that holds, `default` where none does, its outputs; the steps of no other."""
    cases = [
        {"when": "inputs.x > 10", "steps": {"a": do(give="big")}, "outputs": {"o": "${{ steps.a.output }}"}},
        {"when": "inputs.x > 5", "steps": {"b": do(give="mid")}, "outputs": {"o": "${{ steps.b.output }}"}},
        {"default": {"steps": {"c": do(give="low")}, "outputs": {"o": "${{ steps.c.output }}"}}},
    ]
    text = pipeline({"s": {"switch": cases}}, **OUT)

    def judge(mine: Runs, all_: Runs) -> None:
        del all_
        for name, said in (("x20", "big"), ("x7", "mid"), ("x1", "low")):
            assert mine[name].outputs == {"v": {"o": said}}
            assert len(mine[name].calls) == 1

    return KeyCase({f"x{x}": Script(text, {"x": x, "zero": 0}) for x in (20, 7, 1)}, judge)


def _lasts(wait: Mapping[str, Any], low_s: float, high_s: float) -> KeyCase:
    def judge(mine: Runs, all_: Runs) -> None:
        del all_
        assert low_s <= mine["it"].at_s(ev.StepCompleted, "s") <= high_s

    return KeyCase({"it": Script(pipeline({"s": {"wait": wait}}), {"x": 7, "zero": 0})}, judge)


def _until() -> KeyCase:
    def judge(mine: Runs, all_: Runs) -> None:
        del all_
        run = mine["it"]
        assert 9.9 <= run.began_s + run.at_s(ev.StepCompleted, "s") <= 10.3
        assert mine["past"].at_s(ev.StepCompleted, "s") <= 0.3

    soon, past = rfc3339(EPOCH_MS + 10_000), "2020-01-31T06:00:00Z"
    texts = {"it": {"until": expr("inputs.x")}, "past": {"until": past}}
    return KeyCase({n: Script(pipeline({"s": {"wait": w}}), {"x": soon, "zero": 0}) for n, w in texts.items()}, judge)


def _signal() -> KeyCase:
    """Its own name alone, a payload that fits; sent before the step waits, or while it does."""
    steps = {"s": {"signal": {"name": "go", "schema": {"type": "object", "required": ["n"]}}}}
    sent = [("other", {"n": 1}), ("go", {"m": 1}), ("go", {"n": 2}), ("go", {"n": 3})]
    acts = tuple(Act(0.2 * (i + 1), "run-signal", {"name": n, "payload": p}) for i, (n, p) in enumerate(sent))

    def judge(mine: Runs, all_: Runs) -> None:
        del all_
        run = mine["it"]
        assert run.outputs == {"v": {"n": 2}}
        kinds = [isinstance(one, ev.CommandAccepted) for one in run.outcomes]
        assert kinds == [False, False, True, False], run.outcomes

    return KeyCase({"it": Script(pipeline(steps, **OUT), acts=acts)}, judge)


def _signal_timeout() -> KeyCase:
    def judge(mine: Runs, all_: Runs) -> None:
        del all_
        assert (mine["fail"].step("s"), mine["skip"].step("s")) == ("failed", "skipped")
        assert mine["fail"].error("s") == "timeout"
        assert (mine["fail"].status, mine["skip"].status) == ("failed", "completed")
        for run in mine.values():
            assert 0.3 <= run.took_s <= 1.3

    def text(how: str) -> Script:
        return Script(pipeline({"s": {"signal": {"name": "go", "timeout": "300ms", "on_timeout": how}}}))

    return KeyCase({how: text(how) for how in ("fail", "skip")}, judge)


def _child_input() -> KeyCase:
    text = pipeline({"s": {"pipeline": "taker", "with": {"v": expr("inputs.x + 1")}}}, **OUT)
    return gives({"v": {"v": 8}}, text, inputs={"x": 7, "zero": 0}, beside=BESIDE)


# --- transform -------------------------------------------------------------------------------------------------------

ITEMS: Final = [
    {"k": "b", "n": 3, "z": None},
    {"k": "a", "n": 1, "z": 1},
    {"k": "b", "n": 2, "z": 2},
    {"k": "c", "n": 3, "z": None},
]


def operated(expected: Any, **operations: Any) -> KeyCase:
    """What a transform over `ITEMS` gives."""
    text = pipeline({"s": {"transform": {"from": "inputs.x", **operations}}}, **OUT)
    return gives({"v": expected}, text, inputs={"x": ITEMS, "zero": 0})


def joined(expected: list[Any], **join: Any) -> KeyCase:
    """How many partners each item of `ITEMS` that stays has, under the name given."""
    other = [{"k": "a", "w": 1}, {"k": "b", "w": 2}, {"k": "b", "w": 3}]
    name = join.get("as", "joined")
    operations = {"join": {"with": expr(str(other).replace("'", '"')), "on": "k", **join}}
    select = {"k": "${{ item.k }}", "ws": f"${{{{ item.{name}.map(j, j.w) }}}}"}
    return operated(expected, **operations, select=select)


# --- models ----------------------------------------------------------------------------------------------------------


def asked(expected: Mapping[str, Any], **llm: Any) -> KeyCase:
    """What the provider `play` was asked."""

    def judge(mine: Runs, all_: Runs) -> None:
        del all_
        (call,) = mine["it"].calls
        assert {key: call.args[key] for key in expected} == expected

    spec = {"model": "play/m", "allow_unpriced": True, **({} if "messages" in llm else {"prompt": "hello"}), **llm}
    return KeyCase({"it": Script(pipeline({"s": {"llm": spec}}), {"x": 7, "zero": 0})}, judge)


def _cache_key() -> KeyCase:
    """Equal keys share a result, others do not."""
    step = do(give="${{ item }}") | {"foreach": [1, 2, 1], "max_parallel": 1}

    def judge(mine: Runs, all_: Runs) -> None:
        del all_
        assert mine["it"].outputs == {"v": [1, 2, 1]}
        assert [call.path for call in mine["it"].calls] == ["s[0]", "s[1]"]
        (hit,) = [one for one in mine["it"].of(ev.StepCompleted) if one.cached is not None]
        assert (hit.path, hit.cached.path) == ("s[2]", "s[0]")

    text = pipeline(
        {"s": step | {"cache": {"key": ["key", "${{ item }}"], "ttl": "1h"}}},
        outputs={"v": "${{ steps.s.output.items }}"},
    )
    return KeyCase({"it": Script(text)}, judge)


def _cache_ttl() -> KeyCase:
    """Two seconds later a result of one second is not used any more, one of an hour is."""

    def script(ttl: str) -> Script:
        inner = {
            "call": do() | {"cache": {"key": ["ttl", ttl], "ttl": ttl}},
            "rest": {"needs": ["call"], "wait": {"for": "2s"}},
        }
        return Script(pipeline({"s": {"steps": inner, "while": "iteration < 2", "max_iterations": 3}}))

    def judge(mine: Runs, all_: Runs) -> None:
        del all_
        assert {name: len(seen.calls) for name, seen in mine.items()} == {"short": 2, "long": 1}

    return KeyCase({"short": script("1s"), "long": script("1h")}, judge)


CASES: Final[Mapping[str, Callable[[], KeyCase]]] = {
    "pipeline.pipeline": _name,
    "pipeline.inputs": _inputs,
    "pipeline.outputs": lambda: gives(
        {"a": 1, "b": {"deep": ["x7"]}},
        pipeline({"s": do()}, outputs={"a": 1, "b": {"deep": ["x${{ inputs.x }}"]}}),
        inputs={"x": 7, "zero": 0},
    ),
    "pipeline.vars": lambda: gives(
        {"v": [1, "a"]}, pipeline({"s": do()}, vars={"c": [1, "a"]}, outputs={"v": "${{ vars.c }}"})
    ),
    "pipeline.labels": lambda: gives(
        {"v": "core"},
        pipeline({"s": do()}, labels={"team": "core"}, outputs={"v": "${{ run.labels.team }}"}),
    ),
    "pipeline.steps": lambda: gives({"v": 3}, pipeline({"s": do(give=3)}, **OUT)),
    "pipeline.workspace": _workspace,
    "trigger.event": lambda: _event("a"),
    "trigger.when": lambda: _event("b"),
    "trigger.inputs": lambda: _event("c"),
    "trigger.cron": _cron,
    "defaults.timeout": lambda: _default("timeout"),
    "defaults.deadline": lambda: _default("deadline"),
    "defaults.retry": lambda: _default("retry"),
    "defaults.model": _default_model,
    "limits.deadline": _run_deadline,
    "limits.max_parallel": _run_parallel,
    "concurrency.key": lambda: _concurrency("key"),
    "concurrency.max": lambda: _concurrency("max", limit=2),
    "cache.key": _cache_key,
    "cache.ttl": _cache_ttl,
    "concurrency.on_excess=queue": lambda: _concurrency("queue"),
    "concurrency.on_excess=reject": lambda: _concurrency("reject", "reject"),
    "concurrency.on_excess=cancel_oldest": lambda: _concurrency("oldest", "cancel_oldest"),
    "retry.initial": lambda: _waits_between({"initial": "400ms"}, [400, 800, 1600]),
    "retry.max": lambda: _waits_between({"initial": "400ms", "max": "500ms"}, [400, 500, 500]),
    "retry.on": _retried_codes,
    "case.when": _switch,
    "wait.for": lambda: _lasts({"for": "${{ string(inputs.x) + '00ms' }}"}, 0.7, 1.0),
    "wait.until": _until,
    "signal.name": _signal,
    "signal.timeout": _signal_timeout,
    "step.pipeline": _child_input,
    "operations.from": lambda: operated(ITEMS),
    "operations.where": lambda: operated([ITEMS[1]], where="item.n < 3 && index < 2"),
    "operations.select": lambda: operated(
        [["b", 0], ["a", 1], ["b", 2], ["c", 3]], select=["${{ item.k }}", "${{ index }}"]
    ),
    "operations.unique": lambda: operated([ITEMS[0], ITEMS[1], ITEMS[3]], unique="k"),
    "operations.group_by": lambda: operated(
        [{"key": 3, "items": [ITEMS[0], ITEMS[3]]}, {"key": 1, "items": [ITEMS[1]]}, {"key": 2, "items": [ITEMS[2]]}],
        group_by="n",
    ),
    "operations.aggregate": lambda: operated(
        [{"key": "b", "t": 5}, {"key": "a", "t": 1}, {"key": "c", "t": 3}],
        group_by="k",
        aggregate={"t": {"sum": "n"}},
    ),
    "operations.sort_by": lambda: operated([ITEMS[0], ITEMS[3], ITEMS[2], ITEMS[1]], sort_by="-n"),
    "operations.limit": lambda: operated(ITEMS[:2], limit="${{ size(inputs.x) - 2 }}"),
    "operations.join": lambda: joined([{"k": "b", "ws": [2, 3]}, {"k": "a", "ws": [1]}, {"k": "b", "ws": [2, 3]}]),
    "join.with": lambda: joined([{"k": "c", "ws": [9]}], **{"with": [{"k": "c", "w": 9}]}),
    "join.on": lambda: joined(
        [{"k": "b", "ws": [8]}, {"k": "c", "ws": [8]}], **{"on": "n", "with": [{"n": 3, "w": 8}]}
    ),
    "join.as": lambda: joined([{"k": "a", "ws": [5]}], **{"as": "pals", "with": [{"k": "a", "w": 5}]}),
    "join.kind": lambda: joined(
        [{"k": "b", "ws": [2, 3]}, {"k": "a", "ws": [1]}, {"k": "b", "ws": [2, 3]}, {"k": "c", "ws": []}], kind="left"
    ),
    "aggregate.count": lambda: operated({"v": 2}, aggregate={"v": {"count": "z"}}),
    "aggregate.sum": lambda: operated({"v": 9}, aggregate={"v": {"sum": "n"}}),
    "aggregate.avg": lambda: operated({"v": 2.25}, aggregate={"v": {"avg": "n"}}),
    "aggregate.min": lambda: operated({"v": 1}, aggregate={"v": {"min": "n"}}),
    "aggregate.max": lambda: operated({"v": 3}, aggregate={"v": {"max": "n"}}),
    "llm.model": lambda: asked({"model": "m7"}, model="play/m${{ inputs.x }}"),
    "llm.prompt": lambda: asked({"messages": [["user", "say 7"]]}, prompt="say ${{ inputs.x }}"),
    "llm.system": lambda: asked({"messages": [["system", "be 7"], ["user", "hello"]]}, system="be ${{ inputs.x }}"),
    "llm.messages": lambda: asked(
        {"messages": [["system", "a"], ["user", "b7"], ["assistant", "c"], ["user", "d"]]},
        messages=[
            {"role": "system", "content": "a"},
            {"role": "user", "content": "b${{ inputs.x }}"},
            {"role": "assistant", "content": "c"},
            {"role": "user", "content": "d"},
        ],
    ),
    "llm.max_tokens": lambda: asked({"max_tokens": 70}, max_tokens="${{ inputs.x * 10 }}"),
    "llm.temperature": lambda: asked({"temperature": 0.5}, temperature=0.5),
    "llm.options": lambda: asked({"options": {"seed": 7, "deep": {"a": [1]}}},
                                 options={"seed": "${{ inputs.x }}", "deep": {"a": [1]}}),
}  # fmt: skip
"""Key (`record.key`, or `record.key=value` of a choice) → what it does."""
