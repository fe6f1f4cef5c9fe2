"""What pseudo-runs say: schedules of pipelines, and concurrency keys. They have ids, partitions, decision scopes
and folds as runs have, in the same streams.

Facts are past tense. Within `.vN` only fields with defaults are added; a change of meaning is `.vN+1` plus an upcaster.
Instants are integer milliseconds of broker time (`…_ms`).
"""

import msgspec

from headrace.contracts.decisions import Event
from headrace.contracts.envelope import Message
from headrace.contracts.failure import Failure


class CronSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An armed schedule of a definition: five fields, whose clock they mean, what becomes of missed instants."""

    cron: str
    timezone: str = "UTC"
    catch_up: str = "once"


# --- inside decisions of a schedule ------------------------------------------------------------


class TriggerArmed(Event, frozen=True, tag="io.headrace.trigger.armed.v1"):
    """The schedule starts runs of this definition. Instants up to `since_ms` are none of its business."""

    trigger: int
    """Its number among the pipeline's schedules, from 0: with the pipeline it names the schedule."""
    defdigest: str
    defseq: int
    """Sequence of the registration in HR_DEFINITIONS: an older one never replaces a newer."""
    schedule: CronSpec
    since_ms: int


class TriggerDisarmed(Event, frozen=True, tag="io.headrace.trigger.disarmed.v1"):
    """The schedule starts nothing any more: the pipeline was retired, or deployed without it."""

    defseq: int


class TriggerPaused(Event, frozen=True, tag="io.headrace.trigger.paused.v1"):
    """Nothing is started until the schedule is resumed; instants that come meanwhile are passed over."""

    reason: str = ""


class TriggerResumed(Event, frozen=True, tag="io.headrace.trigger.resumed.v1"):
    """The schedule starts runs again, from this decision's instant on."""

    reason: str = ""


class TriggerFired(Event, frozen=True, tag="io.headrace.trigger.fired.v1"):
    """A run is to exist for this due instant; its id derives from the schedule and the instant."""

    due_ms: int
    defdigest: str
    backfill: bool = False
    """Somebody asked for it; else it was due."""


class TriggerPassed(Event, frozen=True, tag="io.headrace.trigger.passed.v1"):
    """Instants up to this one were missed and start nothing (`catch_up: none`)."""

    due_ms: int


class TriggerStarted(Event, frozen=True, tag="io.headrace.trigger.started.v1"):
    """The run of a due instant exists."""

    due_ms: int
    run: str


class TriggerSkipped(Event, frozen=True, tag="io.headrace.trigger.skipped.v1"):
    """A due instant starts nothing, because its condition is false."""

    due_ms: int


class TriggerRefused(Event, frozen=True, tag="io.headrace.trigger.refused.v1"):
    """A due instant starts nothing, because its run was refused."""

    due_ms: int
    failure: Failure


class TriggerBackfilling(Event, frozen=True, tag="io.headrace.trigger.backfilling.v1"):
    """Every due instant of the span, both ends included, gets its run unless it has one."""

    from_ms: int
    to_ms: int


class TriggerBackfillRefused(Event, frozen=True, tag="io.headrace.trigger.backfill-refused.v1"):
    """A backfill starts nothing: too many wait, or the schedule was disarmed meanwhile."""

    failure: Failure


class TriggerBackfilled(Event, frozen=True, tag="io.headrace.trigger.backfilled.v1"):
    """Everything of the span has been fired."""

    to_ms: int


TriggerEvent = (
    TriggerArmed
    | TriggerDisarmed
    | TriggerPaused
    | TriggerResumed
    | TriggerFired
    | TriggerPassed
    | TriggerStarted
    | TriggerSkipped
    | TriggerRefused
    | TriggerBackfilling
    | TriggerBackfillRefused
    | TriggerBackfilled
)


# --- stored messages ---------------------------------------------------------------------------


class TriggerDecision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of a schedule's decision. The fold takes version n + 1 after n and nothing else."""

    version: int
    at_ms: int
    events: tuple[TriggerEvent, ...]
    status: str = ""
    """What follows from all decisions so far, for readers of the last alone: armed, paused or disarmed."""
    next_ms: int = 0
    """The instant that is due next; 0 where none is."""


class TriggerDecided(Message, frozen=True, tag="io.headrace.trigger.decided.v1"):
    """One decision of a schedule. `runid` is the schedule's own id."""

    data: TriggerDecision


class Wish(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of what somebody asks of a schedule."""

    reason: str = ""


class TriggerPauseRequested(Message, frozen=True, tag="io.headrace.trigger-pause.requested.v1"):
    """Somebody asked to pause the schedule."""

    data: Wish


class TriggerResumeRequested(Message, frozen=True, tag="io.headrace.trigger-resume.requested.v1"):
    """Somebody asked to go on with the schedule."""

    data: Wish


class Span(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of a backfill: both ends are included."""

    from_ms: int
    to_ms: int
    reason: str = ""


class TriggerBackfillRequested(Message, frozen=True, tag="io.headrace.trigger-backfill.requested.v1"):
    """Somebody asked for the runs of past due instants."""

    data: Span


# --- concurrency keys --------------------------------------------------------------------------


class KeyQueued(Event, frozen=True, tag="io.headrace.key.queued.v1"):
    """A run waits for its turn."""

    run: str
    max: int
    on_excess: str
    expires_ms: int


class KeyGranted(Event, frozen=True, tag="io.headrace.key.granted.v1"):
    """A run may go on, and counts against the key until it is freed."""

    run: str
    max: int
    expires_ms: int
    """Instant at which the run has ended in any case: what it holds is then free."""


class KeyRefused(Event, frozen=True, tag="io.headrace.key.refused.v1"):
    """A run is one too many and fails (`on_excess: reject`)."""

    run: str


class KeyRevoked(Event, frozen=True, tag="io.headrace.key.revoked.v1"):
    """The oldest run is to be cancelled for a newer one (`on_excess: cancel_oldest`); it counts until it is freed."""

    run: str


class KeyFreed(Event, frozen=True, tag="io.headrace.key.freed.v1"):
    """A run counts no more. `reason`: ended, gone, or expired."""

    run: str
    reason: str


KeyEvent = KeyQueued | KeyGranted | KeyRefused | KeyRevoked | KeyFreed


class KeyDecision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of a key's decision. The fold takes version n + 1 after n and nothing else."""

    version: int
    at_ms: int
    events: tuple[KeyEvent, ...]
    fresh: bool = False
    """The key was idle before: nobody held it or waited. What came before is of no concern."""


class KeyDecided(Message, frozen=True, tag="io.headrace.key.decided.v1"):
    """One decision of a concurrency key. `runid` is the key's own id."""

    data: KeyDecision


class KeyAsk(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `key-asked`. Asking twice is asking once; whoever asks again, as its next offer, hears again."""

    run: str
    max: int
    on_excess: str
    expires_ms: int
    offer: int = 1


class KeyAsked(Message, frozen=True, tag="io.headrace.key.asked.v1"):
    """A run asks a concurrency key whether it may go on."""

    data: KeyAsk


class KeyRelease(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `key-released`. `reason`: ended, or gone."""

    run: str
    reason: str = "ended"


class KeyReleased(Message, frozen=True, tag="io.headrace.key.released.v1"):
    """A run has ended, or its history is gone."""

    data: KeyRelease


ScheduleMessage = TriggerDecided | TriggerPauseRequested | TriggerResumeRequested | TriggerBackfillRequested
KeyMessage = KeyDecided | KeyAsked | KeyReleased
PseudoMessage = ScheduleMessage | KeyMessage
