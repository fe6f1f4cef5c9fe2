"""Events out of runs, in the simulated world: some seeds have runs that tell, and a pipeline that hears and tells on.

What they must not break is said here, from the contracts alone.
"""

import functools
import random
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from headrace.contracts import codec
from headrace.contracts import events as ev
from headrace.contracts.canonical import sha256_hex
from headrace.contracts.envelope import SPECVERSION
from headrace.pipeline.definitions import Definition
from tests.simulation.host import EPOCH_MS
from tests.simulation.workload import Asked, Pipeline, call

if TYPE_CHECKING:
    from headrace.runtime.eventlog import Stored
    from tests.simulation.world import Record

SHARE: Final = 0.25
"""Of all seeds."""
TENANT: Final = "default"
HEARER: Final = "hearer"


@functools.cache
def definitions() -> tuple[Pipeline, ...]:
    """What hears, then what tells: beside calls, in a map, and in a group that is tried again."""
    tell = {"emit": {"name": "told", "data": {"left": "${{ inputs.n }}"}}}
    bad = call(ms=40) | {"retry": {"attempts": 1}, "needs": ["e"]}
    bad["with"]["fail"] = 1
    group = {"steps": {"e": tell, "bad": bad}, "retry": {"attempts": 2, "initial": "300ms"}}
    on = {"emit": {"name": "told", "data": {"left": "${{ event.data.left - 1 }}"}}, "needs": ["c0"]}
    return (
        _definition(HEARER, {"c0": call(ms=40), "e": on}, triggers=[_TRIGGER]),
        _definition("tells-once", {"c0": call(ms=40), "e": tell | {"needs": ["c0"]}}),
        _definition("tells-each", {"e": tell | {"foreach": "${{ [1, 2, 3] }}"}}),
        _definition("tells-again", {"g": group}),
    )


_TRIGGER: Final = {"event": "told", "when": "event.data.left > 0"}


def _definition(name: str, steps: dict[str, Any], **more: Any) -> Pipeline:
    inputs = {} if more else {"inputs": {"n": {"type": "integer", "default": 1}}}
    document = {"pipeline": name, "limits": {"deadline": "20m"}, "steps": steps, **inputs, **more}
    data = Definition(document).encoded()
    return Pipeline(name, data, sha256_hex(data), tuple(steps))


def chosen(seed: int) -> Pipeline | None:
    """What tells in this seed, if anything does."""
    draw = random.Random(f"tellers/{seed}")
    return draw.choice(definitions()[1:]) if draw.random() < SHARE else None


def registration() -> bytes:
    """What hears was armed before the world began."""
    digest = definitions()[0].digest
    data = ev.Definition(
        digest=digest,
        size=0,
        armed=True,
        armed_ms=EPOCH_MS,
        triggers=(ev.TriggerSpec(event="told", when=_TRIGGER["when"]),),
    )
    return codec.encode(
        ev.DefinitionRegistered(
            specversion=SPECVERSION,
            id="put-hearer",
            source="/simulation",
            time="",
            schemaver=1,
            tenant=TENANT,
            pipeline=HEARER,
            defdigest=digest,
            data=data,
        )
    )


def asked(seed: int) -> list[Asked]:
    """Runs that tell, and now and then somebody who stops one."""
    pipeline, draw = chosen(seed), random.Random(f"tellers/asked/{seed}")
    if pipeline is None:
        return []
    commands = []
    for number in range(2):
        run, at_s = f"t{number}", draw.uniform(0.5, 5.0)
        inputs = (("n", draw.randrange(4)),)
        commands.append(Asked(at_s, "run-start", run, f"{pipeline.name}@{pipeline.digest}", inputs))
        if draw.random() < 0.15:
            commands.append(Asked(at_s + draw.uniform(0.05, 2.0), "run-cancel", run))
    return commands


def _told(history: "list[Stored]") -> tuple[dict[str, ev.EmitStarted], set[str], Counter[str]]:
    """Events that decisions began, those whose steps ended well, and how many runs heard each."""
    begun: dict[str, ev.EmitStarted] = {}
    done: set[str] = set()
    heard: Counter[str] = Counter()
    versions: dict[str, int] = {}
    paths: dict[tuple[str, str], str] = {}
    for stored in history:
        message = codec.decode(stored.body)
        if not isinstance(message, ev.RunDecided) or message.data.version != versions.get(message.runid, 0) + 1:
            continue
        versions[message.runid] = message.data.version
        for event in message.data.events:
            if isinstance(event, ev.EmitStarted):
                begun[event.event] = event
                paths[message.runid, event.path] = event.event
            elif isinstance(event, ev.StepCompleted) and (message.runid, event.path) in paths:
                done.add(paths[message.runid, event.path])
            elif isinstance(event, ev.RunCreated) and message.pipeline == HEARER:
                assert event.event is not None and isinstance(event.event.json, msgspec.Raw)
                heard[msgspec.json.decode(event.event.json)["id"]] += 1
    return begun, done, heard


def _is_heard(event: ev.EmitStarted) -> bool:
    assert isinstance(event.data.json, msgspec.Raw)
    return bool(msgspec.json.decode(event.data.json)["left"] > 0)


def unheard(history: "list[Stored]") -> list[str]:
    """Events that were told and that nobody has heard yet."""
    begun, done, heard = _told(history)
    return [f"event {event}" for event in done if _is_heard(begun[event]) and not heard[event]]


def violations(record: "Record") -> list[str]:
    """What was told is heard, once; nothing else is."""
    if chosen(record.seed) is None:
        return []
    begun, _, heard = _told(record.history["HR_RUNS_0"])
    found = [f"{what} is told and not heard" for what in unheard(record.history["HR_RUNS_0"])]
    for event, count in heard.items():
        if event not in begun or not _is_heard(begun[event]) or count > 1:
            found.append(f"event {event} is heard by {count} runs; {begun.get(event)}")
    return found
