"""The monitor over a real nats-server."""

import pytest
from tests.conftest import until
from tests.integration.services.conftest import Start
from tests.unit.monitor.builders import created, decided

from headrace.contracts import codec, subjects
from headrace.contracts.commands import NameRun
from headrace.contracts.events import AlertCleared, AlertRaised, RunCompleted
from headrace.contracts.live import Beat, Empty, ListRuns, RunList, RunRow, ServiceList, StateHash
from headrace.runtime.api import ServiceError, call
from headrace.runtime.eventlog import Broker
from headrace_monitor.config import Config
from headrace_monitor.service import Monitor


async def ask(broker: Broker, verb: str, data: object, answer: type):
    return await call(broker, "monitor", verb, data, answer, tenant="default", request_id="r")


async def write(broker: Broker, run: str, version: int, *events: object) -> None:
    message = decided(run, version, *events)
    subject = subjects.decision(subjects.run_prefix("default", "p", run), "progressed")
    await broker.append(subject, codec.encode(message), msg_id=message.id)


async def test_runs_are_listed_newest_first_and_follow_the_log(streams: Broker, start: Start) -> None:
    """What was there before it started and what comes afterwards look the same."""
    await write(streams, "old", 1, created())
    monitor = await start(Monitor, config=Config())
    await write(streams, "new", 1, created())
    await write(streams, "old", 2, RunCompleted(outputs=codec.inline({})))
    await until(lambda: monitor.service.position["HR_RUNS_0"] >= 3)

    listed = await ask(streams, "runs", ListRuns(), RunList)
    old = await ask(streams, "run", NameRun(runid="old"), RunRow)

    assert [(row.run, row.status) for row in listed.runs] == [("new", "running"), ("old", "completed")]
    assert old.status == "completed"
    assert listed.position == {"HR_RUNS_0": 3}
    with pytest.raises(ServiceError) as missing:
        await ask(streams, "run", NameRun(runid="none"), RunRow)
    assert missing.value.failure().code == "not_found"


async def test_what_it_cannot_read_is_counted_and_skipped(streams: Broker, start: Start) -> None:
    """A projection goes on behind garbage and behind messages of a newer release."""
    monitor = await start(Monitor, config=Config())
    prefix = subjects.run_prefix("default", "p", "r")
    await streams.append(subjects.decision(prefix, "progressed"), b"garbage")
    newer = codec.encode(decided("r", 1, created())).replace(b"run.decided.v1", b"run.decided.v9")
    await streams.append(subjects.decision(prefix, "progressed"), newer)
    await write(streams, "r", 1, created())

    await until(lambda: monitor.service.position["HR_RUNS_0"] >= 3)

    fold = monitor.service.folds[0]
    assert (fold.malformed, fold.newer) == (1, 1)
    assert [row.run for row in (await ask(streams, "runs", ListRuns(), RunList)).runs] == ["r"]


async def test_otp_s1_a_rebuild_from_zero_is_what_was_there(streams: Broker, start: Start) -> None:
    """Killing the monitor loses nothing: another one reads the same log and has the same hash."""
    first = await start(Monitor, config=Config())
    for index in range(200):
        await write(streams, f"r{index}", 1, created(n=index))
        if index % 3:
            await write(streams, f"r{index}", 2, RunCompleted(outputs=codec.inline({})))
    last_seq = (await streams.position("HR_RUNS_0")).last_seq
    await until(lambda: first.service.position["HR_RUNS_0"] >= last_seq)
    before = await ask(streams, "hash", Empty(), StateHash)
    await first.abandon()

    await start(Monitor, config=Config())

    assert await ask(streams, "hash", Empty(), StateHash) == before


async def test_a_silent_service_is_an_alert_until_it_beats_again(streams: Broker, start: Start) -> None:
    """The alert is an event in the log, and so is its end."""
    await start(Monitor, config=Config(silent_s=1.5))

    async def beat(counter: int) -> None:
        said = Beat(service="session-store", instance="i", boot="b", counter=counter, ready=True)
        await streams.send(subjects.presence("i"), codec.encode(said))

    async def newest_alert() -> object:
        stored = await streams.last(subjects.SYSTEM, subjects.alert("service-silent"))
        return None if stored is None else codec.decode(stored.body)

    async def is_newest(kind: type) -> bool:
        found = await newest_alert()
        return isinstance(found, kind) and found.data.about == "session-store/i"

    await beat(1)
    await until(lambda: is_newest(AlertRaised), within_s=5)
    services = await ask(streams, "services", Empty(), ServiceList)
    await beat(2)
    await until(lambda: is_newest(AlertCleared), within_s=5)

    assert [row.ready for row in services.services if row.instance == "i"] == [False]
