"""Concurrency keys over a real nats-server: counted in the whole cluster, in order, and nothing is kept."""

import pytest

from headrace.contracts import codec, ids, pseudo, subjects
from headrace.contracts import events as ev
from headrace.runtime.jetstream import JetStreamBroker
from tests.conftest import until
from tests.engine import command, events_of, finished, history, outputs, put, running_scheduler, start

LIMITED = """
pipeline: limited
inputs: {repo: {type: string, default: main}, rest: {type: string, default: 300ms}}
limits: {concurrency: {key: "${{ inputs.repo }}", max: MAX, on_excess: EXCESS}}
outputs: {done: "${{ steps.done.output }}"}
steps:
  rest: {wait: {for: "${{ inputs.rest }}"}}
  done: {needs: [rest], transform: "${{ inputs.repo }}"}
"""
RUNS = subjects.runs_stream(0)


def limited(limit: int, on_excess: str) -> str:
    """A pipeline that rests."""
    return LIMITED.replace("MAX", str(limit)).replace("EXCESS", on_excess)


async def spans(broker: JetStreamBroker, runs: list[str]) -> dict[str, tuple[int, int]]:
    """When each run's first step began and when it ended, by the stream's sequence."""
    found: dict[str, tuple[int, int]] = {}
    begun: dict[str, int] = {}
    async for stored in broker.read(RUNS, ("hr.evt.>",)):
        message = codec.decode(stored.body)
        if not isinstance(message, ev.RunDecided) or message.runid not in runs:
            continue
        for event in message.data.events:
            if isinstance(event, ev.TimerSet):
                begun.setdefault(message.runid, stored.seq)
            elif isinstance(event, ev.RunCompleted | ev.RunFailed | ev.RunCancelled) and message.runid in begun:
                found[message.runid] = (begun[message.runid], stored.seq)
    return found


def most_at_once(found: dict[str, tuple[int, int]]) -> int:
    """The largest number of runs under way at one place of the log."""
    edges = sorted([(begin, 1) for begin, _ in found.values()] + [(end, -1) for _, end in found.values()])
    living = most = 0
    for _, step in edges:
        living += step
        most = max(most, living)
    return most


@pytest.mark.parametrize("limit", [1, 3])
async def test_queue_lets_as_many_run_as_may_and_the_others_in_order(broker: JetStreamBroker, limit: int) -> None:
    """Twelve runs of one key in all partitions, two schedulers: never more than max, first come first served."""
    runs = [f"run-{number:02d}" for number in range(12)]
    async with running_scheduler(broker, "s1"), running_scheduler(broker, "s2"):
        await put(broker, limited(limit, "queue"))
        for run in runs:
            await start(broker, "limited", run)
        await start(broker, "limited", "another", repo="other")
        assert outputs(await finished(broker, "another")) == {"done": "other"}
        for run in runs:
            assert outputs(await finished(broker, run, within_s=60)) == {"done": "main"}
        found = await spans(broker, runs)
        assert set(found) == set(runs) and most_at_once(found) == limit
        granted = [
            event.run
            for message in await history(broker, ids.key_id("default", "limited", "main"))
            if isinstance(message, pseudo.KeyDecided)
            for event in message.data.events
            if isinstance(event, pseudo.KeyGranted)
        ]
        assert sorted(granted) == runs
        await _all_forgotten(broker)


async def _all_forgotten(broker: JetStreamBroker) -> None:
    """The last decision of each key frees the last run."""

    async def freed() -> bool:
        kept: set[tuple[str, str]] = set()
        async for stored in broker.read(RUNS, ("hr.evt.*.*.*.*.decision.>",)):
            message = codec.decode(stored.body)
            if isinstance(message, pseudo.KeyDecided):
                for event in message.data.events:
                    if isinstance(event, pseudo.KeyFreed):
                        kept.discard((message.runid, event.run))
                    elif isinstance(event, pseudo.KeyGranted | pseudo.KeyQueued):
                        kept.add((message.runid, event.run))
        return not kept

    await until(freed, within_s=20, what="keys are free")


async def test_reject_fails_what_is_too_many(broker: JetStreamBroker) -> None:
    """With its code; the run that holds the key is not disturbed; afterwards there is room again."""
    async with running_scheduler(broker):
        await put(broker, limited(1, "reject"))
        await start(broker, "limited", "first", rest="2s")
        await _begun(broker, "first")
        await start(broker, "limited", "second")
        ended = await finished(broker, "second")
        assert isinstance(ended, ev.RunFailed) and ended.failure.code == "concurrency_limit"
        assert outputs(await finished(broker, "first")) == {"done": "main"}
        await _all_forgotten(broker)
        await start(broker, "limited", "third")
        assert outputs(await finished(broker, "third")) == {"done": "main"}


async def _begun(broker: JetStreamBroker, run: str) -> None:
    async def there() -> bool:
        return bool(events_of(await history(broker, run), ev.TimerSet))

    await until(there, within_s=20, what=f"{run} has begun")


async def test_cancel_oldest_ends_the_oldest_for_the_newest(broker: JetStreamBroker) -> None:
    """The third cancels the one that runs and the one that waits; it begins when they have ended."""
    async with running_scheduler(broker):
        await put(broker, limited(1, "cancel_oldest"))
        await start(broker, "limited", "first", rest="1h")
        await _begun(broker, "first")
        await start(broker, "limited", "second", rest="1h")
        assert isinstance(await finished(broker, "first"), ev.RunCancelled)
        await _begun(broker, "second")
        await start(broker, "limited", "third")
        assert isinstance(await finished(broker, "second"), ev.RunCancelled)
        assert outputs(await finished(broker, "third")) == {"done": "main"}
        assert most_at_once(await spans(broker, ["first", "second", "third"])) == 1
        await _all_forgotten(broker)


async def test_a_run_that_is_cancelled_while_it_waits_leaves_the_queue(broker: JetStreamBroker) -> None:
    """Whoever is behind it moves up."""
    async with running_scheduler(broker):
        await put(broker, limited(1, "queue"))
        await start(broker, "limited", "holds", rest="2s")
        await _begun(broker, "holds")
        await start(broker, "limited", "waits")
        await start(broker, "limited", "behind")
        answer = await command(broker, "run-cancel", {"runid": "waits"}, command_id="cancel-waits")
        assert isinstance(answer, ev.CommandAccepted)
        assert isinstance(await finished(broker, "waits"), ev.RunCancelled)
        assert events_of(await history(broker, "waits"), ev.TimerSet) == []
        assert outputs(await finished(broker, "behind")) == {"done": "main"}
        await _all_forgotten(broker)


async def test_a_holder_that_ends_without_a_word_is_looked_for(broker: JetStreamBroker) -> None:
    """Given a grant whose run never was, and one that waits: the owner sees that it is gone, and grants the next."""
    async with running_scheduler(broker):
        await put(broker, limited(1, "queue"))
        key = ids.key_id("default", "limited", "main")
        ask = pseudo.KeyAsked(
            specversion="1.0",
            id="ghost",
            source="/test",
            time="",
            schemaver=1,
            tenant="default",
            pipeline="limited",
            runid=key,
            data=pseudo.KeyAsk(run="ghost", max=1, on_excess="queue", expires_ms=2**50),
        )
        prefix = subjects.run_prefix("default", "limited", key)
        await broker.append(subjects.input_(prefix, "key-asked"), codec.encode(ask))
        await start(broker, "limited", "real")
        assert outputs(await finished(broker, "real", within_s=40)) == {"done": "main"}
        freed = [
            event
            for message in await history(broker, key)
            if isinstance(message, pseudo.KeyDecided)
            for event in message.data.events
            if isinstance(event, pseudo.KeyFreed)
        ]
        assert freed[0] == pseudo.KeyFreed(run="ghost", reason="gone")


async def test_a_key_that_cannot_be_made_refuses_the_start(broker: JetStreamBroker) -> None:
    """An empty text, or an `event` where nothing triggered the run."""
    async with running_scheduler(broker):
        await put(broker, limited(1, "queue"))
        await put(
            broker, limited(1, "queue").replace("inputs.repo }}", "event.data.repo }}", 1).replace("limited", "sent")
        )
        for pipeline, inputs, text in (("limited", {"repo": ""}, "1 to 1024"), ("sent", {}, "event")):
            data = {"pipeline": pipeline, "inputs": inputs}
            answer = await command(broker, "run-start", data, command_id=f"start-{pipeline}")
            assert isinstance(answer, ev.CommandRefused), pipeline
            assert text in answer.data.reasons[0].message


async def test_children_are_counted_like_all_runs(broker: JetStreamBroker) -> None:
    """Six items start a child each, of a pipeline that allows two at a time."""
    parent = """
pipeline: parent
steps:
  each: {foreach: "[1, 2, 3, 4, 5, 6]", max_parallel: 6, pipeline: limited, with: {repo: "x", rest: "300ms"}}
"""
    async with running_scheduler(broker):
        await put(broker, limited(2, "queue"))
        await put(broker, parent)
        await start(broker, "parent", "family")
        assert isinstance(await finished(broker, "family", within_s=60), ev.RunCompleted)
        children = [event.child for event in events_of(await history(broker, "family"), ev.ChildStarted)]
        assert len(children) == 6 and most_at_once(await spans(broker, children)) == 2
