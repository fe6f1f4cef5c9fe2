"""What people and programs ask for. Imperative; the verb is the last token of the subject `hr.cmd.<tenant>.<verb>`."""

from typing import Any

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


class PutDefinition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Body of `definition-put`: the document is already stored as blob `definitions/<digest>`."""

    pipeline: str
    digest: str
    arm: bool = False
    """Also arm the definition's triggers."""


class DefinitionPut(Message, frozen=True, tag="io.headrace.definition.put.v1"):
    """Register a definition."""

    data: PutDefinition


Command = RunStart | RunCancel | RunPause | RunResume | DefinitionPut

VERBS: dict[str, type[Command]] = {
    "run-start": RunStart,
    "run-cancel": RunCancel,
    "run-pause": RunPause,
    "run-resume": RunResume,
    "definition-put": DefinitionPut,
}
