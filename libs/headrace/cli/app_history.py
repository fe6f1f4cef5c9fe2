"""Words of the command line about what runs have done: `explain`, `diff`, `rerun`, `fork`."""

from typing import Annotated

import typer

from headrace.cli.words import At, DataDir, EditedFile, Ended, From, Inputs, Json, NewId, RunId, Wait


def add_commands(app: typer.Typer) -> None:
    """Add them, in this order."""
    for command in (explain, diff, rerun, fork):
        app.command()(command)


def explain(
    run_id: RunId,
    step: Annotated[
        str, typer.Argument(metavar="STEP", help="A step, or an instance such as each[3].", show_default=False)
    ] = "",
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Say why a run or a step stands as it does. With the events that prove it."""
    from headrace.cli.explaining import explain_command

    raise Ended(explain_command(data_dir, run_id, step, as_json=as_json))


def diff(
    run_id: RunId,
    other: Annotated[str, typer.Argument(metavar="RUN", help="The id of another run.")],
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Compare two runs. The first event in which they differ is named, then what differs step by step."""
    from headrace.cli.explaining import diff_command

    raise Ended(diff_command(data_dir, run_id, other, as_json=as_json))


def rerun(
    run_id: RunId, step: From, new_id: NewId = "", wait: Wait = False, as_json: Json = False, data_dir: DataDir = None
) -> None:
    """Run a step and what depends on it again. In a new run that takes over the rest from this one."""
    from headrace.cli.branching import BranchArgs, branch_command

    args = BranchArgs("rerun", run_id, step, new_id=new_id, wait=wait, as_json=as_json, data_dir=data_dir)
    raise Ended(branch_command(args))


def fork(
    run_id: RunId,
    step: At,
    inputs: Inputs = None,
    file: EditedFile = None,
    new_id: NewId = "",
    wait: Wait = False,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Start a run that shares what came before a step. With other inputs, or an edited file."""
    from headrace.cli.branching import BranchArgs, branch_command

    pairs = tuple(inputs or ())
    args = BranchArgs("fork", run_id, step, pairs, file, new_id=new_id, wait=wait, as_json=as_json, data_dir=data_dir)
    raise Ended(branch_command(args))
