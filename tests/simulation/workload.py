"""Random small pipelines, and what is asked of the engine: starts, cancels, pauses, resumes.

Pipelines come from a pool, so that each is compiled once however many seeds run it.
"""

import functools
import random
from dataclasses import dataclass
from typing import Any, Final

from headrace.contracts.canonical import sha256_hex
from headrace.pipeline.definitions import Definition

POOL: Final = 48
HELD: Final = 24
"""Of pipelines with steps inside of steps."""
STEPS_MAX: Final = 6
CHAIN: Final = 20
"""Steps of the chain that owners are killed in the middle of."""
RIVALS: Final = 0.06
"""Of runs whose id a second start wants."""
FORKS: Final = 0.25
"""Of runs that another one goes on from; and of those in turn."""
FORKS_MAX: Final = 3
CALL: Final = "sim.call"
"""The scripted tool: an external call that takes `ms` and fails in its first `fail` attempts."""


@dataclass(slots=True, frozen=True)
class Asked:
    """A command, and when it is sent."""

    at_s: float
    verb: str
    run: str
    pipeline: str = ""
    inputs: tuple[tuple[str, int], ...] = ()
    step: str = ""
    """Of a rerun or a fork: where; the new run is `new_id`."""
    is_rival: bool = False
    """A start under a run id that another start has, too: one of the two is refused."""

    @property
    def new_id(self) -> str:
        """The run that a rerun or a fork starts."""
        return f"{self.run}-{self.verb.removeprefix('run-')}"

    @property
    def id(self) -> str:
        """The command's id."""
        several = self.verb in ("run-signal", "run-approve", "run-fork")
        which = "".join(f"-{name}-{nth}" for name, nth in self.inputs) if several else ""
        step = f"-{self.step}" if self.step else ""
        return f"{'rival' if self.is_rival else self.verb}-{self.run}{which}{step}"


@dataclass(slots=True, frozen=True)
class Pipeline:
    """A definition: its name, its stored bytes and their digest."""

    name: str
    data: bytes
    digest: str
    steps: tuple[str, ...]


@functools.cache
def pipelines() -> tuple[Pipeline, ...]:
    """The pool; the first three are the children that others start."""
    children = tuple(pipeline(f"child-{number}", _child(number)) for number in range(3))
    parents = tuple(pipeline(f"p-{number}", _parent(random.Random(number), children)) for number in range(POOL))
    held = tuple(pipeline(f"h-{number}", _holding(random.Random(f"held/{number}"), children)) for number in range(HELD))
    recovering = tuple(
        pipeline(f"u-{number}", _recovering(random.Random(f"recovering/{number}"), children)) for number in range(HELD)
    )
    return (*children, *parents, *held, *recovering)


@functools.cache
def chain(steps: int) -> Pipeline:
    """Calls one after the other, each of which is given the result of the one before."""
    made: dict[str, Any] = {}
    for number in range(steps):
        step = call(ms=20)
        if number:
            step["with"]["seen"] = f"${{{{ steps.s{number - 1}.output.attempt }}}}"
        made[f"s{number}"] = step
    return pipeline(f"chain-{steps}", made)


@functools.cache
def remembering() -> Pipeline:
    """Calls whose results are used again by every run with the same input, one by one and in a map."""
    again = {"cache": {"key": "${{ inputs.n }}", "ttl": "1h"}}
    steps: dict[str, Any] = {"s0": call(ms=60) | again, "s1": {"needs": ["s0"], **call(ms=40, fail=1)} | again}
    steps["m"] = {"needs": ["s1"], "foreach": "${{ [1, 2, 3] }}", **call(ms=30)}
    steps["m"]["cache"] = {"key": "${{ [inputs.n, item] }}", "ttl": "1h"}
    return pipeline("remembering", steps)


def known() -> tuple[Pipeline, ...]:
    """Every definition that a client may ask a world to run."""
    return (*pipelines(), chain(CHAIN), remembering())


def asked(seed: int) -> list[Asked]:
    """What a seed's client asks, in order of time."""
    draw = random.Random(f"workload/{seed}")
    commands = []
    for number in range(draw.choice((2, 3, 3, 4))):
        pipeline = draw.choice(pipelines()[3:])
        run, at_s = f"r{number}", draw.uniform(0.5, 5.0)
        name, inputs = f"{pipeline.name}@{pipeline.digest}", (("n", draw.randrange(4)),)
        commands.append(Asked(at_s, "run-start", run, name, inputs))
        rival = random.Random(f"rival/{seed}/{number}")
        if rival.random() < RIVALS:
            other = rival.choice([one for one in pipelines()[3:] if one is not pipeline])
            later_s = at_s + rival.uniform(0.5, 4.0)
            commands.append(
                Asked(later_s, "run-start", run, f"{other.name}@{other.digest}", inputs=inputs, is_rival=True)
            )
        fate = draw.random()
        if fate < 0.15:
            commands.append(Asked(at_s + draw.uniform(0.2, 6.0), "run-cancel", run))
        for name in ("go", "on") if "signal" in pipeline.data.decode() else ():
            for nth in range(4):  # some runs want several, and some none of these
                signalled_s = at_s + draw.uniform(0.2, 12.0)
                commands.append(Asked(signalled_s, "run-signal", run, inputs=((name, nth),)))
        if 0.15 <= fate < 0.25:
            paused_s = at_s + draw.uniform(0.2, 3.0)
            commands.append(Asked(paused_s, "run-pause", run))
            commands.append(Asked(paused_s + draw.uniform(0.5, 8.0), "run-resume", run))
        commands += _forks(random.Random(f"forks/{seed}/{number}"), pipeline, run, at_s)
    return sorted(commands, key=lambda command: (command.at_s, command.id))


def _forks(draw: random.Random, pipeline: Pipeline, run: str, at_s: float) -> list[Asked]:
    """What goes on from a run, while it is open or after it ended, and from what went on from it."""
    asked: list[Asked] = []
    while len(asked) < FORKS_MAX and draw.random() < FORKS:
        verb, at_s = draw.choice(("run-rerun", "run-fork")), at_s + draw.uniform(0.5, 9.0)
        inputs = (("n", draw.randrange(4)),) if verb == "run-fork" else ()
        one = Asked(at_s, verb, run, inputs=inputs, step=draw.choice(pipeline.steps))
        if one.id in {other.id for other in asked}:
            break
        asked.append(one)
        if draw.random() < 0.5:
            run = asked[-1].new_id
    return asked


def pipeline(name: str, steps: dict[str, Any]) -> Pipeline:
    """A definition of these steps."""
    document = {
        "pipeline": name,
        "inputs": {"n": {"type": "integer", "default": 1}},
        "limits": {"deadline": "20m"},
        "steps": steps,
        "outputs": {"last": "${{ steps.?" + next(reversed(steps)) + ".?output.orValue(null) }}"},
    }
    data = Definition(document).encoded()
    return Pipeline(name, data, sha256_hex(data), tuple(steps))


def _child(number: int) -> dict[str, Any]:
    steps: dict[str, Any] = {"c0": call(ms=100 * (number + 1))}
    if number:
        steps["c1"] = {"needs": ["c0"], **call(ms=50, fail=number - 1)}
    return steps


def _parent(draw: random.Random, children: tuple[Pipeline, ...]) -> dict[str, Any]:
    steps: dict[str, Any] = {}
    for number in range(draw.randrange(2, STEPS_MAX + 1)):
        earlier = list(steps)
        step = _step(draw, children, earlier)
        if earlier and draw.random() < 0.8:
            step["needs"] = sorted(draw.sample(earlier, min(len(earlier), draw.choice((1, 1, 2)))))
        if draw.random() < 0.1:
            step["when"] = "inputs.n > 1"
        steps[f"s{number}"] = step
    return steps


def _holding(draw: random.Random, children: tuple[Pipeline, ...]) -> dict[str, Any]:
    """Groups, cases, loops and windows over them, one after the other or side by side."""
    steps: dict[str, Any] = {}
    for number in range(draw.randrange(1, 4)):
        step = _held(draw, children, f"s{number}", depth=1)
        if steps and draw.random() < 0.5:
            step["needs"] = [draw.choice(list(steps))]
        steps[f"s{number}"] = step
    return steps


def _held(draw: random.Random, children: tuple[Pipeline, ...], name: str, *, depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {}
    for number in range(draw.randrange(1, 4)):
        own = f"{name}_{number}"
        deeper = depth < 3 and draw.random() < 0.3
        step = _held(draw, children, own, depth=depth + 1) if deeper else _step(draw, children, list(inner))
        if inner and draw.random() < 0.5:
            step["needs"] = [draw.choice(list(inner))]
        inner[own] = step
    body: dict[str, Any] = {
        "steps": inner,
        "outputs": {"n": "${{ steps.?" + next(reversed(inner)) + ".?status.orValue('') }}"},
    }
    if draw.random() < 0.4:
        body["retry"] = {"attempts": 2, "initial": "300ms", "on": ["unavailable", "timeout", "fatal"]}
    match draw.randrange(5):
        case 0:
            return {
                "switch": [{"when": "inputs.n > 1", **_case(body)}, {"default": {"steps": {f"{name}_d": call(ms=40)}}}]
            }
        case 1:
            return body | {"while": "iteration < inputs.n", "max_iterations": 5, "carry": {"n": ""}}
        case 2:
            return body | {"until": "iteration >= 1", "max_iterations": 5}
        case 3:
            parallel = {"max_parallel": draw.choice((1, 2, 8)), "on_item_error": draw.choice(("fail", "continue"))}
            return body | parallel | {"foreach": "${{ [1, 2, 3, 4].filter(e, e <= inputs.n + 1) }}"}
    return body | {"timeout": draw.choice(("1s", "60s"))}


def _recovering(draw: random.Random, children: tuple[Pipeline, ...]) -> dict[str, Any]:
    """Calls that can be undone, inside and outside of groups, steps that stand in, and often an end that fails."""
    steps: dict[str, Any] = {}
    for number in range(draw.randrange(1, 4)):
        do = _step(draw, children, []) if draw.random() < 0.3 else call(ms=draw.choice((5, 40, 300)))
        if not {"wait", "transform", "signal"} & do.keys():
            do["compensate"] = f"u{number}"
            steps[f"u{number}"] = call(ms=40, fail=draw.choice((0, 0, 1)))
        if number:
            do["needs"] = [f"s{number - 1}"]
        steps[f"s{number}"] = do
    last = call(ms=40)
    last["with"]["fatal"] = draw.random() < 0.7
    last["needs"] = [f"s{number}" for number in range(len([name for name in steps if name[0] == "s"]))]
    if draw.random() < 0.4:
        last["fallback"] = draw.choice(({"value": {"n": 1}}, "plan-b"))
        if last["fallback"] == "plan-b":
            steps["plan-b"] = call(ms=300)
            steps["plan-b"]["with"]["fatal"] = draw.random() < 0.3
    if draw.random() < 0.4:
        inner = {**steps, "last": last}
        return {"group": {"steps": inner, "foreach": "${{ [1, 2].filter(e, e <= inputs.n) }}"}, "end": call(ms=5)}
    return {**steps, "last": last}


def _case(body: dict[str, Any]) -> dict[str, Any]:
    return {"steps": body["steps"], "outputs": body["outputs"]}


def _step(draw: random.Random, children: tuple[Pipeline, ...], earlier: list[str]) -> dict[str, Any]:
    kind = draw.random()
    if kind < 0.08:
        return {"transform": {"n": "${{ inputs.n + 1 }}"}}
    if kind < 0.16:
        return {"wait": {"for": f"{draw.choice((50, 700, 1500))}ms"}}
    if kind < 0.26:
        child = draw.choice(children)
        return {"pipeline": f"{child.name}@{child.digest}", "with": {"n": 1}, "timeout": "60s"}
    if kind < 0.3:
        name, how = draw.choice(("go", "on")), draw.choice(("fail", "skip"))
        return {"signal": {"name": name, "timeout": draw.choice(("500ms", "9s", "9s")), "on_timeout": how}}
    step = call(ms=draw.choice((5, 40, 300, 300, 1500)), fail=draw.choice((0, 0, 0, 0, 1, 2)))
    if kind < 0.46:
        step |= {"foreach": "${{ [1, 2, 3, 4].filter(e, e <= inputs.n + 1) }}", "max_parallel": draw.choice((1, 2, 8))}
        if draw.random() < 0.3:
            step["on_item_error"] = "continue"
    elif kind < 0.66:
        step |= {"effect": "at_most_once", "on_unknown": draw.choice(("fail", "retry"))}
    if draw.random() < 0.08:
        step["with"]["fatal"] = True
        step["on_error"] = draw.choice(("fail", "continue"))
    if earlier and draw.random() < 0.3:
        step["with"]["seen"] = "${{ steps.?" + draw.choice(earlier) + ".?status.orValue(null) }}"
    return step


def call(*, ms: int, fail: int = 0) -> dict[str, Any]:
    """A step that calls the outside world."""
    return {
        "tool": CALL,
        "with": {"ms": ms, "fail": fail},
        "retry": {"attempts": 4, "initial": "300ms", "max": "3s"},
        "timeout": "8s",
    }
