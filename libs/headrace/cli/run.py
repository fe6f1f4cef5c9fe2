"""`headrace run`: a pipeline from file to result with nothing prepared, resumed where an earlier call was killed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from headrace.cli.connection import cli_settings
from headrace.cli.here import system_here
from headrace.cli.inputs import complete_inputs, parse_inputs
from headrace.cli.interrupt import run_interruptible
from headrace.cli.output import emit, note
from headrace.cli.pricing import price_table
from headrace.cli.watching import durability_text, report_result, watch_run
from headrace.client.client import Client
from headrace.client.history import RunView
from headrace.contracts.canonical import canonical_json, sha256_hex
from headrace.contracts.codec import encode_value
from headrace.contracts.live import ListRuns, RunList
from headrace.contracts.names import INLINE_BYTES_MAX
from headrace.local.files import workspace_of
from headrace.pipeline.bundle import Bundle, load_bundle
from headrace.pipeline.plan import Plan
from headrace.pipeline.schema import MODEL_DEFAULT
from headrace.runtime.api import call
from headrace.runtime.config import Settings
from headrace.runtime.eventlog import Broker

UNFINISHED: Final = ("running", "paused", "blocked")
"""What the same command goes on with. A stalled run stays as it is, for somebody to look at."""
LOOKED_AT_MAX: Final = 200
"""Newest unfinished runs of the pipeline that are compared."""
FILE_LABEL: Final = "file"


@dataclass(slots=True, frozen=True)
class RunArgs:
    """The command line of `run`."""

    file: Path
    pairs: tuple[str, ...] = ()
    as_json: bool = False
    new: bool = False
    data_dir: Path | None = None
    read_roots: tuple[Path, ...] = ()
    nats_server: str = ""


def run_command(args: RunArgs) -> int:
    """The exit code of `headrace run`."""
    bundle = load_bundle(args.file, prices=price_table())
    inputs = complete_inputs(bundle.plan, parse_inputs(args.pairs, bundle.plan.inputs_schema["properties"]))
    job = _Job(args, bundle, inputs, cli_settings(args.data_dir))
    return run_interruptible(job.main(), detached=job.say_detached)


class _Job:
    def __init__(self, args: RunArgs, bundle: Bundle, inputs: dict[str, Any], settings: Settings) -> None:
        self._args, self._bundle, self._inputs, self._settings = args, bundle, inputs, settings
        self._data_dir = settings.data_dir
        self._file = str(args.file.resolve())
        self._run = ""
        self._attached = False

    async def main(self) -> int:
        """Bring the system up, or attach to the one that `headrace up` keeps here; then the run."""
        here = system_here(
            self._settings,
            granted=granted(self._args.file, self._args.read_roots),
            more=bool(self._args.read_roots),
            models=models_of(self._bundle.plan, self._inputs),
            nats_server=self._args.nats_server,
        )
        async with here as system:
            self._attached = system.attached
            return await self._carry_out(system.broker, system.client)

    async def _carry_out(self, broker: Broker, client: Client) -> int:
        view = None if self._args.new else await self._unfinished(broker, client)
        resumed = view is not None
        if view is None:
            view = await self._start(client)
        elif view.status == "paused":
            await client.resume(view.run)
        self._run = view.run
        self._introduce(view, resumed=resumed)
        await watch_run(client, view, as_json=self._args.as_json)
        workspace = workspace_of(self._data_dir, client.tenant, view.run)
        return await report_result(client, view, workspace=workspace, as_json=self._args.as_json)

    async def _start(self, client: Client) -> RunView:
        await client.put_definition(self._bundle)
        name = f"{self._bundle.plan.pipeline}@{self._bundle.digest}"
        run = await client.start(name, self._inputs, labels={FILE_LABEL: self._file})
        return RunView(run)

    async def _unfinished(self, broker: Broker, client: Client) -> RunView | None:
        """The newest run of this file, digest and inputs that has not ended."""
        inputs_sha = _inputs_sha(self._inputs)
        rows = []
        for status in UNFINISHED:
            ask = ListRuns(pipeline=self._bundle.plan.pipeline, status=status, limit=LOOKED_AT_MAX)
            found = await call(
                broker, "monitor", "runs", ask, RunList, tenant=client.tenant, request_id=client.new_id()
            )
            rows += [
                row
                for row in found.runs
                if row.defdigest == self._bundle.digest
                and row.inputs_sha == inputs_sha
                and row.labels.get(FILE_LABEL) == self._file
            ]
        if not rows:
            return None
        return await client.view(max(rows, key=lambda row: row.created_ms).run)

    def _introduce(self, view: RunView, *, resumed: bool) -> None:
        done = sum(step.status == "completed" for step in view.steps.values())
        durability = view.durability or self._settings.durability or "D0"
        if self._args.as_json:
            kind = "resumed" if resumed else "started"
            emit({"event": kind, "run": view.run, "durability": durability, "completed_steps": done})
            return
        if resumed:
            kept = "1 step is completed and stays so" if done == 1 else f"{done} steps are completed and stay so"
            note(f"resumes run {view.run}: {kept} (--new starts another)")
        else:
            note(f"run {view.run}")
        if not self._attached:
            note(durability_text(durability))
        models = models_of(self._bundle.plan, self._inputs)
        if MODEL_DEFAULT in models:
            note(f"model {MODEL_DEFAULT}: answers with what it was asked; needs no key and no network")

    def say_detached(self) -> None:
        """After Ctrl-C."""
        if not self._run:
            note("stopped before the run began")
        elif self._attached:
            note(f"detached from run {self._run}, which goes on; `headrace watch {self._run}` shows it")
        else:
            note(f"detached from run {self._run}; the same command goes on with it")


def granted(file: Path, more: tuple[Path, ...]) -> tuple[Path, ...]:
    """What tools may read: the working directory, the pipeline file's folder, and what was granted besides."""
    return tuple(dict.fromkeys(path.absolute() for path in (Path.cwd(), file.absolute().parent, *more)))


def models_of(plan: Plan, inputs: dict[str, Any]) -> set[str]:
    """Models that the steps name, as far as the file and the inputs tell."""
    found = set()
    for node in plan.nodes:
        if node.kind == "llm":
            named = _constant(node.spec.source.get("model", MODEL_DEFAULT), inputs)
            found |= {named} if isinstance(named, str) else set(named if isinstance(named, list) else ())
    return found


def _constant(text: Any, inputs: dict[str, Any]) -> Any:
    """A value that is written as it is, or as exactly one input."""
    if isinstance(text, str) and text.startswith("${{") and text.endswith("}}"):
        name = text[3:-2].strip()
        return inputs.get(name.removeprefix("inputs."), "") if name.startswith("inputs.") else ""
    return text


def _inputs_sha(inputs: dict[str, Any]) -> str:
    """As the monitor computes it: over canonical JSON, or the stored bytes where they travel by reference."""
    data = encode_value(inputs)
    if len(data) > INLINE_BYTES_MAX:
        return sha256_hex(data)
    return sha256_hex(canonical_json(msgspec.json.decode(data)))
