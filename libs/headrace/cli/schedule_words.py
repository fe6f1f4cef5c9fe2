"""`headrace triggers` and the words below it."""

from typing import Annotated

import typer

from headrace.cli.words import DataDir, Ended, Json, Name, Reason, Trigger

triggers = typer.Typer(
    help="Schedules of deployed pipelines; alone it lists them.", invoke_without_command=True, rich_markup_mode=None
)


@triggers.callback()
def list_triggers(context: typer.Context, as_json: Json = False, data_dir: DataDir = None) -> None:
    """Schedules of deployed pipelines; alone it lists them."""
    from headrace.cli.deploying import triggers_command

    if context.invoked_subcommand is None:
        raise Ended(triggers_command(data_dir=data_dir, as_json=as_json))


@triggers.command("pause")
def pause_trigger(
    pipeline: Name, trigger: Trigger = None, reason: Reason = "", as_json: Json = False, data_dir: DataDir = None
) -> None:
    """Pause schedules: what falls due meanwhile is passed over."""
    from headrace.cli.deploying import switch_command

    raise Ended(switch_command("pause", pipeline, trigger, reason=reason, data_dir=data_dir, as_json=as_json))


@triggers.command("resume")
def resume_trigger(
    pipeline: Name, trigger: Trigger = None, reason: Reason = "", as_json: Json = False, data_dir: DataDir = None
) -> None:
    """Resume paused schedules."""
    from headrace.cli.deploying import switch_command

    raise Ended(switch_command("resume", pipeline, trigger, reason=reason, data_dir=data_dir, as_json=as_json))


@triggers.command("backfill")
def backfill_trigger(
    pipeline: Name,
    since: Annotated[str, typer.Option("--from", metavar="INSTANT", help="E.g. 2026-11-25T06:00:00Z; included.")],
    until: Annotated[str, typer.Option("--to", metavar="INSTANT", help="Not after now; included.")],
    trigger: Trigger = None,
    reason: Reason = "",
    as_json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Start the runs of past due instants that have none."""
    from headrace.cli.deploying import backfill_command

    raise Ended(
        backfill_command(pipeline, trigger, since=since, until=until, reason=reason, data_dir=data_dir, as_json=as_json)
    )
