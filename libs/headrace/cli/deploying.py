"""`deploy`, `retire` and `triggers`: pipelines that start by themselves."""

import datetime
from pathlib import Path
from typing import Literal

from headrace.cli.connection import connected
from headrace.cli.interrupt import run_interruptible
from headrace.cli.output import UsageError, emit, note, say, table
from headrace.cli.pricing import price_table
from headrace.contracts import names
from headrace.contracts.instants import rfc3339
from headrace.pipeline.bundle import load_bundle


def _unsure() -> None:
    note("the command may be stored; ask again to be sure")


def deploy_command(file: str, *, data_dir: Path | None, as_json: bool) -> int:
    """Register a file's definition and arm its triggers in place of those deployed before."""
    bundle = load_bundle(file, prices=price_table())

    async def work() -> int:
        async with connected(data_dir) as link:
            digest = await link.client.put_definition(bundle, arm=True)
            plan = bundle.plan
            if as_json:
                counts = {"events": len(plan.triggers), "schedules": len(plan.crons)}
                emit({"event": "deployed", "pipeline": plan.pipeline, "digest": digest} | counts)
            else:
                say(
                    f"deployed {plan.pipeline}@{digest[:12]}: "
                    f"{len(plan.triggers)} event triggers, {len(plan.crons)} schedules"
                )
            return names.EXIT_OK

    return run_interruptible(work(), detached=_unsure)


def retire_command(pipeline: str, *, reason: str, data_dir: Path | None, as_json: bool) -> int:
    """Take a pipeline back: nothing starts it any more; its runs go on."""

    async def work() -> int:
        async with connected(data_dir) as link:
            await link.client.retire(pipeline, reason=reason)
            if as_json:
                emit({"event": "retired", "pipeline": pipeline})
            else:
                say(f"{pipeline} is retired")
            return names.EXIT_OK

    return run_interruptible(work(), detached=_unsure)


def triggers_command(*, data_dir: Path | None, as_json: bool) -> int:
    """Every deployed schedule, how it stands, and when it is due."""

    async def work() -> int:
        async with connected(data_dir) as link:
            rows = await link.client.schedules()
            if as_json:
                for row in rows:
                    emit(
                        {
                            "pipeline": row.pipeline,
                            "trigger": row.trigger,
                            "status": row.status,
                            "next": rfc3339(row.next_ms) if row.next_ms else None,
                            "cron": row.schedule.cron,
                            "timezone": row.schedule.timezone,
                            "catch_up": row.schedule.catch_up,
                            "digest": row.defdigest,
                        }
                    )
                return names.EXIT_OK
            table(
                ("PIPELINE", "TRIGGER", "STATUS", "NEXT", "CRON", "TIMEZONE", "CATCH UP"),
                [
                    (
                        row.pipeline,
                        str(row.trigger),
                        row.status,
                        rfc3339(row.next_ms)[:19] + "Z" if row.next_ms else "",
                        row.schedule.cron,
                        row.schedule.timezone,
                        row.schedule.catch_up,
                    )
                    for row in rows
                ],
            )
            return names.EXIT_OK

    return run_interruptible(work(), detached=lambda: None)


def switch_command(
    verb: Literal["pause", "resume"],
    pipeline: str,
    trigger: int | None,
    *,
    reason: str,
    data_dir: Path | None,
    as_json: bool,
) -> int:
    """Pause or resume a pipeline's schedules, or one of them."""

    async def work() -> int:
        async with connected(data_dir) as link:
            ask = {"pause": link.client.pause_trigger, "resume": link.client.resume_trigger}[verb]
            await ask(pipeline, trigger, reason=reason)
            if as_json:
                emit({"event": f"trigger.{verb}.accepted", "pipeline": pipeline, "trigger": trigger})
            else:
                say(f"{verb} of {_named(pipeline, trigger)} is accepted")
            return names.EXIT_OK

    return run_interruptible(work(), detached=_unsure)


def backfill_command(
    pipeline: str,
    trigger: int | None,
    *,
    since: str,
    until: str,
    reason: str,
    data_dir: Path | None,
    as_json: bool,
) -> int:
    """Start the runs of past due instants that have none."""
    from_ms, to_ms = _instant_ms("--from", since), _instant_ms("--to", until)

    async def work() -> int:
        async with connected(data_dir) as link:
            await link.client.backfill_trigger(pipeline, trigger, from_ms=from_ms, to_ms=to_ms, reason=reason)
            if as_json:
                emit({"event": "trigger.backfill.accepted", "pipeline": pipeline, "trigger": trigger})
            else:
                say(f"backfill of {_named(pipeline, trigger)} is accepted")
            return names.EXIT_OK

    return run_interruptible(work(), detached=_unsure)


def _named(pipeline: str, trigger: int | None) -> str:
    return f"all schedules of {pipeline}" if trigger is None else f"schedule {trigger} of {pipeline}"


def _instant_ms(option: str, text: str) -> int:
    """Milliseconds since 1970 of an instant with its offset: a time of day alone would mean another one elsewhere."""
    try:
        instant = datetime.datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.tzinfo is None:
        msg = f"{option} {text[:60]}: expected an instant with its offset, such as 2026-11-25T06:00:00Z"
        raise UsageError(msg)
    return round(instant.timestamp() * 1000)
