"""Every subject: its stream, who writes it, who reads it, what is said there. `proto/asyncapi.json` says the same.

Pure data. Addresses are templates; `subjects.py` builds the real ones and a test holds the two together.
"""

from typing import Any, Final, NamedTuple

from headrace.contracts import commands as cmd
from headrace.contracts import events as ev
from headrace.contracts import live, pseudo, rounds, subjects

ANYONE: Final = "anyone"
"""Anybody whose credentials permit the subject."""
SCHEDULER: Final = "scheduler"
EXECUTOR: Final = "step-executor"
REGISTRY: Final = "tool-registry"
STORE: Final = "session-store"
MONITOR: Final = "monitor"
SERVICES: Final = (SCHEDULER, EXECUTOR, REGISTRY, STORE, MONITOR)
_RUN: Final = "hr.evt.{tenant}.{pipeline}.{part}.{run}"


class Channel(NamedTuple):
    """One subject template. `stream` is empty where nothing is stored; `reply` is set where an answer is expected."""

    name: str
    address: str
    stream: str
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    messages: tuple[type, ...]
    about: str
    reply: type | None = None
    queue: str = ""
    """Queue group of the readers (the one field of the NATS binding); they share the messages."""
    request: type | None = None
    """What `data` of the request is."""


_RUN_READERS: Final = (SCHEDULER, MONITOR, ANYONE)
_RUN_CHANNELS: Final = (
    Channel(
        "decisions",
        f"{_RUN}.decision.{{headline}}",
        subjects.RUNS,
        (SCHEDULER,),
        _RUN_READERS,
        (ev.RunDecided, pseudo.TriggerDecided, pseudo.KeyDecided),
        "One decision of a run, a schedule or a key, all its events inside. Checked against the last one's sequence.",
    ),
    Channel(
        "decisions-with-order",
        f"{_RUN}.decision.scheduled.{{queue}}",
        subjects.RUNS,
        (SCHEDULER,),
        (EXECUTOR, *_RUN_READERS),
        (ev.RunDecided,),
        "A decision that schedules exactly one step and is its own order.",
    ),
    Channel(
        "orders",
        f"{_RUN}.order.scheduled.{{queue}}",
        subjects.RUNS,
        (SCHEDULER,),
        (EXECUTOR, *_RUN_READERS),
        (ev.StepOrdered,),
        "A work order, derived from its decision.",
    ),
    Channel(
        "reports",
        f"{_RUN}.report.{{event}}",
        subjects.RUNS,
        (EXECUTOR,),
        _RUN_READERS,
        (ev.AttemptSucceeded, ev.AttemptFailed, ev.AttemptDeferred),
        "How an attempt ended. The fold takes the first terminal report of the current attempt.",
    ),
    Channel(
        "claims",
        f"{_RUN}.report.claim.{{call}}",
        subjects.RUNS,
        (EXECUTOR,),
        _RUN_READERS,
        (ev.AttemptStarted,),
        "An at-most-once call is claimed: one subject a call, checked against the previous attempt's claim.",
    ),
    Channel(
        "rounds",
        f"{_RUN}.report.round.{{step}}",
        subjects.RUNS,
        (EXECUTOR,),
        _RUN_READERS,
        (rounds.TurnCompleted, rounds.ToolStarted, rounds.ToolCompleted),
        "What a model's loop has done so far: one subject a step instance, checked against the round before.",
    ),
    Channel(
        "inputs",
        f"{_RUN}.input.{{verb}}",
        subjects.RUNS,
        (SCHEDULER,),
        _RUN_READERS,
        (
            ev.CancelRequested,
            ev.PauseRequested,
            ev.ResumeRequested,
            ev.SignalReceived,
            ev.BudgetRaiseRequested,
            ev.EventPublished,
            ev.ChildReported,
            ev.KeyAnswered,
            pseudo.KeyAsked,
            pseudo.KeyReleased,
            pseudo.TriggerPauseRequested,
            pseudo.TriggerResumeRequested,
            pseudo.TriggerBackfillRequested,
        ),
        "Facts from outside, unchecked, with deterministic ids.",
    ),
    Channel(
        "answers",
        f"{_RUN}.input.approval-given.{{question}}",
        subjects.RUNS,
        (SCHEDULER,),
        _RUN_READERS,
        (ev.ApprovalGiven,),
        "What a person answered: one subject a question, written with expected sequence 0, so that one answer wins.",
    ),
)
_STORED_CHANNELS: Final = (
    Channel(
        "commands",
        "hr.cmd.{tenant}.{verb}",
        subjects.COMMANDS,
        (ANYONE,),
        (SCHEDULER,),
        tuple(cmd.VERBS.values()),
        "What people ask for. A work queue: each command is taken once.",
    ),
    Channel(
        "outcomes",
        "hr.outcome.{tenant}.{command}",
        subjects.OUTCOMES,
        (SCHEDULER,),
        (ANYONE,),
        (ev.CommandAccepted, ev.CommandRefused),
        "What became of a command, for seven days.",
    ),
    Channel(
        "triggers",
        "hr.trig.{tenant}.{name}",
        subjects.TRIGGERS,
        (ANYONE, SCHEDULER),
        (SCHEDULER,),
        (),
        "Any CloudEvent or JSON object that pipelines listen for; those that steps emit are CloudEvents.",
    ),
    Channel(
        "definitions",
        "hr.def.{tenant}.{pipeline}",
        subjects.DEFINITIONS,
        (SCHEDULER,),
        (SCHEDULER, MONITOR),
        (ev.DefinitionRegistered, ev.DefinitionRetired),
        "Definitions by pipeline; the newest is what a start by name gets.",
    ),
    Channel(
        "tools",
        "hr.tool.{tenant}.{tool}",
        subjects.TOOLS,
        (REGISTRY,),
        (REGISTRY, SCHEDULER, EXECUTOR, MONITOR),
        (ev.ToolRegistered, ev.ToolDisabled, ev.ToolChanged),
        "The tool catalogue.",
    ),
    Channel(
        "sessions",
        "hr.ses.{tenant}.{session}",
        subjects.SESSIONS,
        (STORE,),
        (STORE, MONITOR),
        (ev.SessionOpened, ev.TurnAppended, ev.SessionClosed),
        "Conversations. Checked against the sequence of the session's last event.",
    ),
    Channel(
        "alerts",
        "hr.sys.alert.{rule}",
        subjects.SYSTEM,
        (MONITOR,),
        (ANYONE,),
        (ev.AlertRaised, ev.AlertCleared),
        "The newest state of each alert.",
    ),
    Channel(
        "breakers",
        "hr.sys.breaker.{breaker}",
        subjects.SYSTEM,
        (EXECUTOR,),
        (EXECUTOR, ANYONE),
        (ev.BreakerOpened, ev.BreakerProbed, ev.BreakerClosed),
        "The newest change of each breaker. Other replicas take it for a hint.",
    ),
    Channel(
        "dead-letters",
        "hr.dead.{tenant}.{stream}",
        subjects.DEAD,
        SERVICES,
        (ANYONE,),
        (ev.MessageParked,),
        "Messages that could not be handled, byte for byte, with the reason.",
    ),
)
_LIVE_CHANNELS: Final = (
    Channel(
        "presence",
        "hr.live.presence.{instance}",
        "",
        SERVICES,
        (SCHEDULER, MONITOR),
        (live.Beat,),
        "Signs of life of every process.",
    ),
    Channel(
        "presence-please",
        subjects.PRESENCE_PLEASE,
        "",
        (SCHEDULER,),
        (EXECUTOR,),
        (live.Empty,),
        "An owner asks every executor for the full list of orders in hand.",
    ),
    Channel(
        "revocations",
        subjects.REVOKE,
        "",
        (SCHEDULER,),
        (EXECUTOR,),
        (live.Revoke,),
        "Attempts that are over for the engine.",
    ),
    Channel(
        "order-checks",
        "hr.api.scheduler.order-current.{part}",
        "",
        (EXECUTOR,),
        (SCHEDULER,),
        (live.CurrentAsk,),
        "Whether orders are still current; the partition's owner answers.",
        reply=live.CurrentAnswer,
    ),
)


def _verb(service: str, verb: str, request: type, reply: type, about: str) -> Channel:
    """A request to a service: `Request` and `Reply` around the two types named."""
    return Channel(
        f"{service}-{verb}",
        subjects.api(service, verb),
        "",
        (ANYONE,),
        (service,),
        (live.Request,),
        about,
        reply=reply,
        queue=service,
        request=request,
    )


_API_CHANNELS: Final = (
    _verb(REGISTRY, "register", ev.ToolSpec, ev.ToolSpec, "Register a tool or a version of one."),
    _verb(REGISTRY, "disable", ev.ToolName, ev.ToolName, "Disable a version of a tool."),
    _verb(REGISTRY, "approve", ev.ToolName, ev.ToolSpec, "Enable a version that waits for approval."),
    _verb(REGISTRY, "get", live.ToolQuery, ev.ToolSpec, "Look up one tool."),
    _verb(REGISTRY, "list", live.Empty, live.ToolList, "All enabled tools."),
    _verb(REGISTRY, "hash", live.Empty, live.StateHash, "Hash of the catalogue and how far it has read."),
    _verb(STORE, "open", live.OpenSession, live.SessionView, "Open a conversation."),
    _verb(STORE, "append", live.AppendTurn, live.SessionView, "Append a turn."),
    _verb(STORE, "read", live.ReadSession, live.SessionView, "Read turns."),
    _verb(STORE, "close", live.CloseSession, live.SessionView, "Close a conversation."),
    _verb(MONITOR, "runs", live.ListRuns, live.RunList, "Runs, newest first."),
    _verb(MONITOR, "run", cmd.NameRun, live.RunRow, "One run."),
    _verb(MONITOR, "services", live.Empty, live.ServiceList, "Every process heard of lately."),
    _verb(MONITOR, "hash", live.Empty, live.StateHash, "Hash of the projection and how far it has read."),
)
CHANNELS: Final = (*_RUN_CHANNELS, *_STORED_CHANNELS, *_LIVE_CHANNELS, *_API_CHANNELS)


def spoken() -> tuple[type, ...]:
    """Every type that is said on some channel, requests and replies included, each once, in order."""
    found: list[Any] = []
    for channel in CHANNELS:
        found += [*channel.messages, channel.request, channel.reply]
    found.append(live.Reply)
    return tuple(dict.fromkeys(kind for kind in found if kind is not None))
