"""The executor over a real nats-server, with the test playing the scheduler."""

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from headrace.contracts import codec, events, subjects
from headrace.contracts.envelope import ItemResult, Part, Value
from headrace.contracts.failure import Failure
from headrace.contracts.live import Held, Reply, Request, Revoke
from headrace.runtime import blobs
from headrace.runtime.eventlog import BusMessage
from headrace_step_executor.parts import Surroundings
from headrace_step_executor.tools.call import ToolCall
from tests.conftest import Connect, until
from tests.integration.executor.rig import STREAM, Rig, running


class Tools:
    """Tools of this process: what they were called with, and a gate that holds `hold` until it is opened."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.stopped: list[str] = []
        self.gate = asyncio.Event()

    async def hold(self, call: ToolCall) -> Any:
        """Wait for the gate; notes when it is cancelled."""
        self.calls[call.run] += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.stopped.append(call.run)
            raise
        return {"attempt": call.attempt}

    async def note(self, call: ToolCall) -> Any:
        """Count the call."""
        self.calls[call.run] += 1
        return {"n": self.calls[call.run]}

    async def crash(self, _call: ToolCall) -> Any:
        """A bug of the tool."""
        text = "boom"
        raise KeyError(text)

    async def nan(self, _call: ToolCall) -> Any:
        """No JSON."""
        return {"a": [float("nan")]}

    async def huge(self, call: ToolCall) -> Any:
        """As large as asked."""
        return "x" * call.args["size"]

    @property
    def around(self) -> Surroundings:
        """For the executor."""
        return Surroundings(
            tools={
                "hold": self.hold,
                "note": self.note,
                "crash": self.crash,
                "nan": self.nan,
                "huge": self.huge,
            }
        )


def decision(rig: Rig, run: str, event: Any, headline: str) -> tuple[str, bytes]:
    """A decision that ends a run: subject and body."""
    data = events.Decided(version=9, at_ms=rig.clock.now_ms(), events=(event,))
    message = events.RunDecided(
        specversion="1.0", id=f"end-{run}", source="s", time="t", schemaver=1, tenant="default", pipeline="p",
        runid=run, data=data,
    )  # fmt: skip
    return subjects.decision(subjects.run_prefix("default", "p", run), headline), codec.encode(message)


# --- the whole way -------------------------------------------------------------------------------------


async def test_an_order_becomes_one_report_and_is_acknowledged(connect_broker: Connect, tmp_path: Path) -> None:
    """Order in, tool called, report out with its causes, order gone from the queue."""
    async with running(connect_broker, tmp_path) as rig:
        report: Any = await rig.ran(tool="text.split", input={"text": "abc def", "size": 4})
        assert isinstance(report, events.AttemptSucceeded), report
        assert codec.plain(report.data.output.json) == {"count": 2, "parts": ["abc ", "def"]}  # type: ignore[arg-type]
        assert (report.data.decision, report.data.offer, report.causationid) == ("d1", 1, "d1")
        assert (report.correlationid, report.traceparent, report.stepid) == ("r1", "00-aa-bb-01", "a")
        await rig.queue_is_empty()
        assert len(await rig.reports()) == 1
        assert rig.asks == []


async def test_a_decision_with_an_order_inside_is_run(connect_broker: Connect, tmp_path: Path) -> None:
    """The report names the decision by the envelope's id."""
    async with running(connect_broker, tmp_path) as rig:
        order = rig.order(tool="json.parse", input={"text": "[1]"}, decision="")
        message = events.RunDecided(
            specversion="1.0", id="dec-7", source="s", time="t", schemaver=1, tenant="default", pipeline="p",
            runid="r1", data=events.Decided(version=2, at_ms=1, events=(), order=order.data),
        )  # fmt: skip
        prefix = subjects.run_prefix("default", "p", "r1")
        await rig.broker.append(subjects.decision(prefix, "scheduled.tool"), codec.encode(message))
        report = await rig.report()
        assert (report.data.decision, report.causationid) == ("dec-7", "dec-7")


async def test_a_model_step_reports_text_and_usage(connect_broker: Connect, tmp_path: Path) -> None:
    """Output has text, model and reason; usage stands beside it."""
    async with running(connect_broker, tmp_path) as rig:
        report: Any = await rig.ran(kind="llm", queue="llm", input={"prompt": "say it"})
        assert codec.plain(report.data.output.json) == {
            "text": "say it", "model": "echo/echo", "finish_reason": "stop",
        }  # fmt: skip
        assert report.data.usage == events.Usage(input_tokens=2, output_tokens=2, model="echo/echo")


async def test_failures_are_reported_with_their_code(connect_broker: Connect, tmp_path: Path) -> None:
    """A tool's bug, arguments that do not fit, an unknown tool, a result that is no JSON: the executor goes on."""
    async with running(connect_broker, tmp_path, around=Tools().around) as rig:
        expected = {
            "crash": ("tool_crashed", True), "nan": ("out_of_range", False), "no.such": ("tool_unavailable", True),
            "text.split": ("tool_args_invalid", False),
        }  # fmt: skip
        for index, (tool, (code, retryable)) in enumerate(expected.items()):
            failure = await rig.failure(run=f"f{index}", tool=tool, input={"texxt": 1})
            assert (failure.code, failure.retryable) == (code, retryable), failure
        internal = await rig.failure(run="f9", kind="dance", tool="x", input={})
        assert internal.code == "internal"
        assert (await rig.output(run="ok", tool="json.parse", input={"text": "1"})) == {"value": 1}


# --- rendering, values, artifacts ----------------------------------------------------------------------


async def test_templates_are_rendered_over_values_by_reference(connect_broker: Connect, tmp_path: Path) -> None:
    """A whole value, one element of a list, and the composed result of a foreach look like inline ones."""
    async with running(connect_broker, tmp_path) as rig:
        listed = await blobs.put(rig.broker, "default", "r1", b'["a","b","c"]')
        big = await blobs.put(rig.broker, "default", "r1", b'{"deep":[1,2]}')
        items = codec.encode(
            [
                ItemResult(status="succeeded", value=Value(json=msgspec.Raw(b"7"))),
                ItemResult(status="succeeded", value=Value(ref=big)),
                ItemResult(status="failed", failure=Failure(code="x", message="y")),
            ]
        )
        results = await blobs.put(rig.broker, "default", "r1", items)
        found = await rig.output(
            kind="transform", queue="transform",
            template={"one": "${{ item }}", "all": "${{ steps.f.output }}", "text": "<${{ inputs.n }}>"},
            bindings={
                "item": Value(ref=listed, index=1), "steps.f.output": Value(ref=results, form="items"),
                "inputs": Value(json=msgspec.Raw(b'{"n":5}')),
            },
        )  # fmt: skip
        assert found == {
            "one": "b", "text": "<5>",
            "all": {
                "items": [7, {"deep": [1, 2]}, None],
                "failed": [{"index": 2, "code": "x", "message": "y"}],
                "counts": {"total": 3, "succeeded": 2, "failed": 1, "skipped": 0},
            },
        }  # fmt: skip


async def test_a_list_in_parts_is_read_as_one(connect_broker: Connect, tmp_path: Path) -> None:
    """The results of a long map come together where an expression reads them, within the bound of one step."""
    async with running(connect_broker, tmp_path) as rig:
        parts = []
        for numbers in (range(3), range(3, 5)):
            results = [ItemResult(status="succeeded", value=codec.inline({"n": n})) for n in numbers]
            data = codec.encode(results)
            ref = await blobs.put(rig.broker, "default", "r1", data)
            parts.append(Part(ref=ref, size=len(data), count=len(numbers)))
        whole = Value(parts=tuple(parts), form="items", count=5, size=sum(part.size for part in parts))
        fields = {"kind": "transform", "queue": "transform", "template": "${{ steps.f.output.items.map(i, i.n) }}"}
        assert await rig.output(run="ok", bindings={"steps.f.output": whole}, **fields) == [0, 1, 2, 3, 4]
        large = msgspec.structs.replace(whole, size=257 * 1024 * 1024)
        failure = await rig.failure(run="large", bindings={"steps.f.output": large}, **fields)
        assert failure.code == "too_large" and not failure.retryable


async def test_input_24_an_expression_without_a_value_fails_the_step(connect_broker: Connect, tmp_path: Path) -> None:
    """`expr_eval` and `expr_cost` are facts about the step; a blob that is gone has its own code."""
    async with running(connect_broker, tmp_path) as rig:
        inputs = {"inputs": Value(json=msgspec.Raw(codec.encode({"n": 0, "l": list(range(3000))})))}
        fields = {"kind": "transform", "queue": "transform", "bindings": inputs}
        assert (await rig.failure(run="a", template="${{ 1 / inputs.n }}", **fields)).code == "expr_eval"
        bomb = "${{ inputs.l.all(a, inputs.l.all(b, a + b >= 0)) }}"
        assert (await rig.failure(run="b", template=bomb, **fields)).code == "expr_cost"
        gone = {"inputs": Value(ref="r1/" + "0" * 64)}
        fields["bindings"] = gone
        assert (await rig.failure(run="c", template="${{ inputs.n }}", **fields)).code == "not_found"


async def test_large_transforms_run_in_a_worker_process(connect_broker: Connect, tmp_path: Path) -> None:
    """The loop goes on turning meanwhile, and beats go on; the result travels by reference."""
    async with running(connect_broker, tmp_path) as rig:
        data = msgspec.json.encode({"l": [{"k": index, "t": "x" * 40} for index in range(100_000)]})
        ref = await blobs.put(rig.broker, "default", "r1", data)
        before = len(rig.beats)
        report = await rig.ran(
            kind="transform", queue="transform", timeout_ms=60_000,
            template='${{ sort_by(inputs.l, "-k") }}', bindings={"inputs": Value(ref=ref, size=len(data))},
        )  # fmt: skip
        assert isinstance(report, events.AttemptSucceeded), report
        stored = await blobs.get(rig.broker, "default", report.data.output.ref)
        assert report.data.output.size == len(stored)
        assert msgspec.json.decode(stored)[0]["k"] == 99_999
        counters = [beat.counter for beat in rig.beats[before:]]
        assert len(counters) >= report.data.duration_ms / 1000 / 0.6


async def test_input_45_results_over_64_kib_travel_by_reference(connect_broker: Connect, tmp_path: Path) -> None:
    """64 KiB is inline, a byte more is stored first; 65 MiB is refused as `too_large`."""
    async with running(connect_broker, tmp_path, around=Tools().around) as rig:
        inline: Any = await rig.ran(run="a", tool="huge", input={"size": 64 * 1024 - 2})
        assert inline.data.output.ref == ""
        outside: Any = await rig.ran(run="b", tool="huge", input={"size": 64 * 1024 - 1})
        assert outside.data.output.size == 64 * 1024 + 1
        assert len(await blobs.get(rig.broker, "default", outside.data.output.ref)) == 64 * 1024 + 1
        assert (
            await rig.failure(run="c", tool="huge", input={"size": 65 << 20}, timeout_ms=30_000)
        ).code == "too_large"


async def test_large_results_leave_the_loop_turning(connect_broker: Connect, tmp_path: Path) -> None:
    """Neither 60 MiB of text nor 15 MiB of nulls holds the loop's thread for long. Its own CPU time tells, not load.

    An executor that is silent for 1.2 s is taken for dead: this is about being suspected, not about speed.
    """

    async def nulls(_call: ToolCall) -> Any:
        return [None] * 3_000_000

    around = Surroundings(tools={"huge": Tools().huge, "nulls": nulls})
    async with running(connect_broker, tmp_path, around=around) as rig:
        longest_s = 0.0

        async def tick() -> None:
            nonlocal longest_s
            while True:
                before_s = time.thread_time()
                await asyncio.sleep(0)
                longest_s = max(longest_s, time.thread_time() - before_s)

        ticking = asyncio.create_task(tick())
        large: dict[str, dict[str, Any]] = {
            "a": {"tool": "huge", "input": {"size": 60 << 20}},
            "b": {"tool": "nulls", "input": {}},
        }
        for run, fields in large.items():
            order = rig.order(run, timeout_ms=60_000, **fields)
            await rig.publish(order)
            report = await rig.report(run, within_s=40)
            assert isinstance(report, events.AttemptSucceeded), report
        ticking.cancel()
        assert longest_s < 0.4, f"the loop's thread was held for {longest_s:.2f} s of CPU"


async def test_files_read_by_expressions_are_hashed_and_artifacts_kept(connect_broker: Connect, tmp_path: Path) -> None:
    """`file(path)` reads in the workspace, the report has its hash; matching files become blobs."""
    async with running(connect_broker, tmp_path) as rig:
        written: Any = await rig.ran(
            run="w", tool="fs.write", queue="tool-ws", workspace=True, artifacts=("out/*.txt", "none/*"),
            input={"path": "out/a.txt", "text": "hello"},
        )  # fmt: skip
        assert [(kept.path, kept.size) for kept in written.data.artifacts] == [("out/a.txt", 5)]
        assert await blobs.get(rig.broker, "default", written.data.artifacts[0].ref) == b"hello"
        assert (rig.data_dir / "workspaces/default/w/out/a.txt").read_text() == "hello"
        await rig.publish(
            rig.order(
                "w", "b", kind="transform", queue="transform-ws", workspace=True,
                template="${{ file('out/a.txt') + '!' }}", bindings={},
            )
        )  # fmt: skip
        await until(lambda: _two(rig))
        report = (await rig.reports("w"))[1]
        assert codec.plain(report.data.output.json) == "hello!"
        assert list(report.data.files) == ["out/a.txt"]
        escaped = await rig.failure(
            run="x", kind="transform", queue="transform-ws", template="${{ file('../w/out/a.txt') }}"
        )
        assert escaped.code == "path_denied"


async def _two(rig: Rig) -> bool:
    return len(await rig.reports("w")) == 2


# --- staleness -----------------------------------------------------------------------------------------


async def test_a_stale_order_is_checked_with_the_owner(connect_broker: Connect, tmp_path: Path) -> None:
    """Asked in one batch; what is not current is acknowledged without being run."""
    tools = Tools()
    async with running(connect_broker, tmp_path, around=tools.around) as rig:
        rig.current = False
        old = rig.clock.now_ms() - 10_000
        for index in range(20):
            await rig.publish(rig.order("r1", f"s{index}", tool="note", input={}, scheduled_ms=old))
        await until(lambda: sum(len(ask.orders) for ask in rig.asks) >= 20)
        await rig.queue_is_empty()
        assert tools.calls == {}
        assert len(rig.asks) < 20
        rig.current = True
        await rig.publish(rig.order("r2", tool="note", input={}, scheduled_ms=old))
        await rig.report("r2")
        assert tools.calls == {"r2": 1}


async def test_without_an_answer_a_stale_order_waits_and_comes_again(connect_broker: Connect, tmp_path: Path) -> None:
    """Silence is never a yes: the order is handed back and asked about again."""
    tools = Tools()
    async with running(connect_broker, tmp_path, around=tools.around) as rig:
        rig.current = None
        await rig.publish(rig.order(tool="note", input={}, scheduled_ms=rig.clock.now_ms() - 10_000))
        await until(lambda: rig.asks, within_s=3)
        assert tools.calls == {}
        rig.current = True
        await rig.report(within_s=12)
        assert tools.calls == {"r1": 1}


async def test_orders_from_before_the_start_are_checked(connect_broker: Connect, tmp_path: Path) -> None:
    """Their runs may have ended while nobody listened."""
    tools = Tools()
    async with running(connect_broker, tmp_path, around=tools.around) as rig:
        await rig.hosted.shut_down()
        seq = await rig.publish(rig.order(tool="note", input={}))
        assert seq > 0
    rig_two: Rig
    async with running(connect_broker, tmp_path, around=tools.around, instance="executor-2") as rig_two:
        await rig_two.report()
        assert [order[0] for ask in rig_two.asks for order in ask.orders] == ["r1"]


async def test_expired_orders_are_acknowledged_without_being_run(connect_broker: Connect, tmp_path: Path) -> None:
    """`not_after` by the broker's clock; no report."""
    tools = Tools()
    async with running(connect_broker, tmp_path, around=tools.around) as rig:
        now_ms = rig.clock.now_ms()
        await rig.publish(rig.order(tool="note", input={}, not_after_ms=now_ms - 1))
        await rig.publish(rig.order("r2", tool="note", input={}, due_ms=now_ms - 1))
        await rig.queue_is_empty()
        assert (tools.calls, await rig.reports(), await rig.reports("r2")) == ({}, [], [])


async def test_two_offers_of_one_attempt_are_one_call(connect_broker: Connect, tmp_path: Path) -> None:
    """The newer copy is kept, the older acknowledged; a newer attempt stops the older one."""
    tools = Tools()
    async with running(connect_broker, tmp_path, around=tools.around) as rig:
        for offer in (1, 3, 2):
            await rig.publish(rig.order(tool="hold", input={}, offer=offer))
        await until(lambda: rig.executor.hands.offers == {("r1", "a", 1): 3})
        await rig.publish(rig.order(tool="hold", input={}, attempt=2))
        await until(lambda: ("r1", "a", 2) in rig.executor.hands.offers)
        await until(lambda: tools.stopped == ["r1"])
        tools.gate.set()
        report = await rig.report()
        await rig.queue_is_empty()
        assert (report.attempt, len(await rig.reports()), tools.calls["r1"]) == (2, 1, 2)


# --- being told to stop --------------------------------------------------------------------------------


async def test_the_end_of_a_run_stops_its_attempts(connect_broker: Connect, tmp_path: Path) -> None:
    """Cancelled or failed: the work is stopped, nothing is reported, later orders are let go."""
    tools = Tools()
    async with running(connect_broker, tmp_path, around=tools.around) as rig:
        for run in ("r1", "r2", "r3"):
            await rig.publish(rig.order(run, tool="hold", input={}))
        await until(lambda: sum(tools.calls.values()) == 3)
        ends = [
            decision(rig, "r1", events.RunCancelling(reason="x", due_ms=1), "run-cancelling"),
            decision(rig, "r2", events.RunFailed(failure=Failure(code="x", message="y")), "run-failed"),
        ]
        for subject, body in ends:
            await rig.broker.append(subject, body)
        await until(lambda: sorted(tools.stopped) == ["r1", "r2"], within_s=2)
        await rig.publish(rig.order("r1", "b", tool="note", input={}))
        tools.gate.set()
        await rig.report("r3")
        await rig.queue_is_empty()
        assert (await rig.reports("r1"), await rig.reports("r2")) == ([], [])
        assert tools.calls["r1"] == 1


async def test_a_revoked_attempt_stops(connect_broker: Connect, tmp_path: Path) -> None:
    """Of exactly that attempt; a later offer of it runs."""
    tools = Tools()
    async with running(connect_broker, tmp_path, around=tools.around) as rig:
        await rig.publish(rig.order(tool="hold", input={}))
        await until(lambda: tools.calls["r1"] == 1)
        revoke = Revoke(held=(Held(run="r1", path="a", attempt=1, offer=1),))
        await rig.broker.send(subjects.REVOKE, codec.encode(revoke))
        await until(lambda: tools.stopped == ["r1"], within_s=2)
        await rig.queue_is_empty()
        tools.gate.set()
        await rig.publish(rig.order(tool="hold", input={}, offer=2))
        assert (await rig.report()).data.offer == 2


async def test_otp_s8_every_attempt_ends_at_its_deadline(connect_broker: Connect, tmp_path: Path) -> None:
    """A tool that hangs, a model that never answers, a responder that is silent: `timeout`, at the deadline + 1 s."""
    tools = Tools()
    (tmp_path / "never.yaml").write_text("answers: [{hang: true}]")
    config = {"read_roots": (tmp_path,)}
    async with running(connect_broker, tmp_path, around=tools.around, config=config) as rig:

        async def silent(_message: BusMessage) -> None:
            return

        await rig.broker.subscribe("test.responder", silent)
        spec = events.ToolSpec(tool="far", version="1", description="d", args={}, endpoint="nats:test.responder")
        await register(rig, spec)
        await register(rig, msgspec.structs.replace(spec, tool="near", timeout_ms=300))
        waiting: list[dict[str, Any]] = [
            {"tool": "hold", "input": {}}, {"tool": "far", "input": {}}, {"tool": "near", "input": {}},
            {"kind": "llm", "queue": "llm", "input": {"prompt": "x", "model": "script/never.yaml"}},
        ]  # fmt: skip
        orders = [rig.order(f"t{index}", timeout_ms=600, **fields) for index, fields in enumerate(waiting)]
        await asyncio.gather(*(rig.publish(order) for order in orders))
        reports: list[Any] = [await rig.report(f"t{index}", within_s=3) for index in range(4)]
        assert [report.data.failure.code for report in reports] == [
            "timeout",
            "timeout",
            "tool_timeout",
            "timeout",
        ]
        assert all(report.data.failure.retryable and report.data.duration_ms < 1600 for report in reports)


# --- the catalogue -------------------------------------------------------------------------------------


async def register(rig: Rig, spec: events.ToolSpec) -> None:
    """As the tool registry would, and wait until the executor has folded it."""
    message = events.ToolRegistered(
        specversion="1.0",
        id=f"t-{spec.tool}-{spec.version}",
        source="s",
        time="t",
        schemaver=1,
        tenant="default",
        data=spec,
    )
    await rig.broker.append(subjects.tool("default", spec.tool), codec.encode(message))
    await until(lambda: rig.executor._parts.catalogue.knows("default", spec.tool))


async def test_otp_s2_calls_go_on_from_the_folded_catalogue(connect_broker: Connect, tmp_path: Path) -> None:
    """No registry runs here at all: known tools answer, one that is disabled is unavailable, a responder may refuse."""
    async with running(connect_broker, tmp_path) as rig:

        async def answer(message: BusMessage) -> None:
            asked = codec.decode_as(Request, message.body)
            if codec.plain(asked.data).get("odd"):
                await message.respond(codec.encode(Reply(error=Failure(code="E" * 400_000, message="m" * 400_000))))
                return
            if codec.plain(asked.data).get("fail"):
                await message.respond(codec.encode(Reply(error=Failure(code="mine", message="m", retryable=True))))
                return
            await message.respond(codec.encode(Reply(data=asked.data)))

        await rig.broker.subscribe("test.responder", answer)
        spec = events.ToolSpec(tool="far", version="1", description="d", args={}, endpoint="nats:test.responder")
        await register(rig, spec)
        await register(rig, msgspec.structs.replace(spec, tool="gone", endpoint="nats:test.nobody"))
        assert await rig.output(run="a", tool="far", input={"x": 1}) == {"x": 1}
        assert (await rig.failure(run="b", tool="far", input={"fail": True})).code == "mine"
        odd = await rig.failure(run="e", tool="far", input={"odd": True})
        assert (odd.code, len(odd.message) < 3_000) == ("tool_crashed", True), "a report stays small, and a code a code"
        assert (await rig.failure(run="c", tool="gone", input={})).code == "tool_unavailable"
        disabled = events.ToolDisabled(
            specversion="1.0", id="off", source="s", time="t", schemaver=1, tenant="default",
            data=events.ToolName(tool="far", version="1"),
        )  # fmt: skip
        await rig.broker.append(subjects.tool("default", "far"), codec.encode(disabled))
        await until(lambda: rig.executor._parts.catalogue.find("default", "far") is None)
        assert (await rig.failure(run="d", tool="far", input={})).code == "tool_unavailable"


# --- parking -------------------------------------------------------------------------------------------


async def test_input_51_what_is_no_order_is_parked_and_the_queue_goes_on(
    connect_broker: Connect, tmp_path: Path
) -> None:
    """Garbage, nothing at all, too many headers, an order under a false name: bytes kept, acknowledged, once each."""
    async with running(connect_broker, tmp_path) as rig:
        subject = subjects.order(subjects.run_prefix("default", "p", "r1"), "tool")
        other = codec.encode(rig.order("other", tool="x", input={}))
        fine = codec.encode(rig.order("r1", "h", tool="json.parse", input={"text": "1"}))
        for body in (b"\xff\x00garbage", b"", b"[]", other):
            await rig.broker.append(subject, body)
        # nats-server's own bound on a header block is 4 KiB less than what we call too much together
        await rig.broker.append(subject, fine, headers={f"x-{index}": "y" * 1000 for index in range(5)})
        await rig.publish(rig.order(path="z", tool="json.parse", input={"text": "2"}))
        await rig.report()
        await rig.queue_is_empty()
        parked = []
        async for stored in rig.broker.read(subjects.DEAD, ["hr.dead.>"]):
            message = codec.decode(stored.body)
            assert isinstance(message, events.MessageParked)
            parked.append(message.data)
        assert [kept.body for kept in parked] == [b"\xff\x00garbage", b"", b"[]", other, fine]
        assert all(kept.failure.code == "malformed_message" and kept.stream == STREAM for kept in parked)
        assert len(await rig.reports()) == 1


# --- presence, drain -----------------------------------------------------------------------------------


async def test_beats_tell_what_is_in_hand(connect_broker: Connect, tmp_path: Path) -> None:
    """Taken once, finished once, everything in full on request, and goodbye at the end."""
    tools = Tools()
    async with running(connect_broker, tmp_path, around=tools.around) as rig:
        held = Held(run="r1", path="a", attempt=1, offer=1)
        await rig.publish(rig.order(tool="hold", input={}))
        await until(lambda: any(held in beat.taken or held in (beat.full or ()) for beat in rig.beats))
        await rig.broker.send(subjects.PRESENCE_PLEASE, b"{}")
        await until(lambda: any(beat.full == (held,) for beat in rig.beats), within_s=0.25)
        tools.gate.set()
        await rig.report()
        await until(lambda: any(held in beat.finished for beat in rig.beats) or rig.beats[-1].full == ())
        assert all(beat.ready and "echo" in beat.providers for beat in rig.beats[5:])
        counters = [beat.counter for beat in rig.beats]
        assert counters == list(range(counters[0], counters[0] + len(counters)))
        await rig.hosted.shut_down()
        await until(lambda: rig.beats[-1].leaving)


async def test_an_order_is_listed_before_its_delivery_can_be_counted(connect_broker: Connect, tmp_path: Path) -> None:
    """What the consumer says is delivered is in the full list that is asked for afterwards, hundreds at a time."""
    tools = Tools()
    async with running(connect_broker, tmp_path, around=tools.around, config={"tool_in_flight_max": 300}) as rig:
        for round_ in range(3):
            futures = []
            for index in range(100):
                order = rig.order(f"r{round_}-{index}", tool="hold", input={})
                prefix = subjects.run_prefix("default", "p", order.runid)
                futures.append(await rig.broker.publish(subjects.order(prefix, "tool"), codec.encode(order)))
            await asyncio.gather(*futures)
            state = await rig.broker.consumer_state(STREAM, subjects.order_consumer("tool"))
            known = len(rig.beats)
            await rig.broker.send(subjects.PRESENCE_PLEASE, b"{}")
            await until(lambda known=known: any(beat.full is not None for beat in rig.beats[known:]))  # type: ignore[misc]
            full = next(beat.full for beat in rig.beats[known:] if beat.full is not None)
            assert len(full) >= state.delivered_seq
        tools.gate.set()
        await rig.queue_is_empty()


async def test_draining_finishes_what_runs_and_hands_back_the_rest(connect_broker: Connect, tmp_path: Path) -> None:
    """The running attempt is reported; orders that had not begun are for another executor, at once."""
    tools = Tools()
    async with running(connect_broker, tmp_path, around=tools.around, config={"tool_in_flight_max": 1}) as rig:
        await rig.publish(rig.order("r1", tool="hold", input={}))
        await until(lambda: tools.calls["r1"] == 1)
        await rig.publish(rig.order("r2", tool="note", input={}))
        draining = asyncio.create_task(rig.hosted.shut_down())
        await asyncio.sleep(0.2)
        assert not draining.done()
        tools.gate.set()
        await draining
        assert len(await rig.reports("r1")) == 1
        assert tools.calls["r2"] == 0
    async with running(connect_broker, tmp_path, around=tools.around, instance="executor-2") as second:
        await second.report("r2")


async def test_stopping_hands_back_what_still_runs(connect_broker: Connect, tmp_path: Path) -> None:
    """A drain that is cut short cancels the work; another executor gets the order without waiting for `ack_wait`."""
    tools = Tools()
    async with running(connect_broker, tmp_path, around=tools.around) as rig:
        await rig.publish(rig.order(tool="hold", input={}))
        await until(lambda: tools.calls["r1"] == 1)
        await rig.hosted.abandon()
        await until(lambda: tools.stopped == ["r1"])
        tools.gate.set()
        async with running(connect_broker, tmp_path, around=tools.around, instance="executor-2") as second:
            await second.report(within_s=8)
            assert [ask.orders[0][0] for ask in second.asks] == ["r1"]
