"""Schedules and the world: what the newest definitions want of each, and how a due instant becomes a run."""

from typing import Any

from headrace.contracts import commands as cmd
from headrace.contracts import ids, pseudo
from headrace.contracts.canonical import blake2b_hex, canonical_json
from headrace.contracts.envelope import SPECVERSION
from headrace.contracts.errors import ExpressionError, TerminalError
from headrace.contracts.instants import rfc3339
from headrace.pipeline.evaluation import NOW
from headrace.pipeline.expressions import compile_expression, compile_template, evaluate_condition, render
from headrace_scheduler.cron import Cron, Ended, Wanted, refused
from headrace_scheduler.definitions import Armed, Definitions
from headrace_scheduler.intake import Intake, KeyReusedError
from headrace_scheduler.plans import Plans


class Schedules:
    """What all partitions of a process know of schedules."""

    def __init__(self, definitions: Definitions, plans: Plans, intake: Intake) -> None:
        self._definitions, self._plans, self._intake = definitions, plans, intake

    @property
    def revision(self) -> int:
        """Another whenever a definition was registered or retired; 0 while it is not known what there is."""
        return self._definitions.fold.seq if self._definitions.fold.caught_up else 0

    def of_part(self, part: int) -> dict[str, Cron]:
        """Every schedule of the partition that a definition wants, by id, as it is before its first message."""
        found = {}
        for (tenant, pipeline), armed in self._definitions.armed.items():
            for number in range(len(armed.crons)):
                run = ids.schedule_id(tenant, pipeline, number)
                if ids.partition_of(run) == part:
                    found[run] = Cron(run=run, tenant=tenant, pipeline=pipeline, trigger=number)
        return found

    def wanted(self, cron: Cron) -> Wanted | None:
        """What the newest definition says; None where this process knows none, or may know an old one."""
        if not self._definitions.fold.caught_up:
            return None
        armed = self._definitions.armed.get((cron.tenant, cron.pipeline))
        return None if armed is None else _wanted(cron, armed)

    async def start(self, cron: Cron, due_ms: int, digest: str, run_id: str) -> Ended:
        """Make the run of a due instant, unless its condition is false; doing it again changes nothing.

        Raises:
            RetryableError: not now. UnknownOutcomeError: perhaps.
        """
        event = {"due": rfc3339(due_ms)}
        values: dict[str, Any] = {"event": event, NOW: due_ms}
        try:
            plan = await self._plans.get(cron.tenant, digest)
            trigger = plan.crons[cron.trigger]
            values["vars"] = dict(plan.vars)
            if trigger.when and not evaluate_condition(compile_expression(trigger.when), values):
                return pseudo.TriggerSkipped(due_ms=due_ms)
            inputs = render(compile_template(trigger.inputs), values)
            cause = cmd.RunStart(
                specversion=SPECVERSION,
                id=cron.run,
                source="",
                time="",
                schemaver=1,
                tenant=cron.tenant,
                data=cmd.StartRun(pipeline=f"{cron.pipeline}@{digest}", inputs=inputs, runid=run_id),
            )
            request = blake2b_hex(canonical_json([cron.run, due_ms, digest]))
            await self._intake.create_run(
                plan, cause, run_id=run_id, inputs=inputs, labels={}, request=request, event=event
            )
        except KeyReusedError:  # fired before, by another definition: an instant has one run
            return pseudo.TriggerStarted(due_ms=due_ms, run=run_id)
        except (TerminalError, ExpressionError) as error:
            return refused(due_ms, error.failure())
        return pseudo.TriggerStarted(due_ms=due_ms, run=run_id)


def _wanted(cron: Cron, armed: Armed) -> Wanted:
    for number, schedule in enumerate(armed.crons):
        if ids.schedule_id(cron.tenant, cron.pipeline, number) == cron.run:
            return Wanted(seq=armed.seq, trigger=number, digest=armed.digest, schedule=schedule, since_ms=armed.at_ms)
    return Wanted(seq=armed.seq, digest=armed.digest, schedule=None, since_ms=armed.at_ms)
