"""Schedules in the simulated world: some seeds have one that missed instants, and people who pause and backfill it.

What they must not break is said here, from the contracts alone.
"""

import functools
import random
from collections import Counter
from typing import TYPE_CHECKING, Final

from headrace.contracts import codec, ids, pseudo, subjects
from headrace.contracts import events as ev
from headrace.contracts.canonical import sha256_hex
from headrace.contracts.envelope import SPECVERSION
from headrace.pipeline.definitions import Definition
from tests.simulation.host import EPOCH_MS
from tests.simulation.workload import Asked, Pipeline

if TYPE_CHECKING:
    from headrace.runtime.eventlog import Stored
    from tests.simulation.world import Record

TENANT: Final = "default"
NAME: Final = "timed"
SHARE: Final = 0.25
"""Of all seeds."""
MINUTE_MS: Final = 60_000
MISSED: Final = 6
"""Instants between the deployment and the world's beginning."""
SKEW_MS: Final = 260
"""As for runs: a clock may be off by what the renewal took from which it learnt."""
SCHEDULE: Final = ids.schedule_id(TENANT, NAME, 0)


def catch_up(seed: int) -> str:
    """once, all or none; nothing where the seed has no schedule."""
    draw = random.Random(f"schedule/{seed}")
    return draw.choice(("once", "all", "none")) if draw.random() < SHARE else ""


@functools.cache
def definition(kind: str) -> Pipeline:
    """A pipeline that is due every minute and does next to nothing."""
    document = {
        "pipeline": NAME,
        "triggers": [{"cron": "* * * * *", "catch_up": kind}],
        "steps": {"rest": {"wait": {"for": "100ms"}}},
    }
    data = Definition(document).encoded()
    return Pipeline(NAME, data, sha256_hex(data), ("rest",))


def registration(kind: str) -> bytes:
    """It was deployed a while before the world began, and since then nobody has run."""
    digest = definition(kind).digest
    return codec.encode(
        ev.DefinitionRegistered(
            specversion=SPECVERSION,
            id=f"put-{kind}",
            source="/simulation",
            time="",
            schemaver=1,
            tenant=TENANT,
            pipeline=NAME,
            defdigest=digest,
            data=ev.Definition(
                digest=digest,
                size=0,
                armed=True,
                armed_ms=EPOCH_MS - MISSED * MINUTE_MS,
                crons=(pseudo.CronSpec(cron="* * * * *", catch_up=kind),),
            ),
        )
    )


def asked(seed: int) -> list[Asked]:
    """What people want of the schedule."""
    if not catch_up(seed):
        return []
    draw = random.Random(f"schedule-asked/{seed}")
    commands = []
    if draw.random() < 0.5:
        first = EPOCH_MS - draw.randrange(3, 12) * MINUTE_MS
        span = (("from_ms", first), ("to_ms", first + draw.randrange(1, 4) * MINUTE_MS))
        commands.append(Asked(draw.uniform(0.5, 6.0), "trigger-backfill", "t0", NAME, span))
    if draw.random() < 0.4:
        at_s = draw.uniform(0.2, 4.0)
        commands.append(Asked(at_s, "trigger-pause", "t1", NAME))
        commands.append(Asked(at_s + draw.uniform(0.5, 6.0), "trigger-resume", "t2", NAME))
    if draw.random() < 0.3:
        commands.append(Asked(draw.uniform(0.5, 6.0), "definition-put", "t3", NAME))
    return commands


def unsettled(history: "list[Stored]") -> list[str]:
    """Instants that were fired and of which the log does not say yet what became of them."""
    waiting: dict[int, None] = {}
    version = 0
    for stored in history:
        if "_cron." not in stored.subject or ".decision." not in stored.subject:
            continue
        message = codec.decode(stored.body)
        if not isinstance(message, pseudo.TriggerDecided) or message.data.version != version + 1:
            continue
        version += 1
        for event in message.data.events:
            if isinstance(event, pseudo.TriggerFired):
                waiting[event.due_ms] = None
            elif isinstance(event, pseudo.TriggerStarted | pseudo.TriggerSkipped | pseudo.TriggerRefused):
                waiting.pop(event.due_ms, None)
    return [f"the schedule's {due_ms}" for due_ms in waiting]


def violations(record: "Record") -> list[str]:
    """Every instant once of its own accord, none early, and each has its run."""
    kind = catch_up(record.seed)
    if not kind:
        return []
    found: list[str] = []
    version, fired, settled = 0, list[pseudo.TriggerFired](), set[int]()
    for stored in record.history["HR_RUNS_0"]:
        message = codec.decode(stored.body)
        if not isinstance(message, pseudo.TriggerDecided):
            continue
        if message.data.version != version + 1:  # where the broker overlooked a conflict, every reader ignores it
            if not record.overlooked or message.data.version > version:
                found.append(f"schedule: decision {message.data.version} at {stored.seq} follows {version}")
            continue
        version = message.data.version
        for event in message.data.events:
            if isinstance(event, pseudo.TriggerFired):
                fired.append(event)
                if event.due_ms > stored.time_ms + SKEW_MS or event.due_ms % MINUTE_MS:
                    found.append(f"schedule: {event.due_ms} was fired at {stored.time_ms}")
            elif isinstance(event, pseudo.TriggerStarted):
                settled.add(event.due_ms)
            elif isinstance(event, pseudo.TriggerSkipped | pseudo.TriggerRefused | pseudo.TriggerBackfillRefused):
                found.append(f"schedule: {event}")
    own = [event.due_ms for event in fired if not event.backfill]
    found += [f"schedule: {due} was fired {count} times" for due, count in Counter(own).items() if count > 1]
    found += [f"schedule: no run of {event.due_ms}" for event in fired if event.due_ms not in settled]
    found += _missed(record, kind, own)
    if _creations(record) != {event.due_ms: 1 for event in fired}:
        found.append(f"schedule: fired {sorted({event.due_ms for event in fired})}, runs {_creations(record)}")
    return found


def _missed(record: "Record", kind: str, own: list[int]) -> list[str]:
    """What was missed before the beginning is caught up as the schedule says, unless somebody paused it."""
    if any(command.verb in ("trigger-pause", "definition-put") for command in record.asked):
        return []
    before = [due for due in own if due <= EPOCH_MS]
    expected = {"once": [EPOCH_MS], "none": [EPOCH_MS]}.get(
        kind, [EPOCH_MS - back * MINUTE_MS for back in reversed(range(MISSED))]
    )
    return [] if before == expected else [f"schedule: {kind} gave {before}, expected {expected}"]


def _creations(record: "Record") -> dict[int, int]:
    """Due instant → first decisions of its run."""
    found: Counter[int] = Counter()
    dues = {
        ids.scheduled_run_id(SCHEDULE, EPOCH_MS + at * MINUTE_MS): EPOCH_MS + at * MINUTE_MS for at in range(-30, 30)
    }
    for stored in record.history["HR_RUNS_0"]:
        place = subjects.parse_run_subject(stored.subject)
        if place is not None and place.run in dues and place.rest == "run-created":
            found[dues[place.run]] += 1
    return dict(found)
