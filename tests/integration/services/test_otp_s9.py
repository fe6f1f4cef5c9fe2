"""S9: each public reader with an exception injected gives a typed error that the log shows, never a default value."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Connect, until
from tests.engine import command, finished, outputs, put, running_scheduler
from tests.integration.executor.rig import running

from headrace.contracts import codec, events, subjects
from headrace.contracts.envelope import Value
from headrace.contracts.errors import ExpressionError, HeadraceError, UnavailableError
from headrace.contracts.events import AlertCleared, AlertRaised
from headrace.pipeline.evaluation import compile_expression, evaluate, evaluate_condition
from headrace.runtime import blobs
from headrace.runtime.clock import SystemClock
from headrace.runtime.eventlog import Broker
from headrace.runtime.memory import MemoryBroker
from headrace.runtime.memory_server import MemoryServer
from headrace.runtime.probes import Admission, ProbeError, Usage
from headrace.runtime.streams import stream_specs
from headrace.runtime.supervisor import Supervisor
from headrace_scheduler import snapshots
from headrace_step_executor.parts import Surroundings

INJECTED: tuple[Callable[[], Exception], ...] = (
    lambda: ProbeError("no answer"),
    lambda: OSError(5, "Input/output error"),
    lambda: PermissionError(13, "Permission denied"),
    lambda: RuntimeError("a bug"),
    lambda: KeyError("a bug"),
    lambda: ValueError(""),
    lambda: ZeroDivisionError("division by zero"),
    lambda: RecursionError("too deep"),
    lambda: MemoryError(),
    lambda: TimeoutError("not in time"),
    lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
    lambda: AssertionError("a bug"),
)
EVERY = pytest.mark.parametrize("made", INJECTED, ids=lambda made: type(made()).__name__)
STREAM = subjects.runs_stream(0)


# --- probes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["memory", "disk"])
@EVERY
async def test_otp_s9_a_probe_that_raises_anything_stops_admission_and_is_an_alert(
    made: Callable[[], Exception], which: str
) -> None:
    """Unknown is over the limit, whatever was found before: `probe_failed`, with `hr.sys.alert.<rule>` in the log; both
    end with the failure."""
    clock = SystemClock()
    log = MemoryBroker(MemoryServer(clock), clock)
    await log.ensure_stream(next(spec for spec in stream_specs() if spec.name == subjects.SYSTEM))
    broken = False

    def probe() -> Usage:
        if broken:
            raise made()
        return Usage(1, 10**12)

    fine = Usage(1, 10**12)
    memory, disk = (probe, lambda: fine) if which == "memory" else (lambda: fine, probe)
    gate = Admission(log, clock=clock, source="/scheduler/t", tenant="default", probe_memory=memory, probe_disk=disk)
    gate.probe()
    assert gate.refusal() is None
    broken = True
    async with Supervisor(clock) as supervisor:
        supervisor.start("admission", gate.run)
        await until(lambda: _newest(log, which, AlertRaised))
        refusal, alert = gate.refusal(), await _alert(log, which)
        broken = False
        await until(lambda: _newest(log, which, AlertCleared))
        assert supervisor.crashes == {}
    assert refusal is not None and refusal.code == "probe_failed" and refusal.retryable
    assert isinstance(alert, AlertRaised)
    assert alert.data.failure == refusal
    assert gate.refusal() is None


async def _alert(log: Broker, rule: str) -> Any:
    stored = await log.last(subjects.SYSTEM, subjects.alert(rule))
    return None if stored is None else codec.decode(stored.body)


async def _newest(log: Broker, rule: str, kind: type) -> bool:
    return isinstance(await _alert(log, rule), kind)


async def test_otp_s9_a_scheduler_that_cannot_probe_memory_refuses_new_work(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own probe of the real files: with /proc unreadable a start is refused with the reason, and accepted work goes
    on; when it can be read again, starts are accepted."""
    broken, real = False, Path.read_text

    def read_text(path: Path, *given: Any, **more: Any) -> str:
        if broken and str(path).endswith("self/statm"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *given, **more)

    monkeypatch.setattr(Path, "read_text", read_text)
    text = "pipeline: nap\noutputs: {x: '${{ steps.b.output }}'}\nsteps:\n  a: {wait: {for: 2s}}\n"
    text += "  b: {needs: [a], transform: '${{ 7 }}'}\n"
    async with running_scheduler(broker):
        await put(broker, text)
        before = await command(broker, "run-start", {"pipeline": "nap", "runid": "before"}, command_id="c1")
        broken = True
        await until(lambda: _newest(broker, "memory", AlertRaised))
        during = await command(broker, "run-start", {"pipeline": "nap", "runid": "during"}, command_id="c2")
        assert outputs(await finished(broker, "before")) == {"x": 7}
        broken = False
        await until(lambda: _newest(broker, "memory", AlertCleared))
        after = await command(broker, "run-start", {"pipeline": "nap", "runid": "after"}, command_id="c3")
    assert isinstance(before, events.CommandAccepted)
    assert isinstance(during, events.CommandRefused)
    assert [reason.code for reason in during.data.reasons] == ["probe_failed"]
    assert await broker.last(STREAM, subjects.run_filter("during")) is None
    assert isinstance(after, events.CommandAccepted)


# --- snapshots -------------------------------------------------------------------------------------------------------


@EVERY
async def test_otp_s9_a_snapshot_that_cannot_be_looked_for_is_no_missing_one(made: Callable[[], Exception]) -> None:
    """Nobody begins from the log alone because the store did not answer: that is an error of the takeover."""
    clock = SystemClock()
    server = MemoryServer(clock)
    log = MemoryBroker(server, clock)
    await log.ensure_stream(next(spec for spec in stream_specs() if spec.name == subjects.SNAPSHOTS))
    await snapshots.store(log, 3, 9, snapshots.encode(snapshots.Snapshot(part=3, seq=9, runs=[])))

    class Broken(MemoryBroker):
        """Its chunks cannot be read."""

        async def last(self, stream: str, subject_filter: str) -> Any:
            if ".snap." in subject_filter:
                raise made()
            return await super().last(stream, subject_filter)

    with pytest.raises(type(made())):
        await snapshots.load(Broken(server, clock), 3)


# --- expressions, conditions, transforms -----------------------------------------------------------------------------


@EVERY
def test_otp_s9_a_file_that_cannot_be_read_is_no_text_and_no_condition(made: Callable[[], Exception]) -> None:
    """What the reader raises is raised by the expression; there is no "" and no false."""

    def reader(_path: str) -> str:
        raise made()

    for source in ("file('x')", "size(file('x'))", "has(inputs.a) && file('x') == ''", "file('x') + 'y'"):
        with pytest.raises((HeadraceError, type(made()))):
            evaluate(compile_expression(source), {"inputs": {"a": 1}}, files=reader)
    with pytest.raises((HeadraceError, type(made()))):
        evaluate_condition(compile_expression("file('x') == 'y'"), {}, files=reader)


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("inputs.n / 0", "expr_eval"), ("inputs.n % 0", "expr_eval"), ("inputs.missing", "expr_eval"),
        ("inputs.l[9]", "expr_eval"), ("9223372036854775807 + inputs.n", "expr_eval"), ("inputs.n.x", "expr_eval"),
        ("int(inputs.s)", "expr_eval"), ("inputs.l.all(a, inputs.l.all(b, inputs.l.all(c, a + b + c >= 0)))", ""),
    ],
)  # fmt: skip
def test_otp_s9_what_has_no_value_is_an_error_in_expression_and_condition(source: str, code: str) -> None:
    """`x / 0` was 0, an unknown variable was "", an unparsable condition false: never again."""
    values = {"inputs": {"n": 5, "s": "x", "l": [1, 2] if code else list(range(300))}}
    for read in (evaluate, evaluate_condition):
        with pytest.raises(ExpressionError) as caught:
            read(compile_expression(source), values)
        assert caught.value.failure().code == (code or "expr_cost")


# --- tools, providers, values ----------------------------------------------------------------------------------------


async def test_otp_s9_whatever_a_tool_or_provider_raises_is_a_failure_in_the_log(
    connect_broker: Connect, tmp_path: Path
) -> None:
    """One report each, with a code; the executor goes on, and so do its other attempts."""

    class Bad:
        """A provider with bugs."""

        def __init__(self) -> None:
            self.made: Callable[[], Exception] = INJECTED[0]

        async def generate(self, *_: Any, **__: Any) -> Any:
            """Never an answer."""
            raise self.made()

        async def close(self) -> None:
            """Nothing to let go of."""

    provider = Bad()

    async def tool(_call: Any) -> Any:
        raise provider.made()

    around = Surroundings(tools={"bad": tool}, providers={"bad": provider})  # type: ignore[dict-item]  # as far as used
    async with running(connect_broker, tmp_path, around=around) as rig:
        for number, made in enumerate(INJECTED):
            provider.made = made
            crashed = await rig.failure(run=f"t{number}", tool="bad", input={})
            assert crashed.code in ("tool_crashed", "probe_failed"), (crashed, made())
            asked = {"kind": "llm", "queue": "llm", "input": {"prompt": "x", "model": "bad/m", "allow_unpriced": True}}
            answer = await rig.failure(run=f"m{number}", **asked)
            assert answer.code in ("internal", "probe_failed"), (answer, made())
            assert answer.message
        assert await rig.output(run="fine", tool="json.parse", input={"text": "1"}) is not None
        assert rig.executor._supervisor.crashes == {}


async def test_otp_s9_a_value_that_is_gone_or_damaged_fails_the_step(connect_broker: Connect, tmp_path: Path) -> None:
    """By reference: missing is `not_found`, other bytes than named are `log_corrupted`; neither is null."""
    async with running(connect_broker, tmp_path) as rig:
        data = b'{"t":"' + b"x" * 70_000 + b'"}'
        good = await blobs.put(rig.broker, "default", "r1", data)
        digest = "0" * 64
        await rig.broker.append(subjects.blob("default", f"r1/{digest}"), data)
        fields: dict[str, Any] = {"kind": "transform", "queue": "transform", "template": "${{ size(inputs.t) }}"}
        for run, ref, code in (("a", "r1/" + "1" * 64, "not_found"), ("b", f"r1/{digest}", "log_corrupted")):
            bound = {"inputs": Value(ref=ref, size=len(data))}
            assert (await rig.failure(run=run, bindings=bound, **fields)).code == code
        assert await rig.output(run="c", bindings={"inputs": Value(ref=good, size=len(data))}, **fields) == 70_000


async def test_otp_s9_the_log_that_does_not_answer_is_an_error_and_no_empty_history(broker: Broker) -> None:
    """Reading needs an answer: without a connection there is none."""
    await broker.close()
    with pytest.raises(UnavailableError):
        [stored async for stored in broker.read(STREAM, (">",))]
    with pytest.raises(UnavailableError):
        await broker.last(STREAM, ">")
