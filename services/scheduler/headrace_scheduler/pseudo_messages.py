"""The stored messages about pseudo-runs, with their envelopes and deterministic ids. Pure."""

from typing import Any, Final

import msgspec

from headrace.contracts import ids, pseudo, subjects
from headrace.contracts.codec import encode, encode_value
from headrace.contracts.envelope import SPECVERSION
from headrace.contracts.instants import rfc3339
from headrace_scheduler.cron import Cron
from headrace_scheduler.messages import Outgoing

_PREFIXES: Final = ("io.headrace.", ".v1")


def headline(event: pseudo.TriggerEvent) -> str:
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
