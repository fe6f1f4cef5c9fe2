"""Commands and triggers over a real nats-server: accepted once, refused with every reason, or parked; never dropped."""

import json

import nats

from headrace.contracts import codec, ids, subjects
from headrace.contracts import events as ev
from headrace.local.nats_server import NatsServer
from headrace.runtime.jetstream import JetStreamBroker
from tests.conftest import until
from tests.engine import command, events_of, finished, history, outcome, outputs, put, running_scheduler, start

DOUBLE = """
pipeline: double
inputs: {n: {type: integer}}
outputs: {twice: "${{ steps.twice.output }}"}
steps:
  twice: {transform: "${{ inputs.n * 2 }}"}
"""


async def test_a_start_published_with_plain_nats_py_runs(nats_server: NatsServer, broker: JetStreamBroker) -> None:
    """No client library of ours is needed: JSON on a subject starts a run."""
    async with running_scheduler(broker):
        await put(broker, DOUBLE)
        nc = await nats.connect(nats_server.url)
        body = json.dumps({"pipeline": "double", "inputs": {"n": 21}, "runid": "plain"}).encode()
        await nc.jetstream().publish("hr.cmd.default.run-start", body)
        await nc.close()
        assert outputs(await finished(broker, "plain")) == {"twice": 42}


async def test_a_start_as_structured_cloudevent_runs_and_keeps_its_trace(broker: JetStreamBroker) -> None:
    """What another language's CloudEvents SDK writes is understood, trace context included."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    event = {
        "specversion": "1.0",
        "id": "from-node-1",
        "source": "/ci",
        "type": "io.headrace.run.start.v1",
        "traceparent": trace,
        "data": {"pipeline": "double", "inputs": {"n": 4}},
    }
    async with running_scheduler(broker):
        await put(broker, DOUBLE)
        await broker.append("hr.cmd.default.run-start", json.dumps(event).encode())
        answer = await outcome(broker, "from-node-1")
        assert isinstance(answer, ev.CommandAccepted)
        assert answer.data.runid == "from-node-1"
        assert outputs(await finished(broker, "from-node-1")) == {"twice": 8}
        assert {message.traceparent for message in await history(broker, "from-node-1")} == {trace}


async def test_a_start_as_binary_cloudevent_runs(broker: JetStreamBroker) -> None:
    """Attributes may travel as headers."""
    headers = {"ce-id": "bin-1", "ce-source": "/x", "ce-type": "io.headrace.run.start.v1", "ce-specversion": "1.0"}
    async with running_scheduler(broker):
        await put(broker, DOUBLE)
        body = json.dumps({"pipeline": "double", "inputs": {"n": 1}}).encode()
        await broker.append("hr.cmd.default.run-start", body, headers=headers)
        assert outputs(await finished(broker, "bin-1")) == {"twice": 2}


async def test_a_malformed_start_with_an_id_is_parked_and_answered(broker: JetStreamBroker) -> None:
    """Whoever waits under the id hears why."""
    async with running_scheduler(broker):
        body = json.dumps({"id": "bad-1", "specversion": "1.0", "data": {"pipelin": "double"}}).encode()
        await broker.append("hr.cmd.default.run-start", body)
        answer = await outcome(broker, "bad-1")
        assert isinstance(answer, ev.CommandRefused)
        assert answer.data.reasons[0].code == "malformed_message"
        assert "pipelin" in answer.data.reasons[0].message
        parked = await broker.last(subjects.DEAD, "hr.dead.default.>")
        assert parked is not None


async def test_input_51_garbage_on_every_subject_is_parked_and_the_consumers_go_on(broker: JetStreamBroker) -> None:
    """Non-JSON bytes, an empty message and 8 KiB of headers: parked with their bytes, acknowledged, counted."""
    big = {f"x-{number}": "y" * 200 for number in range(40)}
    run_subject = f"hr.evt.default.double.{ids.partition_of('r'):02d}.r.report.attempt-succeeded"
    targets = ("hr.cmd.default.run-start", "hr.cmd.default.nonsense", "hr.trig.default.any", run_subject)
    async with running_scheduler(broker):
        await put(broker, DOUBLE)
        for target in targets:
            await broker.append(target, b"\xff\x00 not json")
            await broker.append(target, b"")
        for target in targets[:3]:
            await broker.append(target, b"{}", headers=big)

        async def parked() -> int:
            return len([stored async for stored in broker.read(subjects.DEAD, ("hr.dead.>",))])

        await until(lambda: _at_least(parked, 2 * len(targets) + 3), within_s=10, what="parked messages")
        bodies = set()
        async for stored in broker.read(subjects.DEAD, ("hr.dead.>",)):
            message = codec.decode(stored.body)
            assert isinstance(message, ev.MessageParked)
            assert message.data.failure.code == "malformed_message"
            bodies.add(message.data.body)
        assert bodies >= {b"\xff\x00 not json", b"", b"{}"}
        state = await broker.consumer_state(subjects.COMMANDS, subjects.INTAKE_CONSUMER)
        assert state.ack_pending == 0
        await start(broker, "double", "after", n=3)
        assert outputs(await finished(broker, "after")) == {"twice": 6}


async def _at_least(count, wanted: int) -> bool:
    return await count() >= wanted


async def test_input_46_the_same_key_is_the_same_run_and_another_body_is_refused(broker: JetStreamBroker) -> None:
    """An idempotency key belongs to one request for as long as its run is kept."""
    async with running_scheduler(broker):
        await put(broker, DOUBLE)
        first = {"pipeline": "double", "inputs": {"n": 1}, "runid": "key1"}
        accepted = await command(broker, "run-start", first, command_id="k1")
        again = await command(broker, "run-start", first, command_id="k2")
        other = await command(broker, "run-start", first | {"inputs": {"n": 2}}, command_id="k3")
        assert isinstance(accepted, ev.CommandAccepted)
        assert isinstance(again, ev.CommandAccepted)
        assert again.data.runid == "key1"
        assert isinstance(other, ev.CommandRefused)
        assert other.data.reasons[0].code == "key_reused"
        await finished(broker, "key1")
        assert len(events_of(await history(broker, "key1"), ev.RunCreated)) == 1


async def test_wrong_inputs_are_refused_with_every_reason_and_nothing_is_written(broker: JetStreamBroker) -> None:
    """A refused start leaves no event."""
    async with running_scheduler(broker):
        await put(broker, DOUBLE)
        data = {"pipeline": "double", "inputs": {"n": "x", "m": 1}, "runid": "wrong"}
        answer = await command(broker, "run-start", data, command_id="w1")
        assert isinstance(answer, ev.CommandRefused)
        assert len(answer.data.reasons) == 2
        assert await history(broker, "wrong") == []


async def test_an_unknown_pipeline_is_refused(broker: JetStreamBroker) -> None:
    """The reason says what to do."""
    async with running_scheduler(broker):
        answer = await command(broker, "run-start", {"pipeline": "nobody"}, command_id="u1")
        assert isinstance(answer, ev.CommandRefused)
        assert answer.data.reasons[0].code == "not_found"


async def test_controls_of_unknown_and_ended_runs_are_refused(broker: JetStreamBroker) -> None:
    """404 and 409, in the words of the command."""
    async with running_scheduler(broker):
        await put(broker, DOUBLE)
        await start(broker, "double", "done", n=1)
        await finished(broker, "done")
        unknown = await command(broker, "run-cancel", {"runid": "never"}, command_id="c1")
        ended = await command(broker, "run-cancel", {"runid": "done"}, command_id="c2")
        assert isinstance(unknown, ev.CommandRefused)
        assert unknown.data.reasons[0].code == "not_found"
        assert isinstance(ended, ev.CommandRefused)
        assert ended.data.reasons[0].code == "conflict"


async def test_an_event_starts_every_armed_pipeline_once(broker: JetStreamBroker) -> None:
    """The condition is honoured, inputs come from the event, and the same event twice is one run."""
    listening = """
pipeline: on-push
inputs: {repo: {type: string}}
outputs: {repo: "${{ inputs.repo }}"}
triggers:
  - event: repo-pushed
    when: event.data.branch == "main"
    inputs: {repo: "${{ event.data.path }}"}
steps:
  only: {transform: "${{ inputs.repo }}"}
"""
    async with running_scheduler(broker) as scheduler:
        await put(broker, listening, arm=True)
        await until(lambda: scheduler._definitions.listening("default", "repo-pushed"), what="armed")
        for branch, event_id in (("main", "e1"), ("main", "e1"), ("dev", "e2")):
            event = {"specversion": "1.0", "id": event_id, "data": {"branch": branch, "path": "a/b"}}
            await broker.append("hr.trig.default.repo-pushed", json.dumps(event).encode())

        async def runs() -> list[str]:
            stream = subjects.runs_stream(0)
            return [
                stored.subject async for stored in broker.read(stream, ("hr.evt.*.on-push.*.*.decision.run-completed",))
            ]

        await until(runs, what="the run")
        await until(lambda: _settled(broker), what="all triggers acknowledged")
        assert len(await runs()) == 1


async def _settled(broker: JetStreamBroker) -> bool:
    state = await broker.consumer_state(subjects.TRIGGERS, subjects.TRIGGER_CONSUMER)
    return state.pending == 0 and state.ack_pending == 0


async def test_a_paused_run_starts_nothing_new_until_it_is_resumed(broker: JetStreamBroker) -> None:
    """What waits is kept; resuming goes on with it."""
    text = """
pipeline: slow
outputs: {x: "${{ steps.b.output }}"}
steps:
  a: {wait: {for: 1s}}
  b: {needs: [a], transform: "${{ 7 }}"}
"""
    async with running_scheduler(broker):
        await put(broker, text)
        await start(broker, "slow", "p1")
        answer = await command(broker, "run-pause", {"runid": "p1"}, command_id="pause1")
        assert isinstance(answer, ev.CommandAccepted)

        async def waited() -> bool:
            return bool(events_of(await history(broker, "p1"), ev.TimerFired))

        await until(waited, what="the wait is over")
        ended = [event.path for event in events_of(await history(broker, "p1"), ev.StepCompleted)]
        assert ended == ["a"]
        await command(broker, "run-resume", {"runid": "p1"}, command_id="resume1")
        assert outputs(await finished(broker, "p1")) == {"x": 7}


async def test_a_waiting_run_is_cancelled_at_once(broker: JetStreamBroker) -> None:
    """Within two seconds (P9); the reason is in the history."""
    async with running_scheduler(broker):
        await put(broker, "pipeline: w\nsteps:\n  a: {wait: {for: 1h}}\n")
        await start(broker, "w", "x1")
        await command(broker, "run-cancel", {"runid": "x1", "reason": "enough"}, command_id="cancel1")
        end = await finished(broker, "x1", within_s=2)
        assert isinstance(end, ev.RunCancelled)
        assert end.reason == "enough"
