"""What people and programs ask for. Imperative; the verb is the last token of the subject `hr.cmd.<tenant>.<verb>`."""

from typing import Any, Literal

import msgspec

from headrace.contracts.envelope import Message


class StartRun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Body of `run-start`. `pipeline` is a registered name or `name@digest`; `runid` is the client's own key."""

    pipeline: str
    inputs: dict[str, Any] = {}
    runid: str = ""
    labels: dict[str, str] = {}


class RunStart(Message, frozen=True, tag="io.headrace.run.start.v1"):
    """Start a run. The same `runid` with the same body is the same start."""

    data: StartRun


class NameRun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Body of commands about one run."""

    runid: str
    reason: str = ""


class RunCancel(Message, frozen=True, tag="io.headrace.run.cancel.v1"):
    """Cancel a run."""

    data: NameRun


class RunPause(Message, frozen=True, tag="io.headrace.run.pause.v1"):
    """Pause a run."""

    data: NameRun


class RunResume(Message, frozen=True, tag="io.headrace.run.resume.v1"):
    """Resume a paused run."""

    data: NameRun


class RerunRun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Body of `run-rerun`. `newid` is the client's own key for the new run."""

    runid: str
    step: str
    """A step of the pipeline's own map: it and what depends on it run anew."""
    newid: str = ""


class RunRerun(Message, frozen=True, tag="io.headrace.run.rerun.v1"):
    """Start a run of the same definition and inputs that takes over what does not depend on a step."""

    data: RerunRun


class ForkRun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Body of `run-fork`. `newid` is the client's own key for the new run."""

    runid: str
    step: str
    """A step of the pipeline's own map: what comes before it is shared, or the fork is refused."""
    inputs: dict[str, Any] = {}
    """Those that change."""
    definition: str = ""
    """`name` or `name@digest` of an edited definition of the same pipeline; empty for the run's own."""
    newid: str = ""


class RunFork(Message, frozen=True, tag="io.headrace.run.fork.v1"):
    """Start a run that shares what came before a step, with other inputs or an edited definition."""

    data: ForkRun


class SignalRun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Body of `run-signal`. The payload fits the schema of the step that waits, or will wait, for the name."""

    runid: str
    name: str
    payload: Any = None


class RunSignal(Message, frozen=True, tag="io.headrace.run.signal.v1"):
    """Send a run a signal. One that comes before its step waits for it."""

    data: SignalRun


Answer = Literal["approve", "reject", "retry", "fail", "complete"]


class ApproveRun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Body of `run-approve`: an answer to exactly what was shown."""

    runid: str
    step: str
    """The step instance that asked, e.g. `review[3]/ok`."""
    hash: str
    """As the request says it: of what whoever answers was shown."""
    by: str
    """Who answers. The broker's permissions say who may send it, this says who it was."""
    decision: Answer = "approve"
    """The last three answer what became of a call whose outcome is unknown."""
    comment: str = ""
    value: Any = None
    """Of `complete`: the step's output."""


class RunApprove(Message, frozen=True, tag="io.headrace.run.approve.v1"):
    """Answer a step that asks a person. Of several answers one wins, for good."""

    data: ApproveRun


class RaiseBudget(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Body of `budget-raise`: by how much, in billionths of a dollar and in tokens."""

    runid: str
    usd_nanos: int = 0
    tokens: int = 0
    reason: str = ""


class BudgetRaise(Message, frozen=True, tag="io.headrace.budget.raise.v1"):
    """Allow a run to cost more: the budget that it waits for, else its own."""

    data: RaiseBudget


class PutDefinition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Body of `definition-put`: the document is already stored as blob `definitions/<digest>`."""

    pipeline: str
    digest: str
    arm: bool = False
    """Also arm the definition's triggers."""


class DefinitionPut(Message, frozen=True, tag="io.headrace.definition.put.v1"):
    """Register a definition."""

    data: PutDefinition


class NamePipeline(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Body of commands about one pipeline."""

    pipeline: str
    reason: str = ""


class DefinitionRetire(Message, frozen=True, tag="io.headrace.definition.retire.v1"):
    """Take a pipeline back: its triggers and schedules are disarmed, and a start by name finds nothing."""

    data: NamePipeline


class NameTrigger(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Body of commands about schedules. `trigger` counts the pipeline's schedules from 0; left out, all are meant."""

    pipeline: str
    trigger: int | None = None
    reason: str = ""


class TriggerPause(Message, frozen=True, tag="io.headrace.trigger.pause.v1"):
    """Pause schedules: nothing is started, and what falls due meanwhile is passed over."""

    data: NameTrigger


class TriggerResume(Message, frozen=True, tag="io.headrace.trigger.resume.v1"):
    """Resume paused schedules."""

    data: NameTrigger


class BackfillTrigger(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Body of `trigger-backfill`: every due instant from `from_ms` to `to_ms`, both included, that has no run yet."""

    pipeline: str
    from_ms: int
    to_ms: int
    trigger: int | None = None
    reason: str = ""


class TriggerBackfill(Message, frozen=True, tag="io.headrace.trigger.backfill.v1"):
    """Start the runs of past due instants."""

    data: BackfillTrigger


Command = (
    RunStart
    | RunCancel
    | RunSignal
    | RunApprove
    | BudgetRaise
    | RunRerun
    | RunFork
    | RunPause
    | RunResume
    | DefinitionPut
    | DefinitionRetire
    | TriggerPause
    | TriggerResume
    | TriggerBackfill
)

VERBS: dict[str, type[Command]] = {
    "run-start": RunStart,
    "run-cancel": RunCancel,
    "run-signal": RunSignal,
    "run-approve": RunApprove,
    "budget-raise": BudgetRaise,
    "run-rerun": RunRerun,
    "run-fork": RunFork,
    "run-pause": RunPause,
    "run-resume": RunResume,
    "definition-put": DefinitionPut,
    "definition-retire": DefinitionRetire,
    "trigger-pause": TriggerPause,
    "trigger-resume": TriggerResume,
    "trigger-backfill": TriggerBackfill,
}
