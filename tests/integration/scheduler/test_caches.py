"""Snapshots, lists and catalogues are caches of the log: without them everything is as it was."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import nats
import pytest

from headrace.contracts import names, subjects
from headrace.contracts.canonical import sha256_hex
from headrace.contracts.codec import encode
from headrace.contracts.live import (
    AppendTurn,
    Empty,
    ListRuns,
    OpenSession,
    ReadSession,
    RunList,
    SessionView,
    StateHash,
)
from headrace.local.nats_server import NatsServer
from headrace.pipeline.builtin_tools import builtin_tools
from headrace.runtime.api import call
from headrace.runtime.eventlog import Broker
from headrace.runtime.streams import migrate
from headrace_monitor.config import Config as MonitorConfig
from headrace_monitor.service import Monitor
from headrace_scheduler import snapshots
from headrace_scheduler.service import Scheduler
from headrace_session_store.config import Config as SessionConfig
from headrace_session_store.service import SessionStore
from headrace_step_executor.config import Config as ExecutorConfig
from headrace_step_executor.parts import build_executor
from headrace_tool_registry.config import Config as ToolConfig
from headrace_tool_registry.service import ToolRegistry
from tests.conftest import Connect, until
from tests.engine import finished, put, running, running_scheduler, start

LEAF = "pipeline: leaf\nsteps:\n  nap: {wait: {for: 1h}}\n"
BUSY = """
pipeline: busy
inputs: {n: {type: integer}}
steps:
  split: {tool: text.split, with: {text: "abcdef", size: 2}}
  say:
    foreach: ${{ steps.split.output.parts }}
    llm: {prompt: "${{ item }} ${{ inputs.n }}"}
  again: {tool: json.parse, with: {text: "{"}, retry: {attempts: 3, initial: 1h, max: 2h, on: [json_invalid]}}
  below: {needs: [say], pipeline: leaf, with: {}}
  rest: {needs: [say], wait: {for: 1h}}
"""
QUICK = "pipeline: quick\nsteps:\n  one: {tool: json.parse, with: {text: '1'}}\n"
RUNS = 12


def state_hash(scheduler: Scheduler) -> str:
    """Over the whole state of every open run, the order of its maps included."""
    runs = [entry.run for partition in scheduler.partitions.values() for entry in partition.entries.values()]
    return sha256_hex(b"\n".join(encode(run) for run in sorted(runs, key=lambda run: run.run)))


def quiet(scheduler: Scheduler) -> bool:
    """Every open run waits for time alone."""
    entries = [entry for partition in scheduler.partitions.values() for entry in partition.entries.values()]
    parents = [entry.run for entry in entries if entry.run.pipeline == "busy"]
    statuses = [{path: inst.status for path, inst in run.insts.items() if "[" not in path} for run in parents]
    waiting = {"split": "succeeded", "say": "succeeded", "again": "sleeping", "below": "child", "rest": "sleeping"}
    busy = any(entry.in_flight or entry.run.reported or entry.run.controls for entry in entries)
    return not busy and len(entries) == 2 * RUNS and all(status == waiting for status in statuses)


async def snapshot_heads(broker: Broker) -> int:
    """Partitions that have a snapshot that can be read."""
    found = [await snapshots.load(broker, part) for part in range(names.PARTITIONS)]
    return len([snapshot for snapshot in found if snapshot is not None])


async def what_is_told(broker: Broker) -> list[Any]:
    """What the other services answer: hashes of run list and catalogue, the list itself, a conversation."""

    async def ask(service: str, verb: str, data: object, answer: type) -> Any:
        return await call(broker, service, verb, data, answer, tenant="default", request_id="r")

    return [
        await ask("monitor", "hash", Empty(), StateHash),
        await ask("monitor", "runs", ListRuns(), RunList),
        await ask("tool-registry", "hash", Empty(), StateHash),
        await ask("session-store", "read", ReadSession(session="s"), SessionView),
    ]


async def whole(connect: Connect, instance: str, *, builtin: bool) -> tuple[str, list[Any]]:
    """Every reader started afresh: the scheduler's state hash, and what the others tell."""
    broker, tools = await connect(instance), builtin_tools() if builtin else ()
    async with (
        running_scheduler(broker, instance) as scheduler,
        running(Monitor, broker, "m", config=MonitorConfig()),
        running(ToolRegistry, broker, "t", config=ToolConfig(), builtin=tools),
        running(SessionStore, broker, "st", config=SessionConfig()),
    ):
        last = (await broker.position(subjects.runs_stream(0))).last_seq
        told = await what_is_told(broker)
        assert told[0].position == {subjects.runs_stream(0): last}
        found = state_hash(scheduler), told
    await broker.close()
    return found


async def left_behind(broker: Broker, data_dir: Path) -> tuple[str, list[Any]]:
    """All services work until every run waits and every partition has a snapshot, and stop: what they knew then."""
    await migrate(broker)
    async with (
        running_scheduler(broker) as scheduler,
        running(build_executor, broker, "e1", config=ExecutorConfig(data_dir=data_dir)),
        running(Monitor, broker, "m", config=MonitorConfig()),
        running(ToolRegistry, broker, "t", config=ToolConfig(), builtin=builtin_tools()),
        running(SessionStore, broker, "st", config=SessionConfig()),
    ):
        for text in (LEAF, BUSY, QUICK):
            await put(broker, text)
        for number in range(RUNS):
            await start(broker, "busy", f"b{number}", n=number)
        await start(broker, "quick", "q")
        await finished(broker, "q")
        await until(lambda: quiet(scheduler), within_s=30, what="all runs wait")
        opened = OpenSession(session="s")
        await call(broker, "session-store", "open", opened, SessionView, tenant="default", request_id="o")
        turn = AppendTurn(session="s", expected=0, role="user", content=msgspec.Raw(b'"hello"'))
        await call(broker, "session-store", "append", turn, SessionView, tenant="default", request_id="a")
        owned = {part.part for part in scheduler.partitions.values() if part.seq}
        await until(lambda: _snapshots(broker, len(owned)), within_s=20, what="snapshots")
        return state_hash(scheduler), await what_is_told(broker)


async def test_without_snapshots_and_read_models_the_state_is_the_same(
    nats_server: NatsServer, connect_broker: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real services, runs in the middle of retries, waits, maps and child runs, snapshots written as always.

    All are stopped, every snapshot is deleted from the store: new ones have the same hash, as has a restart with them.
    """
    monkeypatch.setattr(names, "SNAPSHOT_EVERY_S", 0.2)
    broker = await connect_broker("first")
    before = await left_behind(broker, tmp_path / "data")
    assert await whole(connect_broker, "with", builtin=True) == before
    nc = await nats.connect(nats_server.url)
    assert await nc.jetstream().delete_stream(subjects.SNAPSHOTS)
    await nc.close()
    await migrate(broker)
    assert await snapshot_heads(broker) == 0
    monkeypatch.setattr(names, "SNAPSHOT_EVERY_S", 3600)
    assert await whole(connect_broker, "without", builtin=False) == before
    assert await snapshot_heads(broker) == 0, "it was read from the log alone"


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "flipped": lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
    "truncated": lambda data: data[: len(data) // 2],
    "emptied": lambda _: b"",
    "of another run": lambda data: data.replace(b'"b1', b'"b9'),
}


async def test_otp_s6_corrupting_truncating_or_deleting_the_newest_snapshot_changes_nothing(
    nats_server: NatsServer, connect_broker: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every partition at once, its chunk or its head: the state after a restart has the same hash."""
    monkeypatch.setattr(names, "SNAPSHOT_EVERY_S", 0.2)
    broker = await connect_broker("first")
    before = (await left_behind(broker, tmp_path / "data"))[0]
    monkeypatch.setattr(names, "SNAPSHOT_EVERY_S", 3600)
    kept = [stored async for stored in broker.read(subjects.SNAPSHOTS, (subjects.kv(subjects.SNAPSHOTS, ">"),))]
    readable = await snapshot_heads(broker)
    assert readable > 5
    nc = await nats.connect(nats_server.url)
    for what in ("snap", "head"):
        mine = [stored for stored in kept if f".{what}." in stored.subject]
        for name, harm in DAMAGES.items():
            for stored in mine:
                if harm(stored.body) != stored.body:
                    await broker.append(stored.subject, harm(stored.body))
            if name != "of another run":
                assert await snapshot_heads(broker) == 0, (what, name)
            assert await _restarted(connect_broker) == before, (what, name)
        await nc.jetstream().purge_stream(subjects.SNAPSHOTS, subject=subjects.kv(subjects.SNAPSHOTS, f"{what}.>"))
        assert await _restarted(connect_broker) == before, (what, "deleted")
        for stored in mine:
            await broker.append(stored.subject, stored.body)
        assert await snapshot_heads(broker) == readable
    await nc.close()


async def _restarted(connect: Connect) -> str:
    broker = await connect("again")
    async with running_scheduler(broker, "again") as scheduler:
        found = state_hash(scheduler)
    await broker.close()
    return found


async def _snapshots(broker: Broker, wanted: int) -> bool:
    return await snapshot_heads(broker) >= wanted
