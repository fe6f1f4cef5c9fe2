"""S6 and N2: a log that is damaged, or newer than this release, stops its run with the reason; others go on."""

from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.client.client import Client, CommandRefusedError
from headrace.client.history import RunView
from headrace.contracts import codec, names, subjects
from headrace.contracts import events as ev
from headrace.local.nats_server import NatsServer
from headrace.pipeline.bundle import load_text
from headrace.runtime.clock import SystemClock
from headrace.runtime.entropy import SystemEntropy
from headrace.runtime.eventlog import Broker
from headrace.runtime.jetstream import JetStreamBroker
from headrace_scheduler import damage
from headrace_scheduler.state import created
from tests.builders import decided, folded, plan, run_created, scheduled, tool
from tests.conftest import Connect, until
from tests.engine import command, finished, history, outputs, put, running_scheduler, start

NAP = """
pipeline: nap
outputs: {x: "${{ steps.b.output }}"}
steps:
  a: {transform: "${{ 1 }}"}
  w: {needs: [a], wait: {for: 2s}}
  b: {needs: [w], transform: "${{ steps.a.output + 1 }}"}
"""
STREAM = subjects.runs_stream(0)


async def stalled(broker: Broker, run: str, *, within_s: float = 10) -> ev.RunStalled:
    """The event that says why a run stands still."""
    scope = f"hr.evt.*.*.*.{run}.decision.run-stalled"

    async def said() -> object:
        return await broker.last(STREAM, scope)

    await until(said, within_s=within_s, what=f"stall of {run}")
    stored = await broker.last(STREAM, scope)
    assert stored is not None
    message = codec.decode(stored.body)
    assert isinstance(message, ev.RunDecided)
    (event,) = message.data.events
    assert isinstance(event, ev.RunStalled)
    return event


async def view_of(broker: Broker, run: str) -> RunView:
    """The run as `headrace show` has it."""
    client = Client(broker, tenant="default", clock=SystemClock(), entropy=SystemEntropy())
    return await client.view(run)


def flipped(store: Path, place: Callable[[bytes], int]) -> None:
    """Change one bit of the run stream's file, as a failing disk does."""
    (block,) = store.rglob(f"{STREAM}/msgs/1.blk")
    data = bytearray(block.read_bytes())
    data[place(bytes(data))] ^= 1
    block.write_bytes(data)


@pytest.mark.parametrize(
    ("headline", "reason"),
    [
        ("run-created", "decision 1, its creation, is missing"),
        ("progressed", "decision 2 is missing before decision 3"),
    ],
)
async def test_otp_s6_one_bit_of_the_log_stops_its_run_as_log_corrupted(
    nats_server: NatsServer, connect_broker: Connect, tmp_path: Path, headline: str, reason: str
) -> None:
    """The broker leaves a message out whose checksum is wrong, without a word. Its run says so; it never begins afresh,
    also not when its start is sent again; the others complete."""
    before = await connect_broker("before")
    runs = ("hit", "r1", "r2")
    async with running_scheduler(before):
        await put(before, NAP)
        for run in runs:
            await start(before, "nap", run)
        control = {"runid": "hit"}
        await command(before, "run-pause", control, command_id="p")  # a third decision
        await until(lambda: _paused(before), what="paused")
    for part in range(names.PARTITIONS):
        assert await before.last(subjects.SNAPSHOTS, subjects.kv(subjects.SNAPSHOTS, f"head.{part:02d}")) is None
    await before.close()
    await nats_server.stop()
    flipped(tmp_path / "nats", lambda data: data.index(b'"version"', data.index(f".hit.decision.{headline}".encode())))
    await nats_server.start()

    after = await connect_broker("after")
    async with running_scheduler(after, "s2"):
        event = await stalled(after, "hit")
        assert event.failure.code == "log_corrupted"
        assert reason in event.failure.message
        assert not event.failure.retryable
        view = await view_of(after, "hit")
        assert (view.status, view.failure) == ("stalled", event.failure)
        for run in runs[1:]:
            assert outputs(await finished(after, run)) == {"x": 2}
        client = Client(after, tenant="default", clock=SystemClock(), entropy=SystemEntropy())
        if headline == "run-created":
            with pytest.raises(CommandRefusedError, match="log_corrupted"):
                await client.start("nap", {}, runid="hit")
        else:
            assert await client.start("nap", {}, runid="hit") == "hit", "the same start as before, not another"
    async with running_scheduler(after, "s3"):
        assert len([one for one in await history(after, "hit") if _stalls(one)]) == 1, "said once, not at each takeover"


async def _paused(broker: Broker) -> bool:
    return await broker.last(STREAM, "hr.evt.*.*.*.hit.decision.run-paused") is not None


def _stalls(message: ev.StoredMessage) -> bool:
    return isinstance(message, ev.RunDecided) and any(isinstance(one, ev.RunStalled) for one in message.data.events)


async def test_otp_s6_what_is_no_decision_in_a_decisions_place_stops_the_run(broker: JetStreamBroker) -> None:
    """Also while its owner lives: bytes that cannot be read, or another run's decision. It is parked, too."""
    async with running_scheduler(broker):
        await put(broker, NAP)
        for run in ("garbled", "mislaid", "fine"):
            await start(broker, "nap", run)
        foreign = await broker.last(STREAM, "hr.evt.*.*.*.fine.decision.>")
        assert foreign is not None
        for run, body in (("garbled", b"\xff no decision"), ("mislaid", foreign.body)):
            prefix = subjects.run_prefix("default", "nap", run)
            wrong = await broker.append(subjects.decision(prefix, "progressed"), body)
            event = await stalled(broker, run)
            assert (event.failure.code, event.seq) == ("log_corrupted", wrong.seq)
        assert outputs(await finished(broker, "fine")) == {"x": 2}
        parked = [codec.decode(stored.body) async for stored in broker.read(subjects.DEAD, ("hr.dead.>",))]
        assert [one.data.body for one in parked if isinstance(one, ev.MessageParked)] == [
            b"\xff no decision",
            foreign.body,
        ]


@pytest.mark.parametrize("kind", ["decision", "report"])
async def test_otp_n2_an_event_of_the_next_schema_version_stalls_its_run(broker: JetStreamBroker, kind: str) -> None:
    """With `upgrade_required` and its sequence, whatever it is; the other run completes."""
    async with running_scheduler(broker):
        await put(broker, NAP)
        for run in ("newer", "fine"):
            await start(broker, "nap", run)
        stored = await broker.last(STREAM, "hr.evt.*.*.*.newer.decision.>")
        assert stored is not None
        prefix = subjects.run_prefix("default", "nap", "newer")
        subject = subjects.decision(prefix, "progressed")
        if kind == "report":
            subject = subjects.report(prefix, "attempt-succeeded")
        body = stored.body.replace(b"run.decided.v1", b"run.decided.v2")
        newer = await broker.append(subject, body)
        event = await stalled(broker, "newer")
        assert (event.failure.code, event.seq) == ("upgrade_required", newer.seq)
        assert outputs(await finished(broker, "fine")) == {"x": 2}


async def test_a_reader_that_skipped_is_not_taken_for_a_damaged_log(broker: JetStreamBroker) -> None:
    """The leader is asked before a run is stopped: what it has is not missing."""
    async with running_scheduler(broker):
        await put(broker, NAP)
        await start(broker, "nap", "whole")
        await finished(broker, "whole")
    bundle = load_text(NAP)
    first, *_, last = [one for one in await history(broker, "whole") if isinstance(one, ev.RunDecided)]
    run = created(first)
    assert run is not None
    assert damage.doubt(run, last).startswith("decision 1 is missing")
    assert await damage.found(broker, STREAM, "whole", bundle.plan) is None


def test_a_decision_that_takes_a_report_that_is_gone_is_doubted() -> None:
    """Folding it would make up an output."""
    shape = plan({"a": tool()})
    run = folded(shape, decided(1, run_created()), decided(2, scheduled("a")))
    taking = decided(3, ev.StepCompleted(path="a", attempt=1, report="gone"))
    assert damage.doubt(run, taking) == "decision 3 takes report gone of `a`, which is missing"
    assert damage.doubt(run, decided(2, scheduled("a"))) == "", "a lost race"
