"""Reruns and forks with a real broker, scheduler and executor: what is shared is never executed twice."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
from tests.conftest import Connect, until
from tests.engine import command, events_of, finished, history, put, running, running_scheduler, start
from tests.integration.services.test_otp_n1_n9 import CATALOGUE, Calls, register

from headrace.client.differences import compare
from headrace.client.history import RunView
from headrace.client.values import resolve
from headrace.contracts import codec, names, subjects
from headrace.contracts import events as ev
from headrace.local.nats_server import NatsServer
from headrace.runtime.eventlog import Broker
from headrace.runtime.streams import migrate
from headrace_step_executor.parts import build_executor

LARGE = names.INLINE_BYTES_MAX + 1
SHARED = """
pipeline: shared
inputs: {n: {type: integer}, m: {type: integer, default: 1}}
outputs: {seen: "${{ steps.end.output }}", many: "${{ size(steps.each.output.items) }}"}
steps:
  first: {tool: work.echo, with: {n: "${{ inputs.n }}", large: "LARGE"}}
  each: {foreach: "${{ [1, 2] }}", tool: work.echo, with: {i: "${{ item }}", large: "${{ steps.first.output.large }}"}}
  beside: {tool: work.echo, with: {m: "${{ inputs.m }}"}}
  end:
    needs: [each]
    tool: work.echo
    with: {n: "${{ steps.first.output.n }}", m: "${{ inputs.m }}", size: "${{ size(steps.first.output.large) }}"}
""".replace("LARGE", "x" * LARGE)


@asynccontextmanager
async def executing(broker: Broker, folder: Path, calls: Calls) -> AsyncIterator[None]:
    """A real executor whose one tool is counted by its idempotency key."""
    await migrate(broker)
    await register(broker)
    async with running(build_executor, broker, "e1", **calls.executor(folder)) as executor:
        await until(lambda: executor._parts.catalogue.knows("default", "work.echo"), within_s=20, what="the catalogue")
        yield


async def ask(broker: Broker, verb: str, command_id: str, **data: Any) -> ev.StoredMessage:
    """A command's answer."""
    return await command(broker, verb, data, command_id=command_id)


async def seen(broker: Broker, run: str) -> Any:
    """The outputs of a run that must complete."""
    end = await finished(broker, run, within_s=60)
    assert isinstance(end, ev.RunCompleted), end
    return await resolve(broker, "default", end.outputs)


def codes(answer: ev.StoredMessage) -> list[str]:
    """Of a refusal."""
    assert isinstance(answer, ev.CommandRefused), answer
    return [reason.code for reason in answer.data.reasons]


async def test_what_is_shared_is_not_executed_and_outlives_the_other_run(
    connect_broker: Connect, nats_server: NatsServer, tmp_path: Path
) -> None:
    """A rerun and a fork call only what is anew, with large values and items by reference; so does a fork of the fork,
    after the other runs were purged with their values. Commands are carried out once and refused with reasons."""
    broker, calls = await connect_broker("engine"), Calls()
    async with executing(broker, tmp_path, calls), running_scheduler(broker):
        await put(broker, SHARED, catalogue=CATALOGUE)
        await start(broker, "shared", "old", n=1)
        assert await seen(broker, "old") == {"seen": {"n": 1, "m": 1, "size": LARGE}, "many": 2}
        once = {f"old/{step}" for step in ("first", "each[0]", "each[1]", "beside", "end")}
        assert dict(calls.by_key) == dict.fromkeys(once, 1)

        answer = await ask(broker, "run-rerun", "r1", runid="old", step="end", newid="again")
        assert isinstance(answer, ev.CommandAccepted) and answer.data.runid == "again"
        assert await seen(broker, "again") == {"seen": {"n": 1, "m": 1, "size": LARGE}, "many": 2}
        assert calls.by_key.keys() - once == {"again/end"}

        answer = await ask(broker, "run-fork", "f1", runid="old", step="end", inputs={"m": 5}, newid="fork")
        assert isinstance(answer, ev.CommandAccepted)
        assert (await seen(broker, "fork"))["seen"] == {"n": 1, "m": 5, "size": LARGE}
        assert calls.by_key.keys() - once == {"again/end", "fork/end", "fork/beside"}

        pins = {run: events_of(await history(broker, run), ev.RunCreated)[0].tools for run in ("old", "again", "fork")}
        assert list(pins.values()) == [{"work.echo": "1"}] * 3

        # what was refused changed nothing
        same = await ask(broker, "run-fork", "f2", runid="old", step="end", inputs={"m": 5}, newid="fork")
        assert isinstance(same, ev.CommandAccepted) and same.data.runid == "fork"
        other = await ask(broker, "run-fork", "f3", runid="old", step="end", inputs={"m": 6}, newid="fork")
        assert codes(other) == ["key_reused"]
        refusals = {
            "x1": ({"runid": "nobody", "step": "end"}, ["not_found"]),
            "x2": ({"runid": "old", "step": "nope"}, ["not_found"]),
            "x3": ({"runid": "old", "step": "each[0]"}, ["data_invalid"]),
            "x4": ({"runid": "old", "step": "end", "inputs": {"n": 2}}, ["prefix_changed"]),
            "x5": ({"runid": "old", "step": "end", "inputs": {"m": "no", "k": 1}}, ["inputs_invalid"] * 2),
            "x6": ({"runid": "old", "step": "end", "definition": "shared@" + "0" * 64}, ["not_found"]),
        }
        for command_id, (data, expected) in refusals.items():
            assert codes(await ask(broker, "run-fork", command_id, **data)) == expected, command_id

        views = [list(enumerate(await history(broker, run), start=1)) for run in ("old", "again", "fork")]
        assert compare(views[0], views[1]).none
        differs = compare(views[0], views[2])
        assert {step.path for step in differs.steps} == {"beside", "end"}

        # the other runs and their values are gone for ever
        client = await nats.connect(nats_server.url)
        for run in ("old", "again"):
            await client.jsm().purge_stream(subjects.runs_stream(0), subject=subjects.run_filter(run))
            await client.jsm().purge_stream(subjects.BLOBS, subject=f"hr.blob.default.{run}.>")
        await client.close()
        before = calls.by_key.keys() | set()
        answer = await ask(broker, "run-fork", "f4", runid="fork", step="end", inputs={"m": 9}, newid="third")
        assert isinstance(answer, ev.CommandAccepted), answer
        assert await seen(broker, "third") == {"seen": {"n": 1, "m": 9, "size": LARGE}, "many": 2}
        assert calls.by_key.keys() - before == {"third/end", "third/beside"}
        assert set(calls.by_key.values()) == {1}

        view = RunView("third")
        for message in await history(broker, "third"):
            view.take(message)
        assert (view.origin, view.origin_step) == ("fork", "end")
        assert {step.path: step.taken for step in view.steps.values()} == {
            "first": "fork",
            "each": "fork",
            "beside": "",
            "end": "",
        }
        assert view.steps["first"].output is not None
        assert (await resolve(broker, "default", view.steps["first"].output))["n"] == 1


TRIGGERED = """
pipeline: triggered
inputs: {m: {type: integer, default: 1}}
triggers: [{event: pushed}]
limits: {concurrency: {key: "${{ event.data.k }}-${{ inputs.m }}"}}
outputs: {seen: "${{ steps.end.output }}"}
steps:
  first: {tool: work.echo, with: {k: "${{ event.data.k }}"}}
  end: {tool: work.echo, with: {k: "${{ steps.first.output.k }}", m: "${{ inputs.m }}", n: "${{ event.data.k }}"}}
"""


async def test_a_fork_sees_what_triggered_the_other_run(connect_broker: Connect, tmp_path: Path) -> None:
    """In its steps and in its concurrency key, which is its own."""
    broker, calls = await connect_broker("engine"), Calls()
    async with executing(broker, tmp_path, calls), running_scheduler(broker):
        await put(broker, TRIGGERED, arm=True, catalogue=CATALOGUE)
        event = {"specversion": "1.0", "id": "e1", "source": "/x", "type": "pushed", "data": {"k": "key"}}
        await broker.append(subjects.trigger("default", "pushed"), json.dumps(event).encode(), msg_id="e1")
        decisions = "hr.evt.default.triggered.*.*.decision.run-completed"

        async def ended() -> Any:
            return await broker.last(subjects.runs_stream(0), decisions)

        await until(ended, within_s=60, what="the triggered run has ended")
        origin = (await ended()).subject.split(".")[5]
        answer = await ask(broker, "run-fork", "f1", runid=origin, step="end", inputs={"m": 2}, newid="fork")
        assert isinstance(answer, ev.CommandAccepted), answer
        assert await seen(broker, "fork") == {"seen": {"k": "key", "m": 2, "n": "key"}}
        (created,) = events_of(await history(broker, "fork"), ev.RunCreated)
        assert created.key == "key-2"
        assert {key for key in calls.by_key if key.startswith("fork/")} == {"fork/end"}


def _process(environ: dict[str, str], log: Path) -> "subprocess.Popen[bytes]":
    """A scheduler of its own."""
    words = [sys.executable, "-m", "headrace.cli.app", "service", "scheduler"]
    with log.open("wb") as out:
        return subprocess.Popen(words, env=environ, stdout=out, stderr=out)


async def test_input_47_a_run_of_another_tenant_is_as_unknown_as_none(connect_broker: Connect, tmp_path: Path) -> None:
    """Its existence is not told; a child run is refused with the run that it belongs to."""
    broker, calls = await connect_broker("engine"), Calls()
    async with executing(broker, tmp_path, calls), running_scheduler(broker):
        await put(broker, "pipeline: inner\nsteps: {x: {transform: {n: 1}}}\n")
        await put(broker, "pipeline: outer\nsteps: {s: {pipeline: inner}}\n")
        await start(broker, "outer", "old")
        await finished(broker, "old")
        for tenant, run in (("other", "old"), ("default", "none")):
            body = json.dumps({"runid": run, "step": "s"}).encode()
            await broker.append(subjects.command(tenant, "run-rerun"), body, msg_id=f"r-{tenant}")
            subject = subjects.outcome(tenant, f"r-{tenant}")

            async def answered(subject: str = subject) -> Any:
                return await broker.last(subjects.OUTCOMES, subject)

            await until(answered, within_s=20, what=subject)
            answer = codec.decode((await answered()).body)
            assert isinstance(answer, ev.CommandRefused)
            assert [(reason.code, reason.message) for reason in answer.data.reasons] == [
                ("not_found", f"no run '{run}'")
            ]
        child = events_of(await history(broker, "old"), ev.ChildStarted)[0].child
        refused = await ask(broker, "run-rerun", "r-child", runid=child, step="x")
        assert codes(refused) == ["conflict"]
        assert (
            isinstance(refused, ev.CommandRefused) and "is a child of old, step `s`" in refused.data.reasons[0].message
        )


@pytest.mark.parametrize("point", ["before_decision:1", "between_decision_and_orders:1"])
async def test_a_scheduler_killed_after_the_fork_was_created_costs_no_second_call(
    point: str, connect_broker: Connect, nats_server: NatsServer, tmp_path: Path
) -> None:
    """Before its first decision, and before its first orders."""
    broker, calls = await connect_broker("engine"), Calls()
    async with executing(broker, tmp_path, calls):
        async with running_scheduler(broker):
            await put(broker, SHARED, catalogue=CATALOGUE)
            await start(broker, "shared", "old", n=1)
            await seen(broker, "old")
        reached = tmp_path / "reached"
        environ = {name: text for name, text in os.environ.items() if not name.startswith("HEADRACE_")} | {
            "HEADRACE_NATS_URL": nats_server.url,
            "HEADRACE_DATA_DIR": str(tmp_path / "data"),
            "HEADRACE_CRASH": point,
            "HEADRACE_CRASH_FILE": str(reached),
        }
        killed = _process(environ, tmp_path / "log")
        try:
            data = {"runid": "old", "step": "end", "inputs": {"m": 5}, "newid": "fork"}
            await broker.append(subjects.command("default", "run-fork"), json.dumps(data).encode(), msg_id="f1")
            await until(lambda: killed.poll() is not None, within_s=60, what="the scheduler is killed")
        finally:
            if killed.poll() is None:
                killed.kill()
                killed.wait(10)
        assert reached.read_text() == point.partition(":")[0] + "\n"
        assert set(calls.by_key.values()) == {1}
        async with running_scheduler(broker, "s2"):
            assert (await seen(broker, "fork"))["seen"] == {"n": 1, "m": 5, "size": LARGE}
        assert {key for key in calls.by_key if key.startswith("fork/")} == {"fork/beside", "fork/end"}
        assert set(calls.by_key.values()) == {1}
