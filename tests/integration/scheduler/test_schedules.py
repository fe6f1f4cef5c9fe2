"""Schedules over a real nats-server: deployed, fired once whoever owns them, caught up, paused, backfilled, retired."""

import functools
from typing import Any

from headrace.contracts import events as ev
from headrace.contracts import ids, pseudo
from headrace.contracts.instants import rfc3339
from headrace.runtime.clock import SystemClock
from headrace.runtime.jetstream import JetStreamBroker
from tests.conftest import until
from tests.engine import command, deployed_ago, finished, history, outputs, put, running_scheduler, start

HOUR = 3_600_000
TEXT = """
pipeline: hourly
inputs: {at: {type: string, default: never}}
outputs: {at: "${{ steps.say.output }}"}
triggers: [{cron: "MINUTE * * * *", catch_up: CATCH_UP, inputs: {at: "${{ event.due }}"}}]
steps: {say: {transform: "${{ inputs.at }}"}}
"""
SCHEDULE = ids.schedule_id("default", "hourly", 0)


@functools.cache  # asked twice around the end of a minute it would be two schedules
def _minute() -> int:
    return (SystemClock().now_ms() // 60_000 + 30) % 60


def hourly(catch_up: str) -> str:
    """Due half an hour from now and half an hour ago: no test meets an instant."""
    return TEXT.replace("MINUTE", str(_minute())).replace("CATCH_UP", catch_up)


def hours(from_ms: int, to_ms: int) -> list[int]:
    """Due instants after one instant and up to another."""
    into_ms = _minute() * 60_000
    first = from_ms - (from_ms - into_ms) % HOUR + HOUR
    return list(range(first, to_ms + 1, HOUR))


async def told(broker: JetStreamBroker, kind: Any, schedule: str = SCHEDULE) -> list[Any]:
    """All events of a kind in the schedule's decisions."""
    return [
        event
        for message in await history(broker, schedule)
        if isinstance(message, pseudo.TriggerDecided)
        for event in message.data.events
        if isinstance(event, kind)
    ]


async def settled(broker: JetStreamBroker, count: int) -> list[Any]:
    """That many instants have been fired, and each has its run."""

    async def all_there() -> bool:
        return len(await told(broker, pseudo.TriggerStarted)) >= count

    await until(all_there, within_s=30, what=f"{count} runs started")
    return await told(broker, pseudo.TriggerFired)


async def test_a_missed_cron_fires_once_after_an_outage_whoever_comes_first(broker: JetStreamBroker) -> None:
    """Given an hourly pipeline and five hours without any scheduler: two come up, and one run is started, the last."""
    began_ms = await deployed_ago(broker, hourly("once"), ago_ms=5 * HOUR)
    async with running_scheduler(broker, "s1"), running_scheduler(broker, "s2"):
        fired = await settled(broker, 1)
        missed = hours(began_ms, SystemClock().now_ms())
        assert [event.due_ms for event in fired] == missed[-1:]
        (run,) = [event.run for event in await told(broker, pseudo.TriggerStarted)]
        assert run == ids.scheduled_run_id(SCHEDULE, missed[-1])
        assert outputs(await finished(broker, run)) == {"at": rfc3339(missed[-1])}


async def test_with_catch_up_all_every_missed_instant_has_its_run(broker: JetStreamBroker) -> None:
    """Forty-eight hours are caught up, in helpings and in order; a takeover fires none of them again."""
    began_ms = await deployed_ago(broker, hourly("all"), ago_ms=48 * HOUR)
    async with running_scheduler(broker, "s1"):
        fired = await settled(broker, 48)
    missed = hours(began_ms, SystemClock().now_ms())
    assert [event.due_ms for event in fired] == missed
    async with running_scheduler(broker, "s2"):
        for due_ms in missed:
            await finished(broker, ids.scheduled_run_id(SCHEDULE, due_ms))
        assert [event.due_ms for event in await told(broker, pseudo.TriggerFired)] == missed


async def test_a_schedule_is_paused_resumed_backfilled_and_retired(broker: JetStreamBroker) -> None:
    """Each command is answered; what it asked for shows in the schedule's own history."""
    now_ms = SystemClock().now_ms()
    async with running_scheduler(broker, "s1") as one, running_scheduler(broker, "s2"):
        await put(broker, hourly("once"), arm=True)
        named = {"pipeline": "hourly"}
        assert isinstance(await command(broker, "trigger-pause", named, command_id="p1"), ev.CommandAccepted)
        await _told(broker, pseudo.TriggerPaused)
        assert isinstance(await command(broker, "trigger-resume", named, command_id="p2"), ev.CommandAccepted)
        await _told(broker, pseudo.TriggerResumed)
        span = named | {"trigger": 0, "from_ms": now_ms - 3 * HOUR, "to_ms": now_ms - 1}
        assert isinstance(await command(broker, "trigger-backfill", span, command_id="b1"), ev.CommandAccepted)
        expected = hours(now_ms - 3 * HOUR - 1, now_ms - 1)
        fired = await settled(broker, len(expected))
        assert [event.due_ms for event in fired if event.backfill] == expected
        assert isinstance(await command(broker, "trigger-backfill", span, command_id="b2"), ev.CommandAccepted)
        await settled(broker, 2 * len(expected))
        creations = [
            message
            for due_ms in expected
            for message in await history(broker, ids.scheduled_run_id(SCHEDULE, due_ms))
            if isinstance(message, ev.RunDecided) and message.data.version == 1
        ]
        assert len(creations) == len(expected), "asked for twice, an instant still has one run"
        assert isinstance(await command(broker, "definition-retire", named, command_id="r1"), ev.CommandAccepted)
        await _told(broker, pseudo.TriggerDisarmed)
        await until(lambda: "hourly" not in one._definitions.newest.get("default", {}), what="retired")
        answer = await command(broker, "run-start", {"pipeline": "hourly", "runid": "late"}, command_id="late")
        assert isinstance(answer, ev.CommandRefused) and answer.data.reasons[0].code == "not_found"


async def _told(broker: JetStreamBroker, kind: Any) -> None:
    async def there() -> bool:
        return bool(await told(broker, kind))

    await until(there, within_s=10, what=kind.__name__)


async def test_a_registration_that_arms_nothing_leaves_what_is_deployed(broker: JetStreamBroker) -> None:
    """`submit` of a changed file must not stop the schedule, nor fire what nobody deployed."""
    await deployed_ago(broker, hourly("once"), ago_ms=2 * HOUR)
    async with running_scheduler(broker) as scheduler:
        await settled(broker, 1)
        digest = await put(broker, hourly("all"))
        await until(lambda: scheduler._definitions.newest["default"]["hourly"] == digest, what="registered")
        assert scheduler._definitions.armed["default", "hourly"].crons[0].catch_up == "once"
        await start(broker, "hourly", "by-hand")
        assert outputs(await finished(broker, "by-hand")) == {"at": "never"}


async def test_commands_about_schedules_that_do_not_exist_are_refused(broker: JetStreamBroker) -> None:
    """With what there is; a backfill of the future, backwards, or of too much likewise."""
    now_ms = SystemClock().now_ms()
    async with running_scheduler(broker):
        await put(broker, hourly("once"), arm=True)
        cases = [
            ("trigger-pause", {"pipeline": "other"}, "not_found", "no schedule"),
            ("trigger-pause", {"pipeline": "hourly", "trigger": 1}, "not_found", "it has 1, counted from 0"),
            ("trigger-resume", {"pipeline": "NO.PE"}, "not_found", "no pipeline"),
            ("definition-retire", {"pipeline": "other"}, "not_found", "no pipeline"),
            ("trigger-backfill", {"pipeline": "hourly", "from_ms": 1, "to_ms": now_ms}, "invalid", "more than 1000"),
            ("trigger-backfill", {"pipeline": "hourly", "from_ms": 2, "to_ms": 1}, "invalid", "begins before"),
            ("trigger-backfill", {"pipeline": "hourly", "from_ms": 2, "to_ms": now_ms + HOUR}, "invalid", "the past"),
        ]
        for number, (verb, data, code, text) in enumerate(cases):
            answer = await command(broker, verb, data, command_id=f"bad-{number}")
            assert isinstance(answer, ev.CommandRefused), (verb, data)
            (reason,) = answer.data.reasons
            assert text in reason.message, reason
            assert (reason.code == "not_found") == (code == "not_found"), reason


async def test_a_start_that_is_refused_is_in_the_schedules_history(broker: JetStreamBroker) -> None:
    """A schedule whose inputs do not fit says so each time, and goes on."""
    text = hourly("once").replace("at: {type: string, default: never}", "at: {type: integer}")
    await deployed_ago(broker, text, ago_ms=2 * HOUR)
    async with running_scheduler(broker):
        await _told(broker, pseudo.TriggerRefused)
        (refused,) = await told(broker, pseudo.TriggerRefused)
        assert "at" in refused.failure.message


async def test_a_condition_that_is_false_skips_the_instant(broker: JetStreamBroker) -> None:
    """`when` sees the instant."""
    text = hourly("once, when: \"event.due < '2020'\"")
    await deployed_ago(broker, text, ago_ms=2 * HOUR)
    async with running_scheduler(broker):
        await _told(broker, pseudo.TriggerSkipped)
        assert await told(broker, pseudo.TriggerStarted) == []
