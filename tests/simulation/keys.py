"""Concurrency keys in the simulated world: some seeds start runs that compete for one.

What they must not break is said here, from the contracts alone.
"""

import functools
import random
from typing import TYPE_CHECKING, Final

from headrace.contracts import codec, pseudo
from headrace.contracts import events as ev
from headrace.contracts.canonical import sha256_hex
from headrace.pipeline.definitions import Definition
from tests.simulation.workload import Asked, Pipeline, call

if TYPE_CHECKING:
    from headrace.runtime.eventlog import Stored
    from tests.simulation.world import Record

SHARE: Final = 0.2
"""Of all seeds."""
EXCESSES: Final = ("queue", "reject", "cancel_oldest")
TERMINAL: Final = (ev.RunCompleted, ev.RunFailed, ev.RunCancelled)


@functools.cache
def definitions() -> tuple[Pipeline, ...]:
    """A pipeline for each way of dealing with excess and each number at a time."""
    return tuple(_definition(excess, limit) for excess in EXCESSES for limit in (1, 2))


def _definition(excess: str, limit: int) -> Pipeline:
    name = f"keyed-{excess.replace('_', '-')}-{limit}"
    document = {
        "pipeline": name,
        "limits": {"deadline": "20m", "concurrency": {"key": "one", "max": limit, "on_excess": excess}},
        "steps": {"c0": call(ms=300), "c1": {"needs": ["c0"], "wait": {"for": "300ms"}}},
    }
    data = Definition(document).encoded()
    return Pipeline(name, data, sha256_hex(data), ("c0", "c1"))


def chosen(seed: int) -> Pipeline | None:
    """The seed's pipeline, if it has one."""
    draw = random.Random(f"keys/{seed}")
    return draw.choice(definitions()) if draw.random() < SHARE else None


def asked(seed: int) -> list[Asked]:
    """Runs that compete, and a person who loses patience."""
    pipeline, draw = chosen(seed), random.Random(f"keys-asked/{seed}")
    if pipeline is None:
        return []
    commands = []
    for number in range(draw.choice((3, 4, 5))):
        run, at_s = f"k{number}", draw.uniform(0.5, 5.0)
        commands.append(Asked(at_s, "run-start", run, f"{pipeline.name}@{pipeline.digest}"))
        if draw.random() < 0.15:
            commands.append(Asked(at_s + draw.uniform(0.2, 4.0), "run-cancel", run))
    return commands


def limit_of(pipeline: Pipeline) -> int:
    """How many at a time."""
    return int(pipeline.name.rpartition("-")[2])


def held(history: "list[Stored]") -> list[str]:
    """Runs that a key has granted or lets wait, and has not freed."""
    kept: dict[str, None] = {}
    version = 0
    for stored in history:
        if "_key." not in stored.subject or ".decision." not in stored.subject:
            continue
        message = codec.decode(stored.body)
        if not isinstance(message, pseudo.KeyDecided) or message.data.version != version + 1:
            continue
        version += 1
        for event in message.data.events:
            if isinstance(event, pseudo.KeyGranted | pseudo.KeyQueued):
                kept[event.run] = None
            elif isinstance(event, pseudo.KeyFreed):
                kept.pop(event.run, None)
    return [f"the key's {run}" for run in kept]


def violations(record: "Record") -> list[str]:
    """Never more runs at a time than may be; who is refused may be; nothing is kept."""
    pipeline = chosen(record.seed)
    if pipeline is None:
        return []
    found: list[str] = []
    living: dict[str, None] = {}
    versions: dict[str, int] = {}
    for stored in record.history["HR_RUNS_0"]:
        message = codec.decode(stored.body)
        if not isinstance(message, ev.RunDecided) or message.pipeline != pipeline.name:
            continue
        if message.data.version != versions.get(message.runid, 0) + 1:
            continue
        versions[message.runid] = message.data.version
        for event in message.data.events:
            if isinstance(event, ev.StepScheduled):
                living[message.runid] = None
            elif isinstance(event, TERMINAL):
                living.pop(message.runid, None)
            if (
                isinstance(event, ev.RunFailed)
                and event.failure.code == "concurrency_limit"
                and "reject" not in pipeline.name
            ):
                found.append(f"key: {message.runid} was refused")
        if len(living) > limit_of(pipeline):
            found.append(f"key: {sorted(living)} live at once at {stored.seq}")
    found += [f"key: {what} is kept" for what in held(record.history["HR_RUNS_0"])]
    return found
