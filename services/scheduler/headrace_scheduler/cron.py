"""Schedules as pseudo-runs: what is known of one, and what follows from it. Pure.

A schedule fires each due instant at most once, and never early: a decision says that an instant has fired before its
run is started, the run's id derives from schedule and instant, and the fold remembers up to where instants are dealt
with. A crash between the two needs no repair, because what was fired and not confirmed is started again, which changes
nothing where the run exists.
"""

from collections.abc import Iterator, Mapping
from typing import Final, assert_never

import msgspec

from headrace.contracts import pseudo
from headrace.contracts.failure import Failure
from headrace.contracts.ids import scheduled_run_id
from headrace.pipeline.schedules import newest_ms, next_ms

STARTING_MAX: Final = 16
"""Runs of one schedule that are being started at a time. Catching up a year of minutes is done in such helpings."""
LATE_MS: Final = 60_000
"""With `catch_up: none` an instant is missed after this: a takeover takes 5 s, and a minute is cron's own grain."""
BACKFILLS_MAX: Final = 16
"""Backfills of one schedule waiting for each other; one more is refused in its log."""
INPUTS_REMEMBERED: Final = 64
"""As for runs."""


class Span(msgspec.Struct, omit_defaults=True):
    """A backfill under way: instants after `after_ms` up to `to_ms` are still to be fired."""

    after_ms: int
    to_ms: int


class Cron(msgspec.Struct, omit_defaults=True):
    """One schedule."""

    run: str
    tenant: str
    pipeline: str
    version: int = 0
    decision_id: str = ""
    decision_seq: int = 0
    schedule: pseudo.CronSpec | None = None
    """None: it is not armed."""
    defdigest: str = ""
    defseq: int = 0
    trigger: int = 0
    is_paused: bool = False
    after_ms: int = 0
    """Instants up to here are dealt with."""
    starting: dict[int, str] = {}
    """Due instant → digest of the definition, for runs that are to exist and have not been confirmed."""
    backfills: list[Span] = []
    asked: list[pseudo.TriggerPauseRequested | pseudo.TriggerResumeRequested | pseudo.TriggerBackfillRequested] = []
    """What no decision has dealt with yet."""
    inputs_seen: list[str] = []
    late: int = 0
    """Messages that changed nothing."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the newest definition says of a schedule; `schedule` is None where it has none of that number."""

    seq: int
    trigger: int = 0
    digest: str
    schedule: pseudo.CronSpec | None
    since_ms: int


Ended = pseudo.TriggerStarted | pseudo.TriggerSkipped | pseudo.TriggerRefused
"""What became of a due instant."""


# --- fold --------------------------------------------------------------------------------------


def evolve(cron: Cron, seq: int, message: pseudo.ScheduleMessage) -> bool:
    """Fold one message, stored at `seq`. False when it changed nothing."""
    if isinstance(message, pseudo.TriggerDecided):
        cron.decision_seq = seq  # one that does not count stands in the scope all the same
        if message.data.version != cron.version + 1:
            cron.late += 1
            return False
        cron.version, cron.decision_id = message.data.version, message.id
        for event in message.data.events:
            apply(cron, event, at_ms=message.data.at_ms)
        return True
    if message.id in cron.inputs_seen:
        cron.late += 1
        return False
    cron.inputs_seen.append(message.id)
    del cron.inputs_seen[:-INPUTS_REMEMBERED]
    cron.asked.append(message)
    return True


def apply(cron: Cron, event: pseudo.TriggerEvent, *, at_ms: int) -> None:
    """Fold one event of an accepted decision, or one that `decide` is about to say."""
    match event:
        case pseudo.TriggerArmed():
            if _is_another(cron, event.schedule):
                cron.after_ms = max(cron.after_ms, event.since_ms)
            cron.schedule, cron.defdigest, cron.defseq = event.schedule, event.defdigest, event.defseq
            cron.trigger = event.trigger
        case pseudo.TriggerDisarmed():
            cron.schedule, cron.defseq, cron.backfills = None, event.defseq, []
        case pseudo.TriggerPaused():
            cron.is_paused = True
            _take(cron, pseudo.TriggerPauseRequested)
        case pseudo.TriggerResumed():
            if cron.is_paused:
                cron.after_ms = max(cron.after_ms, at_ms)
            cron.is_paused = False
            _take(cron, pseudo.TriggerResumeRequested)
        case pseudo.TriggerFired():
            cron.starting = cron.starting | {event.due_ms: event.defdigest}
            if event.backfill:
                cron.backfills = [Span(event.due_ms, cron.backfills[0].to_ms), *cron.backfills[1:]]
            else:
                cron.after_ms = max(cron.after_ms, event.due_ms)
        case pseudo.TriggerPassed():
            cron.after_ms = max(cron.after_ms, event.due_ms)
        case pseudo.TriggerStarted() | pseudo.TriggerSkipped() | pseudo.TriggerRefused():
            cron.starting = {due: digest for due, digest in cron.starting.items() if due != event.due_ms}
        case pseudo.TriggerBackfilling():
            cron.backfills = [*cron.backfills, Span(event.from_ms - 1, event.to_ms)]
            _take(cron, pseudo.TriggerBackfillRequested)
        case pseudo.TriggerBackfillRefused():
            _take(cron, pseudo.TriggerBackfillRequested)
        case pseudo.TriggerBackfilled():
            cron.backfills = cron.backfills[1:]
        case _:
            assert_never(event)


def _is_another(cron: Cron, schedule: pseudo.CronSpec) -> bool:
    """A schedule that was not armed, or meant other instants: it begins afresh."""
    known = cron.schedule
    return known is None or (known.cron, known.timezone) != (schedule.cron, schedule.timezone)


def _take(cron: Cron, kind: type) -> None:
    """The oldest wish of a kind has been dealt with: wishes are dealt with in their order."""
    assert isinstance(cron.asked[0], kind), cron.asked
    cron.asked = cron.asked[1:]


# --- decide ------------------------------------------------------------------------------------


def decide(
    cron: Cron, wanted: Wanted | None, ended: Mapping[int, Ended], *, now_ms: int
) -> pseudo.TriggerDecision | None:
    """The next decision, or None when there is nothing to say.

    Args:
        wanted: What the newest definition known here says; None where none is known.
        ended: What became of instants that were fired, as far as it is known here.
    """
    draft, events = msgspec.structs.replace(cron), list[pseudo.TriggerEvent]()
    for event in _events(draft, wanted, ended, now_ms):
        apply(draft, event, at_ms=now_ms)
        events.append(event)
    if not events:
        return None
    return pseudo.TriggerDecision(
        version=cron.version + 1,
        at_ms=now_ms,
        events=tuple(events),
        status=status_of(draft),
        next_ms=next_due_ms(draft) or 0,
    )


def _events(
    draft: Cron, wanted: Wanted | None, ended: Mapping[int, Ended], now_ms: int
) -> Iterator[pseudo.TriggerEvent]:
    """Each event is folded into the draft before the next is asked for."""
    for due_ms in sorted(draft.starting):
        if due_ms in ended:
            yield ended[due_ms]
    if wanted is not None and wanted.seq > draft.defseq:
        if wanted.schedule is not None:
            yield pseudo.TriggerArmed(
                trigger=wanted.trigger,
                defdigest=wanted.digest,
                defseq=wanted.seq,
                schedule=wanted.schedule,
                since_ms=wanted.since_ms,
            )
        elif draft.schedule is not None:
            yield pseudo.TriggerDisarmed(defseq=wanted.seq)
    while draft.asked:
        yield _answer(draft)
    yield from _fire_due(draft, now_ms)
    yield from _fire_backfills(draft)


def _answer(draft: Cron) -> pseudo.TriggerEvent:
    match draft.asked[0]:
        case pseudo.TriggerPauseRequested(data=data):
            return pseudo.TriggerPaused(reason=data.reason)
        case pseudo.TriggerResumeRequested(data=data):
            return pseudo.TriggerResumed(reason=data.reason)
        case pseudo.TriggerBackfillRequested() if draft.schedule is None:
            failure = Failure(code="not_found", message="the schedule was disarmed meanwhile")
            return pseudo.TriggerBackfillRefused(failure=failure)
        case pseudo.TriggerBackfillRequested() if len(draft.backfills) >= BACKFILLS_MAX:
            message = f"{BACKFILLS_MAX} backfills wait for each other; ask again when one has ended"
            return pseudo.TriggerBackfillRefused(failure=Failure(code="limit_exceeded", message=message))
        case pseudo.TriggerBackfillRequested(data=data):
            return pseudo.TriggerBackfilling(from_ms=data.from_ms, to_ms=data.to_ms)


def _fire_due(draft: Cron, now_ms: int) -> Iterator[pseudo.TriggerEvent]:
    spec = draft.schedule
    if spec is None or draft.is_paused:
        return
    if spec.catch_up == "all":
        due_ms = next_ms(spec.cron, spec.timezone, draft.after_ms)
        while due_ms is not None and due_ms <= now_ms and len(draft.starting) < STARTING_MAX:
            yield pseudo.TriggerFired(due_ms=due_ms, defdigest=draft.defdigest)
            due_ms = next_ms(spec.cron, spec.timezone, due_ms)
        return
    if len(draft.starting) >= STARTING_MAX:
        return
    newest = newest_ms(spec.cron, spec.timezone, draft.after_ms, now_ms)
    if newest is None:
        return
    if spec.catch_up == "none" and now_ms - newest > LATE_MS:
        yield pseudo.TriggerPassed(due_ms=newest)
    else:
        yield pseudo.TriggerFired(due_ms=newest, defdigest=draft.defdigest)


def _fire_backfills(draft: Cron) -> Iterator[pseudo.TriggerEvent]:
    while draft.backfills and draft.schedule is not None:
        span, spec = draft.backfills[0], draft.schedule
        due_ms = next_ms(spec.cron, spec.timezone, span.after_ms)
        if due_ms is None or due_ms > span.to_ms:
            yield pseudo.TriggerBackfilled(to_ms=span.to_ms)
        elif len(draft.starting) < STARTING_MAX:
            yield pseudo.TriggerFired(due_ms=due_ms, defdigest=draft.defdigest, backfill=True)
        else:
            return


def next_due_ms(cron: Cron) -> int | None:
    """When time alone makes a decision possible."""
    if cron.schedule is None or cron.is_paused or len(cron.starting) >= STARTING_MAX:
        return None
    return next_ms(cron.schedule.cron, cron.schedule.timezone, cron.after_ms)


def status_of(cron: Cron) -> str:
    """armed, paused or disarmed."""
    return "disarmed" if cron.schedule is None else "paused" if cron.is_paused else "armed"


def runs_to_start(cron: Cron) -> list[tuple[int, str, str]]:
    """(due instant, digest, run id) of what was fired and is not known to exist."""
    return [(due, digest, scheduled_run_id(cron.run, due)) for due, digest in sorted(cron.starting.items())]


def refused(due_ms: int, failure: Failure) -> pseudo.TriggerRefused:
    """A due instant whose run was refused."""
    return pseudo.TriggerRefused(due_ms=due_ms, failure=failure)
