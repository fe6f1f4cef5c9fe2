"""`rerun` and `fork`: a new run that goes on from what another one has done."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headrace.cli.connection import connected
from headrace.cli.control import report_start
from headrace.cli.inputs import parse_inputs
from headrace.cli.interrupt import run_interruptible
from headrace.cli.output import note
from headrace.client.client import Client
from headrace.pipeline.bundle import Bundle, load_bundle


@dataclass(slots=True, frozen=True)
class BranchArgs:
    """The command line of `rerun` and `fork`."""

    verb: Literal["rerun", "fork"]
    run: str
    step: str
    pairs: Sequence[str] = ()
    file: Path | None = None
    new_id: str = ""
    wait: bool = False
    as_json: bool = False
    data_dir: Path | None = None


def branch_command(args: BranchArgs) -> int:
    """Start the new run; prints its id, or shows it until it ends."""
    bundle = None if args.file is None else load_bundle(str(args.file))
    left = [args.new_id]

    async def work() -> int:
        async with connected(args.data_dir) as link:
            left[0] = await _start(link.client, args, bundle)
            return await report_start(link, left[0], wait=args.wait, as_json=args.as_json)

    return run_interruptible(work(), detached=lambda: note(f"detached from run {left[0]}, which goes on"))


async def _start(client: Client, args: BranchArgs, bundle: Bundle | None) -> str:
    if args.verb == "rerun":
        return await client.rerun(args.run, args.step, newid=args.new_id)
    plan = await client.plan_of(args.run) if bundle is None else bundle.plan
    inputs = parse_inputs(args.pairs, plan.inputs_schema["properties"])
    definition = ""
    if bundle is not None:
        await client.put_definition(bundle)
        definition = f"{bundle.plan.pipeline}@{bundle.digest}"
    return await client.fork(args.run, args.step, inputs, definition=definition, newid=args.new_id)
