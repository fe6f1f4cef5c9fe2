"""Every stream name and subject, built here and nowhere else, with who writes and who reads.

| stream         | written by                                          | read by                                   |
|----------------|-----------------------------------------------------|-------------------------------------------|
| HR_RUNS_n      | scheduler: decision, order, input; executor: report | scheduler, step-executor, monitor, anyone |
| HR_COMMANDS    | anyone with permission                              | scheduler (work queue)                    |
| HR_OUTCOMES    | scheduler                                           | whoever sent the command                  |
| HR_TRIGGERS    | anyone with permission, scheduler                   | scheduler                                 |
| HR_DEFINITIONS | scheduler                                           | scheduler, monitor                        |
| HR_TOOLS       | tool-registry                                       | tool-registry, step-executor, monitor     |
| HR_SESSIONS    | session-store                                       | session-store, monitor                    |
| HR_SYSTEM      | executor (breakers), monitor (alerts)               | all                                       |
| HR_DEAD        | whoever parks                                       | operators                                 |
| HR_BLOBS       | scheduler, executor, client                         | scheduler, executor, client               |
| KV_hr-leases, KV_hr-snapshots, KV_hr-cache | scheduler               | scheduler                                 |

Subject by subject, with the messages on each: `channels.py`.
"""

import re
from functools import lru_cache
from typing import Final, NamedTuple

from headrace.contracts.ids import command_token, partition_of, root_of

RUNS: Final = "HR_RUNS"
COMMANDS: Final = "HR_COMMANDS"
OUTCOMES: Final = "HR_OUTCOMES"
TRIGGERS: Final = "HR_TRIGGERS"
DEFINITIONS: Final = "HR_DEFINITIONS"
TOOLS: Final = "HR_TOOLS"
SESSIONS: Final = "HR_SESSIONS"
SYSTEM: Final = "HR_SYSTEM"
DEAD: Final = "HR_DEAD"
BLOBS: Final = "HR_BLOBS"
LEASES: Final = "KV_hr-leases"
SNAPSHOTS: Final = "KV_hr-snapshots"
CACHE: Final = "KV_hr-cache"
DEFINITION_ROOT: Final = "definitions"
"""Stands where a root run's id stands in a blob's subject: definitions outlive their runs."""


def runs_stream(part: int, *, streams: int = 1) -> str:
    """The run stream that holds a partition; streams take contiguous ranges of the 32 partitions."""
    return f"{RUNS}_{part * streams // 32}"


def runs_streams(streams: int = 1) -> tuple[str, ...]:
    """All run streams, in order."""
    return tuple(f"{RUNS}_{index}" for index in range(streams))


class RunSubject(NamedTuple):
    """A subject of a run stream, taken apart. `rest` is `scheduled.<queue>` for an order and a decision that is one."""

    tenant: str
    pipeline: str
    part: int
    run: str
    kind: str
    rest: str


@lru_cache(maxsize=8192)
def run_prefix(tenant: str, pipeline: str, run: str) -> str:
    """`hr.evt.<tenant>.<pipeline>.<part>.<run>`: the history of the run is everything under it, in stream order."""
    return f"hr.evt.{tenant}.{pipeline}.{partition_of(run):02d}.{run}"


def decision(prefix: str, headline: str) -> str:
    """Where a decision goes; `headline` may be `scheduled.<queue>`."""
    return f"{prefix}.decision.{headline}"


def decision_scope(prefix: str) -> str:
    """The one string that every decision of a run is checked against. A broker of three nodes compares strings."""
    return f"{prefix}.decision.>"


def creation_scope(run: str) -> str:
    """What the first decision of a run is checked against: a run is known by its id alone, whatever its pipeline."""
    return f"hr.evt.*.*.{partition_of(run):02d}.{run}.decision.>"


def order(prefix: str, queue: str) -> str:
    """Where a work order goes."""
    return f"{prefix}.order.scheduled.{queue}"


def input_(prefix: str, verb: str) -> str:
    """Where a fact from outside goes, e.g. `cancel-requested`."""
    return f"{prefix}.input.{verb}"


def answer(prefix: str, hashed: str) -> str:
    """Where a question to a person is answered; one subject a question, so that the sequence check picks one answer."""
    return f"{prefix}.input.approval-given.{hashed}"


def report(prefix: str, event: str) -> str:
    """Where an executor's report goes."""
    return f"{prefix}.report.{event}"


def claim(prefix: str, hashed: str) -> str:
    """Where an at-most-once call is claimed; one subject a call, so that the sequence check decides."""
    return f"{prefix}.report.claim.{hashed}"


def rounds(prefix: str, hashed: str) -> str:
    """Where the rounds of a model's loop go; one subject a step instance, so that the sequence check orders them."""
    return f"{prefix}.report.round.{hashed}"


def parse_run_subject(subject: str) -> RunSubject | None:
    """The parts of a run subject, or None when it is not one."""
    tokens = subject.split(".", 7)
    if len(tokens) != 8 or tokens[0] != "hr" or tokens[1] != "evt" or not tokens[4].isdigit():
        return None
    return RunSubject(tokens[2], tokens[3], int(tokens[4]), tokens[5], tokens[6], tokens[7])


def partition_filter(part: int) -> str:
    """Everything of a partition."""
    return f"hr.evt.*.*.{part:02d}.>"


def run_filter(run: str, *, tenant: str = "*") -> str:
    """Everything of one run, whatever its pipeline (and its tenant, unless one is given)."""
    return f"hr.evt.{tenant}.*.{partition_of(run):02d}.{run}.>"


def order_filters(queue: str) -> tuple[str]:
    """What an executor's consumer of a queue listens to: orders, and decisions that are their own order.

    One filter, because a consumer with two reads a backlog of 14,000 orders at 300 a second, with one at 34,000: with
    several filters the server (2.15) searches all subjects of a block for each message.
    """
    return (f"hr.evt.*.*.*.*.*.scheduled.{queue}",)


def end_filters() -> tuple[str, ...]:
    """Decisions that end work in flight; executors tail them."""
    return tuple(f"hr.evt.*.*.*.*.decision.{head}" for head in ("run-cancelling", "run-cancelled", "run-failed"))


def order_consumer(queue: str) -> str:
    """The durable that all executors of a queue share."""
    return f"EXEC-{queue}"


DECISIONS_ALL: Final = "hr.evt.*.*.*.*.decision.>"
TOOLS_ALL: Final = "hr.tool.>"
INTAKE_CONSUMER: Final = "INTAKE"
TRIGGER_CONSUMER: Final = "TRIGGERS"


def command(tenant: str, verb: str) -> str:
    """Where a command goes."""
    return f"hr.cmd.{tenant}.{verb}"


def outcome(tenant: str, command_id: str) -> str:
    """Where a command's answer lies."""
    return f"hr.outcome.{tenant}.{command_token(command_id)}"


def trigger(tenant: str, name: str) -> str:
    """Where an outside event goes that pipelines listen for."""
    return f"hr.trig.{tenant}.{name}"


def definition(tenant: str, pipeline: str) -> str:
    """Where a pipeline's definitions are recorded."""
    return f"hr.def.{tenant}.{pipeline}"


BUILTIN: Final = "builtin"
"""The endpoint of a tool that every executor has."""
RESPONDER: Final = "nats:"
"""An endpoint `nats:<subject>` is a responder on the bus: it gets a live.Request and answers with a live.Reply."""
RESPONDER_RE: Final = re.compile(r"nats:(?!hr\.)(?!hr$)[A-Za-z0-9][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+){0,15}")
"""Executors publish there with rights of their own, so neither the engine's subjects nor the broker's (`$…`, `_…`)."""


def tool(tenant: str, tool_token: str) -> str:
    """Where a tool's events are recorded."""
    return f"hr.tool.{tenant}.{tool_token}"


def session(tenant: str, session_token: str) -> str:
    """Where a conversation is recorded."""
    return f"hr.ses.{tenant}.{session_token}"


def alert(rule: str) -> str:
    """Where an alert is raised and cleared."""
    return f"hr.sys.alert.{rule}"


def breaker(name: str) -> str:
    """Where a breaker's changes are told."""
    return f"hr.sys.breaker.{name}"


BREAKERS_ALL: Final = "hr.sys.breaker.*"


def dead(tenant: str, stream: str) -> str:
    """Where messages of a stream are parked."""
    return f"hr.dead.{tenant}.{stream}"


def blob(tenant: str, ref: str, chunk: int | None = None) -> str:
    """Where a blob `<root run>/<sha256>` lies, or one chunk of it."""
    root, _, digest = ref.partition("/")
    return f"hr.blob.{tenant}.{root}.{digest}" + ("" if chunk is None else f".{chunk}")


def blob_ref(run: str, digest: str) -> str:
    """The reference of a value that belongs to a run's tree."""
    return f"{root_of(run)}/{digest}"


def kv(bucket_stream: str, key: str) -> str:
    """The subject of a key; buckets are streams named `KV_<bucket>`."""
    return f"$KV.{bucket_stream.removeprefix('KV_')}.{key}"


def presence(instance: str) -> str:
    """Where a process beats. Core NATS, never stored."""
    return f"hr.live.presence.{instance}"


PRESENCE_ALL: Final = "hr.live.presence.*"
PRESENCE_PLEASE: Final = "hr.live.presence-please"
"""An owner asks every executor for its full list of orders in hand."""
REVOKE: Final = "hr.live.revoke"
"""An owner tells executors that an attempt is over for the engine: stop working on it."""


def live(tenant: str, run: str, step_token: str) -> str:
    """Where progress and deltas of a step go. Best effort."""
    return f"hr.live.{tenant}.{run}.{step_token}"


def api(service: str, verb: str) -> str:
    """Where a service answers requests."""
    return f"hr.api.{service}.{verb}"


def order_current(part: int) -> str:
    """Where the owner of a partition says whether orders are still current."""
    return f"hr.api.scheduler.order-current.{part:02d}"
