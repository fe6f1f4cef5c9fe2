"""Asking for something: `submit`, `signal`, `cancel`, `pause`, `resume`. Each waits for its outcome."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headrace.cli.connection import Connection, connected
from headrace.cli.inputs import complete_inputs, parse_inputs, parse_payload
from headrace.cli.interrupt import run_interruptible
from headrace.cli.output import emit, note, say
from headrace.cli.pricing import price_table
from headrace.cli.watching import report_result, watch_run
from headrace.client.history import RunView
from headrace.contracts import ids, names
from headrace.local.files import workspace_of
from headrace.pipeline.bundle import Bundle, load_bundle

Verb = Literal["cancel", "pause", "resume"]


@dataclass(slots=True, frozen=True)
class SubmitArgs:
    """The command line of `submit`."""

    what: str
    pairs: Sequence[str] = ()
    run_id: str = ""
    wait: bool = False
    as_json: bool = False
    data_dir: Path | None = None


def submit_command(args: SubmitArgs) -> int:
    """Start a run of a file or of a registered pipeline."""
    bundle = _bundle(args.what)
    properties = {} if bundle is None else bundle.plan.inputs_schema["properties"]
    inputs = parse_inputs(args.pairs, properties)
    if bundle is not None:
        complete_inputs(bundle.plan, inputs)  # to refuse here, with nothing sent
    left = [args.run_id]

    async def work() -> int:
        async with connected(args.data_dir) as link:
            name = args.what
            if bundle is not None:
                await link.client.put_definition(bundle)
                name = f"{bundle.plan.pipeline}@{bundle.digest}"
            left[0] = await link.client.start(name, inputs, runid=args.run_id)
            return await report_start(link, left[0], wait=args.wait, as_json=args.as_json)

    return run_interruptible(work(), detached=lambda: note(f"detached from run {left[0]}, which goes on"))


async def report_start(link: Connection, run: str, *, wait: bool, as_json: bool) -> int:
    """Print the id of a run that was started; with `wait` show it until it ends, and its exit code is the run's."""
    if as_json:
        emit({"event": "started", "run": run})
    elif wait:
        note(f"run {run}")
    else:
        say(run)
    if not wait:
        return names.EXIT_OK
    view = RunView(run)
    await watch_run(link.client, view, as_json=as_json)
    workspace = workspace_of(link.settings.data_dir, link.settings.tenant, run)
    return await report_result(link.client, view, workspace=workspace if workspace.is_dir() else None, as_json=as_json)


def _bundle(what: str) -> Bundle | None:
    """The file's bundle; None when `what` names a registered pipeline."""
    name, _, digest = what.partition("@")
    is_name = ids.NAME_RE.fullmatch(name) is not None and (not digest or len(digest) == 64)
    return None if is_name and not Path(what).exists() else load_bundle(what, prices=price_table())


def signal_command(run: str, name: str, *, payload: str | None, data_dir: Path | None, as_json: bool) -> int:
    """Send a run a signal; returns once it is stored."""
    value = parse_payload(payload)

    async def work() -> int:
        async with connected(data_dir) as link:
            await link.client.signal(run, name, value)
            if as_json:
                emit({"event": "signal.accepted", "run": run, "name": name})
            else:
                say(f"signal `{name}` to run {run} is accepted")
            return names.EXIT_OK

    return run_interruptible(work(), detached=lambda: note("the signal may be stored; look at the run's events"))


def control_command(verb: Verb, run: str, *, reason: str, data_dir: Path | None, as_json: bool) -> int:
    """Cancel, pause or resume a run; returns once the command's event is stored."""

    async def work() -> int:
        async with connected(data_dir) as link:
            ask = {"cancel": link.client.cancel, "pause": link.client.pause, "resume": link.client.resume}[verb]
            await ask(run, reason=reason)
            if as_json:
                emit({"event": f"{verb}.accepted", "run": run})
            else:
                say(f"{verb} of run {run} is accepted")
            return names.EXIT_OK

    return run_interruptible(work(), detached=lambda: note("the command may be stored; ask again to be sure"))
