"""The manifest covers every subject once, and making it twice changes nothing."""

import pytest

from headrace.contracts import names, subjects
from headrace.contracts.errors import ConfigError
from headrace.runtime.clock import SystemClock
from headrace.runtime.memory import MemoryBroker, MemoryServer
from headrace.runtime.streams import consumer_specs, migrate, stream_specs
from headrace.runtime.subject_filters import filter_regex


@pytest.mark.parametrize("run_streams", [1, 2, 4, 32])
def test_each_partition_is_in_the_stream_that_its_runs_use(run_streams: int) -> None:
    """Exactly one stream takes each subject."""
    specs = stream_specs(run_streams=run_streams)
    for part in range(names.PARTITIONS):
        subject = f"hr.evt.acme.review.{part:02d}.r1.decision.progressed"
        takers = [spec.name for spec in specs if filter_regex(spec.subjects).fullmatch(subject)]
        assert takers == [subjects.runs_stream(part, streams=run_streams)]


def test_every_subject_of_the_contracts_has_one_stream() -> None:
    """Core subjects have none."""
    stored = {
        subjects.command("t", "run-start"): subjects.COMMANDS,
        subjects.outcome("t", "c1"): subjects.OUTCOMES,
        subjects.trigger("t", "x"): subjects.TRIGGERS,
        subjects.definition("t", "p"): subjects.DEFINITIONS,
        subjects.tool("t", "x"): subjects.TOOLS,
        subjects.session("t", "s"): subjects.SESSIONS,
        subjects.alert("x"): subjects.SYSTEM,
        subjects.dead("t", "HR_RUNS_0"): subjects.DEAD,
        subjects.blob("t", "r/0", 3): subjects.BLOBS,
        subjects.kv(subjects.LEASES, "claim.03"): subjects.LEASES,
        subjects.kv(subjects.SNAPSHOTS, "a.b"): subjects.SNAPSHOTS,
    }
    for subject, stream in stored.items():
        takers = [spec.name for spec in stream_specs() if filter_regex(spec.subjects).fullmatch(subject)]
        assert takers == [stream], subject
    for subject in (subjects.presence("x"), subjects.api("scheduler", "x"), subjects.live("t", "r", "s")):
        assert not any(filter_regex(spec.subjects).fullmatch(subject) for spec in stream_specs())


def test_orders_in_both_forms_reach_their_queue_and_no_other() -> None:
    """A decision that schedules one step is its own order."""
    prefix = subjects.run_prefix("t", "p", "r1")
    by_name = {spec.durable: filter_regex(spec.filters) for spec in consumer_specs({})}
    for queue in names.QUEUES:
        for subject in (subjects.order(prefix, queue), subjects.decision(prefix, f"scheduled.{queue}")):
            takers = [name for name, pattern in by_name.items() if pattern.fullmatch(subject)]
            assert takers == [subjects.order_consumer(queue)]


def test_orders_are_read_with_one_filter() -> None:
    """With two the server drains a backlog a hundred times slower."""
    assert all(len(spec.filters) == 1 for spec in consumer_specs({}))


def test_a_cap_is_divided_among_the_run_streams() -> None:
    """Rounded up, so that no queue stands still."""
    caps = {
        spec.stream: spec.max_ack_pending for spec in consumer_specs({"gpu": 6}, run_streams=4) if "gpu" in spec.durable
    }
    assert caps == {f"HR_RUNS_{index}": 2 for index in range(4)}


async def test_migrating_twice_changes_nothing_and_a_difference_is_refused() -> None:
    """On the broker in memory; nats-server has its own test."""
    broker = MemoryBroker(MemoryServer(SystemClock()), SystemClock())
    await migrate(broker, caps={"llm": 4})
    await migrate(broker, caps={"llm": 4})
    with pytest.raises(ConfigError, match="max_ack_pending"):
        await migrate(broker, caps={"llm": 5})
