"""The stored messages about pseudo-runs, with their envelopes and deterministic ids. Pure."""

from typing import Any, Final

import msgspec

from headrace.contracts import events as ev
from headrace.contracts import ids, pseudo, subjects
from headrace.contracts.codec import encode, encode_value
from headrace.contracts.envelope import SPECVERSION
from headrace.contracts.instants import rfc3339
from headrace_scheduler.cron import Cron
from headrace_scheduler.key import Key
from headrace_scheduler.messages import Outgoing

_PREFIXES: Final = ("io.headrace.", ".v1")


def headline(event: pseudo.TriggerEvent | pseudo.KeyEvent) -> str:
    """`trigger-fired`, for the subject."""
    tag = str(type(event).__struct_config__.tag)
    return tag.removeprefix(_PREFIXES[0]).removesuffix(_PREFIXES[1]).replace(".", "-")


def trigger_decided(cron: Cron, data: pseudo.TriggerDecision, *, source: str) -> Outgoing:
    """A schedule's decision. Its id covers the content, as that of a run's does."""
    kind = str(pseudo.TriggerDecided.__struct_config__.tag)
    event_id = ids.event_id(kind, cron.tenant, cron.run, "", 0, 0, data.version, data=encode_value(data))
    message = pseudo.TriggerDecided(
        specversion=SPECVERSION,
        id=event_id,
        source=source,
        time=rfc3339(data.at_ms),
        schemaver=1,
        tenant=cron.tenant,
        subject=f"schedule/{cron.run}",
        pipeline=cron.pipeline,
        runid=cron.run,
        causationid=cron.decision_id,
        correlationid=cron.run,
        defdigest=cron.defdigest,
        data=data,
    )
    subject = subjects.decision(_prefix(cron.tenant, cron.pipeline, cron.run), headline(data.events[-1]))
    return Outgoing(subject, encode(message), event_id)


def key_decided(key: Key, data: pseudo.KeyDecision, *, source: str) -> Outgoing:
    """A concurrency key's decision."""
    kind = str(pseudo.KeyDecided.__struct_config__.tag)
    event_id = ids.event_id(kind, key.tenant, key.run, "", 0, 0, data.version, data=encode_value(data))
    message = pseudo.KeyDecided(
        specversion=SPECVERSION,
        id=event_id,
        source=source,
        time=rfc3339(data.at_ms),
        schemaver=1,
        tenant=key.tenant,
        subject=f"key/{key.run}",
        pipeline=key.pipeline,
        runid=key.run,
        causationid=key.decision_id,
        correlationid=key.run,
        data=data,
    )
    subject = subjects.decision(_prefix(key.tenant, key.pipeline, key.run), headline(data.events[-1]))
    return Outgoing(subject, encode(message), event_id)


def key_told(
    key: str,
    data: pseudo.KeyAsk | pseudo.KeyRelease,
    *,
    tenant: str,
    pipeline: str,
    cause: str,
    source: str,
    now_ms: int,
) -> Outgoing:
    """What a run asks of its key, or tells it."""
    kind, verb = (
        (pseudo.KeyAsked, "key-asked") if isinstance(data, pseudo.KeyAsk) else (pseudo.KeyReleased, "key-released")
    )
    offer = data.offer if isinstance(data, pseudo.KeyAsk) else 0
    event_id = ids.event_id(str(kind.__struct_config__.tag), tenant, key, "", 0, offer, 0, data.run)
    message = kind(
        specversion=SPECVERSION,
        id=event_id,
        source=source,
        time=rfc3339(now_ms),
        schemaver=1,
        tenant=tenant,
        subject=f"key/{key}",
        pipeline=pipeline,
        runid=key,
        causationid=cause,
        correlationid=data.run,
        data=data,  # type: ignore[arg-type]  # of the kind that was chosen by it
    )
    return Outgoing(subjects.input_(_prefix(tenant, pipeline, key), verb), encode(message), event_id)


def key_answered(key: Key, run: str, *, granted: bool, source: str, now_ms: int) -> Outgoing:
    """What a run hears from its key. Given again it is the same answer."""
    kind = str(ev.KeyAnswered.__struct_config__.tag)
    message = ev.KeyAnswered(
        specversion=SPECVERSION,
        id=ids.event_id(kind, key.tenant, run, "", 0, 0, 0, key.run, int(granted)),
        source=source,
        time=rfc3339(now_ms),
        schemaver=1,
        tenant=key.tenant,
        subject=f"run/{run}",
        pipeline=key.pipeline,
        runid=run,
        causationid=key.decision_id,
        correlationid=ids.root_of(run),
        data=ev.KeyAnswer(key=key.run, granted=granted),
    )
    subject = subjects.input_(_prefix(key.tenant, key.pipeline, run), "key-answered")
    return Outgoing(subject, encode(message), message.id)


def as_text(value: Any) -> str:
    """A value as a template's text has it."""
    return encode_value(value).decode()


def _prefix(tenant: str, pipeline: str, run: str) -> str:
    return subjects.run_prefix(tenant, pipeline, run)


VERBS: Final[dict[type, str]] = {
    pseudo.TriggerPauseRequested: "trigger-pause-requested",
    pseudo.TriggerResumeRequested: "trigger-resume-requested",
    pseudo.TriggerBackfillRequested: "trigger-backfill-requested",
}


def trigger_asked(
    kind: type[Any],
    data: msgspec.Struct,
    *,
    tenant: str,
    pipeline: str,
    trigger: int,
    cause: str,
    source: str,
    now_ms: int,
) -> Outgoing:
    """What somebody asks of a schedule, as its input; the command `cause` makes it unique."""
    run = ids.schedule_id(tenant, pipeline, trigger)
    event_id = ids.event_id(str(kind.__struct_config__.tag), tenant, run, "", 0, 0, 0, cause)
    message = kind(
        specversion=SPECVERSION,
        id=event_id,
        source=source,
        time=rfc3339(now_ms),
        schemaver=1,
        tenant=tenant,
        subject=f"schedule/{run}",
        pipeline=pipeline,
        runid=run,
        causationid=cause,
        correlationid=run,
        data=data,
    )
    return Outgoing(subjects.input_(_prefix(tenant, pipeline, run), VERBS[kind]), encode(message), event_id)
