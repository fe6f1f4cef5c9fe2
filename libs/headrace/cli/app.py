"""The `headrace` command: words, options, exit codes.

What a command does is imported when it is called: `--help` and `validate` must not pay for NATS, pydantic and rich.
"""

import enum
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import Abort, TyperException

from headrace.cli.app_history import add_commands
from headrace.cli.schedule_words import triggers
from headrace.cli.tool_words import tools
from headrace.cli.words import (
    Answerer,
    CallValue,
    Comment,
    DataDir,
    Ended,
    File,
    Inputs,
    Json,
    Name,
    NatsServer,
    NewId,
    OutcomeAnswer,
    Payload,
    Raises,
    ReadRoots,
    Reason,
    Reject,
    RunId,
    ShownHash,
    SignalName,
    StepPath,
    Wait,
)
from headrace.contracts import names

app = typer.Typer(
    name="headrace",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
admin = typer.Typer(help="Make what must exist on a broker.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(admin, name="admin")
app.add_typer(triggers, name="triggers")
app.add_typer(tools, name="tools")


class Drawing(enum.StrEnum):
    """How a graph is drawn."""

    MERMAID = "mermaid"
    SVG = "svg"


def _version(asked: bool) -> None:  # typer gives an option's value so
    if asked:
        from headrace.cli.check import version_command

        raise Ended(version_command())


@app.callback()
def options(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Durable AI pipelines over NATS JetStream: kill any process at any instant, and the run goes on."""


@app.command()
def run(
    file: File,
    inputs: Inputs = None,
    as_json: Json = False,
    new: Annotated[bool, typer.Option("--new", help="Start another run, whatever is unfinished.")] = False,
    read_root: ReadRoots = None,
    data_dir: DataDir = None,
    nats_server: NatsServer = "",
) -> None:
    """Run a pipeline here and now. Broker and services are included; goes on with what a killed call left."""
    from headrace.cli.run import RunArgs, run_command

    args = RunArgs(
        file=file,
        pairs=tuple(inputs or ()),
        as_json=as_json,
        new=new,
        data_dir=data_dir,
        read_roots=tuple(read_root or ()),
        nats_server=nats_server,
    )
    raise Ended(run_command(args))


@app.command()
def generate(
    request: Annotated[str, typer.Argument(metavar="TEXT", help="What the pipeline is to do, or to do differently.")],
    model: Annotated[str, typer.Option("--model", metavar="PROVIDER/MODEL", help="Who drafts it.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="The file that is drafted, or changed.", show_default=False
        ),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Write the file without asking.")] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    nats_server: NatsServer = "",
) -> None:
    """Have a model draft or change a pipeline. It is checked, shown, and never run unasked."""
    from headrace.cli.generating import GenerateArgs, generate_command

    args = GenerateArgs(
        request=request,
        model=model,
        file=output,
        write=write,
        as_json=as_json,
        data_dir=data_dir,
        nats_server=nats_server,
    )
    raise Ended(generate_command(args))


@app.command()
def up(
    procs: Annotated[bool, typer.Option("--procs", help="One process a service, restarted when it dies.")] = False,
    as_json: Json = False,
    read_root: ReadRoots = None,
    data_dir: DataDir = None,
    nats_server: NatsServer = "",
) -> None:
    """Bring the whole system up on this machine, until Ctrl-C."""
    from headrace.cli.local import UpArgs, up_command

    args = UpArgs(
        procs=procs, as_json=as_json, data_dir=data_dir, read_roots=tuple(read_root or ()), nats_server=nats_server
    )
    raise Ended(up_command(args))


@app.command()
def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", readable=False)], as_json: Json = False
) -> None:
    """Check pipeline files: every problem with its place. Runs nothing, connects to nothing."""
    from headrace.cli.check import validate_command

    raise Ended(validate_command(files, as_json=as_json))


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(metavar="FILE|DIR", help="A pipeline_ex file, or a folder of them.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where the new files go.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Convert pipeline_ex files. Says what means something else now; runs nothing, connects to nothing."""
    from headrace.cli.importing import import_command

    raise Ended(import_command(source, out=out, as_json=as_json))


@app.command()
def plan(file: File, inputs: Inputs = None, as_json: Json = False) -> None:
    """Show the graph that would run. Order, defaults, queues, times, how many calls it makes; runs nothing."""
    from headrace.cli.planning import plan_command

    raise Ended(plan_command(file, inputs or (), as_json=as_json))


@app.command()
def graph(
    file: File,
    form: Annotated[Drawing, typer.Option("--format", help="Text for Mermaid, or a picture.")] = Drawing.MERMAID,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Instead of printing.", show_default=False)
    ] = None,
) -> None:
    """Draw the graph that would run. Runs nothing."""
    from headrace.cli.planning import graph_command

    raise Ended(graph_command(file, form=form.value, output=output))


@app.command()
def schema() -> None:
    """Print the JSON Schema of the pipeline language."""
    from headrace.cli.check import schema_command

    raise Ended(schema_command())


@app.command()
def submit(
    what: Annotated[str, typer.Argument(metavar="FILE|NAME", help="A pipeline file, or a registered pipeline.")],
    inputs: Inputs = None,
    run_id: NewId = "",
    wait: Wait = False,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Start a run on a running system; prints its id."""
    from headrace.cli.control import SubmitArgs, submit_command

    args = SubmitArgs(
        what=what, pairs=tuple(inputs or ()), run_id=run_id, wait=wait, as_json=as_json, data_dir=data_dir
    )
    raise Ended(submit_command(args))


@app.command()
def runs(
    pipeline: Annotated[str, typer.Option("--pipeline", help="Only of this pipeline.", show_default=False)] = "",
    status: Annotated[str, typer.Option("--status", help="Only in this status.", show_default=False)] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many, newest first.")] = 50,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """List runs, newest first."""
    from headrace.cli.inspect import runs_command

    raise Ended(runs_command(data_dir, pipeline=pipeline, status=status, limit=limit, as_json=as_json))


@app.command()
def show(run_id: RunId, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Show a run: its steps, attempts, errors and outputs."""
    from headrace.cli.inspect import show_command

    raise Ended(show_command(data_dir, run_id, as_json=as_json))


@app.command()
def watch(run_id: RunId, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Follow a run until it ends; the exit code is the run's."""
    from headrace.cli.inspect import watch_command

    raise Ended(watch_command(data_dir, run_id, as_json=as_json))


@app.command()
def events(
    run_id: RunId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the run ends.")] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Print a run's history, message by message."""
    from headrace.cli.inspect import events_command

    raise Ended(events_command(data_dir, run_id, follow=follow, as_json=as_json))


@app.command()
def export(run_id: RunId, data_dir: DataDir = None) -> None:
    """Print a run's messages exactly as stored. With those of its child runs, one JSON object a line."""
    from headrace.cli.inspect import export_command

    raise Ended(export_command(data_dir, run_id))


add_commands(app)


@app.command()
def signal(
    run_id: RunId, name: SignalName, payload: Payload = None, as_json: Json = False, data_dir: DataDir = None
) -> None:
    """Send a run a signal. One that comes before its step waits for it."""
    from headrace.cli.control import signal_command

    raise Ended(signal_command(run_id, name, payload=payload, data_dir=data_dir, as_json=as_json))


@app.command()
def approve(  # noqa: PLR0913 - the words of a command
    run_id: RunId,
    step: StepPath = "",
    budget: Raises = None,
    reject: Reject = False,
    outcome: OutcomeAnswer = None,
    value: CallValue = None,
    by: Answerer = "",
    shown: ShownHash = "",
    comment: Comment = "",
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Answer a step that asks a person. Exactly what is answered is shown first."""
    if budget:
        from headrace.cli.budgets import budget_command

        raise Ended(budget_command(run_id, budget, reason=comment, data_dir=data_dir, as_json=as_json))
    from headrace.cli.approving import ApproveArgs, approve_command

    args = ApproveArgs(
        run_id,
        step,
        decision="reject" if reject else outcome.value if outcome else "approve",
        by=by,
        hash=shown,
        comment=comment,
        value=value,
        as_json=as_json,
        data_dir=data_dir,
    )
    raise Ended(approve_command(args))


@app.command()
def cancel(run_id: RunId, reason: Reason = "", as_json: Json = False, data_dir: DataDir = None) -> None:
    """Cancel a run."""
    from headrace.cli.control import control_command

    raise Ended(control_command("cancel", run_id, reason=reason, data_dir=data_dir, as_json=as_json))


@app.command()
def pause(run_id: RunId, reason: Reason = "", as_json: Json = False, data_dir: DataDir = None) -> None:
    """Pause a run: steps in flight finish, nothing new starts."""
    from headrace.cli.control import control_command

    raise Ended(control_command("pause", run_id, reason=reason, data_dir=data_dir, as_json=as_json))


@app.command()
def resume(run_id: RunId, reason: Reason = "", as_json: Json = False, data_dir: DataDir = None) -> None:
    """Go on with a paused run."""
    from headrace.cli.control import control_command

    raise Ended(control_command("resume", run_id, reason=reason, data_dir=data_dir, as_json=as_json))


@app.command()
def deploy(file: File, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Register a pipeline and arm its triggers. Those deployed before are replaced."""
    from headrace.cli.deploying import deploy_command

    raise Ended(deploy_command(str(file), data_dir=data_dir, as_json=as_json))


@app.command()
def retire(pipeline: Name, reason: Reason = "", as_json: Json = False, data_dir: DataDir = None) -> None:
    """Take a pipeline back: nothing starts it any more. Its runs go on."""
    from headrace.cli.deploying import retire_command

    raise Ended(retire_command(pipeline, reason=reason, data_dir=data_dir, as_json=as_json))


@app.command()
def services(as_json: Json = False, data_dir: DataDir = None) -> None:
    """List the processes that are alive."""
    from headrace.cli.inspect import services_command

    raise Ended(services_command(data_dir, as_json=as_json))


@app.command()
def breakers(as_json: Json = False, data_dir: DataDir = None) -> None:
    """List providers that are not asked now, and until when."""
    from headrace.cli.breakers import breakers_command

    raise Ended(breakers_command(data_dir, as_json=as_json))


@app.command()
def doctor(as_json: Json = False, data_dir: DataDir = None) -> None:
    """Say what works here and what does not."""
    from headrace.cli.doctor import doctor_command

    raise Ended(doctor_command(data_dir, as_json=as_json))


@app.command()
def worker(
    module: Annotated[str, typer.Argument(metavar="MODULE", help="`my_tools.py`, a module, or `servers.yaml`.")],
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="Instead of the module's, for discovery.", show_default=False)
    ] = "",
    max_calls: Annotated[int, typer.Option("--max-calls", min=1, max=1000, help="Calls that run at a time.")] = 16,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Serve tools until Ctrl-C. Those of a Python file, or those of the MCP servers that a YAML file names."""
    from headrace.cli.worker import WorkerArgs, worker_command

    raise Ended(worker_command(WorkerArgs(module, name, max_calls, data_dir, as_json)))


@app.command()
def service(name: Annotated[str, typer.Argument(metavar="NAME", help="E.g. scheduler.")]) -> None:
    """Run one service in this process; the environment configures it."""
    from headrace.cli.local import service_command

    raise Ended(service_command(name))


@admin.command()
def migrate(
    replicas: Annotated[int, typer.Option("--replicas", min=1, max=5, help="Copies of each stream.")] = 1,
    cap: Annotated[
        list[str] | None,
        typer.Option("--cap", metavar="QUEUE=N", help="Attempts at a time in the whole cluster.", show_default=False),
    ] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Make every stream and durable, or say how one differs. HEADRACE_RUN_STREAMS is the number of run streams."""
    from headrace.cli.admin import migrate_command

    raise Ended(migrate_command(data_dir, replicas=replicas, caps=cap or (), as_json=as_json))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; gives the exit code."""
    _open_standard_streams()
    words = sys.argv[1:] if arguments is None else arguments
    try:
        app(words, prog_name="headrace", standalone_mode=False)
        return names.EXIT_OK
    except Ended as ended:
        return ended.code
    except typer.Exit as ended:
        return ended.exit_code
    except TyperException as error:
        return _usage(error)
    except (Abort, KeyboardInterrupt):
        return names.EXIT_DETACHED
    except Exception as error:  # noqa: BLE001  # the last word on any failure: one line, one exit code
        from headrace.cli.output import report_error

        return report_error(error, as_json="--json" in words)


def _open_standard_streams() -> None:
    """Where the caller has closed one, nothing else may get its number: event loops take low ones for what they say."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one


def _usage(error: TyperException) -> int:
    text = error.format_message()
    if "\n" in text:  # no command given: the help itself
        print(text)
    else:
        context = getattr(error, "ctx", None)
        command = "headrace" if context is None else context.command_path
        print(f"error: usage: {text}\nhint: `{command} --help`", file=sys.stderr)
    return names.EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main())
