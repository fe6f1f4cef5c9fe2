"""Events out of runs, through a real broker: what they start, how often, and where it ends."""

from collections import Counter

import msgspec

from headrace.contracts import codec, names, subjects
from headrace.contracts import events as ev
from headrace.runtime.eventlog import BusMessage
from headrace.runtime.jetstream import JetStreamBroker
from tests.conftest import until
from tests.engine import events_of, finished, history, outputs, put, running_scheduler, start

TELLS = """\
pipeline: tells
inputs: {n: {type: integer}}
steps: {e: {emit: {name: told, data: {n: "${{ inputs.n }}"}}}}
"""
HEARS = """\
pipeline: hears
vars: {least: 2}
inputs: {n: {type: integer}, from: {type: string}}
triggers:
  - event: told
    when: event.data.n >= vars.least
    inputs: {n: "${{ event.data.n + vars.least }}", from: "${{ event.source }}"}
steps: {t: {transform: {n: "${{ inputs.n }}", same: "${{ event.data.n }}", event: "${{ event.id }}"}}}
outputs: {t: "${{ steps.t.output }}", from: "${{ inputs.from }}"}
"""
SELF = """\
pipeline: again
triggers: [{event: again}]
steps: {e: {emit: {name: again}}}
"""


async def created(broker: JetStreamBroker, pipeline: str) -> dict[str, ev.RunCreated]:
    """Every run of a pipeline, with how it began."""
    found = {}
    async for stored in broker.read(subjects.runs_stream(0), (f"hr.evt.default.{pipeline}.*.*.decision.run-created",)):
        message = codec.decode(stored.body)
        assert isinstance(message, ev.RunDecided) and isinstance(message.data.events[0], ev.RunCreated)
        found[message.runid] = message.data.events[0]
    return found


async def test_an_event_starts_what_listens_once_and_is_seen_by_its_run(broker: JetStreamBroker) -> None:
    """Its condition and its inputs see event and `vars`; published again, long after, it starts nothing more."""
    said_live: list[bytes] = []

    async def hear(message: BusMessage) -> None:
        said_live.append(message.body)

    await broker.subscribe("hr.trig.default.told", hear)
    async with running_scheduler(broker):
        await put(broker, HEARS, arm=True)
        await put(broker, TELLS)
        for run, n in (("few", 1), ("many", 5)):
            await start(broker, "tells", run, n=n)
            await finished(broker, run)

        async def heard() -> bool:
            return len(await created(broker, "hears")) == 1

        await until(heard, within_s=20, what="one run has heard")
        (run,) = await created(broker, "hears")
        (told,) = events_of(await history(broker, "many"), ev.EmitStarted)
        said = outputs(await finished(broker, run))
        assert said == {"t": {"n": 7, "same": 5, "event": told.event}, "from": "/pipeline/tells"}

        (body,) = [body for body in said_live if msgspec.json.decode(body)["id"] == told.event]
        await broker.append("hr.trig.default.told", body, msg_id="beyond the window of deduplication")
        await start(broker, "tells", "last", n=9)
        await finished(broker, "last")

        async def heard_last() -> bool:
            return len(await created(broker, "hears")) == 2

        await until(heard_last, within_s=20, what="the last is heard")
        assert [one async for one in broker.read(subjects.DEAD, ("hr.dead.>",))] == []


async def test_a_pipeline_that_triggers_itself_comes_to_an_end(broker: JetStreamBroker) -> None:
    """After as many events as may lead to one another, with the reason."""
    async with running_scheduler(broker):
        await put(broker, SELF, arm=True)
        await start(broker, "again", "first")

        async def refused() -> bool:
            runs = await created(broker, "again")
            return len(runs) > names.EVENT_HOPS_MAX

        await until(refused, within_s=30, what="it has come to its end")
        runs = await created(broker, "again")
        ends = [await finished(broker, run) for run in runs]
        assert Counter(made.hops for made in runs.values()) == Counter(range(names.EVENT_HOPS_MAX + 1))
        failed = [end for end in ends if isinstance(end, ev.RunFailed)]
        assert [end.failure.code for end in failed] == ["hops_limit"]
        assert len(ends) - len(failed) == names.EVENT_HOPS_MAX
