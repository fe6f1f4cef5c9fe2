"""Secrets from end to end: the call has the value, and nothing that is stored, logged or sent has it."""

import base64
import io
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import Connect, until
from tests.engine import command, events_of, finished, history, put, running, running_scheduler, start

from headrace.contracts import events as ev
from headrace.contracts import rounds, subjects
from headrace.contracts.codec import encode, plain
from headrace.pipeline.builtin_tools import BUILTIN_TOOLS
from headrace.runtime.eventlog import Broker, BusMessage
from headrace.runtime.jetstream import JetStreamBroker
from headrace.runtime.logging import configure
from headrace.runtime.streams import migrate, stream_specs
from headrace_step_executor.config import Config as ExecutorConfig
from headrace_step_executor.parts import Surroundings, build_executor
from headrace_step_executor.providers.messages import TextPart
from headrace_step_executor.providers.protocol import GenerateRequest, GenerateResponse
from headrace_step_executor.tools.call import ToolCall, refuse

CANARY = 'canary-4f9c/81"b27'
SPELLED = (CANARY, CANARY.replace('"', '\\"'), base64.b64encode(CANARY.encode()).decode().rstrip("="), "4f9c", "%22b27")
"""However it might be written: its middle alone is enough."""
CALLS = ("work.echo", "work.large", "work.fails", "work.crashes", "work.leaks")
SPECS = {
    name: ev.ToolSpec(tool=name, version="1", description="Of the test.", args={"type": "object"}) for name in CALLS
}
PIPELINE = """
pipeline: canary
inputs: {who: {type: string, default: ann}}
outputs: {echo: "${{ steps.echo.output }}", size: "${{ size(steps.large.output.text) }}"}
steps:
  echo: {tool: work.echo, with: {token: "${{ secrets.CANARY }}", login: "${{ inputs.who + ':' + secrets.CANARY }}"}}
  large: {tool: work.large, with: {token: "${{ secrets.CANARY }}"}}
  fails: {tool: work.fails, with: {token: "${{ secrets.CANARY }}"}, on_error: continue, retry: {attempts: 1}}
  crashes: {tool: work.crashes, with: {token: "${{ secrets.CANARY }}"}, on_error: continue, retry: {attempts: 1}}
  bad: {tool: work.echo, with: {n: "${{ int(secrets.CANARY) }}"}, on_error: continue, retry: {attempts: 1}}
  leaks: {tool: work.leaks, artifacts: ["*.txt"], with: {token: "${{ secrets.CANARY }}"}, on_error: continue}
  model: {llm: {model: sayso/one, allow_unpriced: true, prompt: hi, options: {key: "${{ secrets.CANARY }}"}}}
"""


class Calls:
    """Tools and a model that tell whatever they are given."""

    def __init__(self) -> None:
        self.given: dict[str, Mapping[str, Any]] = {}

    async def __call__(self, call: ToolCall) -> Any:
        """Its arguments, in every way."""
        self.given[call.path] = call.args
        token = call.args.get("token", "")
        match call.tool:
            case "work.large":
                return {"text": f"{token} " * 10_000}
            case "work.fails":
                code = "denied"
                raise refuse(code, f"401: {token} is not welcome")
            case "work.crashes":
                message = f"no idea what {base64.b64encode(token.encode())!r} and {token!r} are"
                raise ValueError(message)
            case "work.leaks":
                home = call.workspace.home
                assert home is not None
                home.mkdir(parents=True, exist_ok=True)
                (home / "found.txt").write_text(f"token={token}")
        return dict(call.args)

    async def generate(self, request: GenerateRequest, **_: Any) -> GenerateResponse:
        """What it was given as an option."""
        self.given["model"] = request.options
        usage = ev.Usage(model=f"one-{request.options['key']}")
        said = TextPart(text=str(request.options))
        return GenerateResponse(parts=(said,), model="sayso/one", finish_reason="stop", usage=usage)


async def register(broker: Broker) -> None:
    """As the tool registry would."""
    for spec in SPECS.values():
        message = ev.ToolRegistered(
            specversion="1.0", id=spec.tool, source="s", time="t", schemaver=1, tenant="default", data=spec
        )
        await broker.append(subjects.tool("default", spec.tool.replace(".", "-")), encode(message), msg_id=spec.tool)


def executor(folder: Path, calls: Calls) -> dict[str, Any]:
    """For `running`: an executor with one secret."""
    (folder / "secrets").mkdir(exist_ok=True)
    (folder / "secrets" / "CANARY").write_text(CANARY + "\n")
    around = Surroundings(tools=dict.fromkeys(CALLS, calls), providers={"sayso": calls})
    return {"config": ExecutorConfig(data_dir=folder, secrets_dir=folder / "secrets"), "around": around}


@contextmanager
def logged_at_debug() -> Iterator[io.StringIO]:
    """All lines of all services, as they write them."""
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    configure("debug", stream=stream)
    try:
        yield stream
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


async def everything(broker: Broker) -> bytes:
    """Every stored message of every stream but the commands', which are gone once obeyed, and were heard."""
    found = []
    for spec in stream_specs():
        if spec.retention == "workqueue":
            continue
        async for stored in broker.read(spec.name, spec.subjects):
            found.append(stored.subject.encode() + stored.body + repr(dict(stored.headers)).encode())
    return b"\n".join(found)


async def test_invariant_i21_a_secret_is_where_it_is_used_and_nowhere_else(
    connect_broker: Connect, tmp_path: Path
) -> None:
    """Echoed small and large, in an error, in a crash, in a file to be kept, in an expression that fails, by a model:
    the callee has the value, and no message, blob, beat or log line has any of it."""
    broker, calls, beats = await connect_broker("engine"), Calls(), []

    async def hear(message: BusMessage) -> None:
        beats.append(message.body)

    with logged_at_debug() as log:
        await migrate(broker)
        await register(broker)
        heard = await broker.subscribe("hr.>", hear)
        async with (
            running_scheduler(broker) as scheduler,
            running(build_executor, broker, "e1", **executor(tmp_path, calls)),
        ):
            await until(lambda: "default/CANARY" in scheduler.handback.serving().secrets, what="the secret's name")
            await put(broker, PIPELINE, catalogue={**BUILTIN_TOOLS, **SPECS})
            await start(broker, "canary", "c")
            end = await finished(broker, "c")
        await heard.stop()
    assert isinstance(end, ev.RunCompleted), end
    assert calls.given["echo"] == {"token": CANARY, "login": f"ann:{CANARY}"}
    assert calls.given["model"] == {"key": CANARY} and calls.given["large"] == {"token": CANARY}
    messages = await history(broker, "c")
    failed = {event.path: event.failure for event in events_of(messages, ev.StepFailed)}
    assert {path: failure.code for path, failure in failed.items()} == {
        "fails": "denied", "crashes": "tool_crashed", "bad": "expr_eval", "leaks": "secret_exposed",
    }  # fmt: skip
    assert "[secret CANARY] is not welcome" in failed["fails"].message
    assert "found.txt: the file holds the secret `CANARY`" in failed["leaks"].message
    assert plain(end.outputs.json) == {  # type: ignore[arg-type]  # it is inline
        "echo": {"token": "[secret CANARY]", "login": "ann:[secret CANARY]"},
        "size": len("[secret CANARY] " * 10_000),
    }
    stored, logged = await everything(broker), log.getvalue()
    assert b"secrets.CANARY" in stored and "tool.crashed" in logged and b"default/CANARY" in b"".join(beats)
    for spelled in SPELLED:
        assert spelled.encode() not in stored
        assert spelled not in logged
        assert spelled.encode() not in b"".join(beats)


LOOP = """
pipeline: looping
outputs: {said: "${{ steps.model.output }}"}
steps:
  model:
    llm:
      {model: sayso/one, allow_unpriced: true, prompt: hi, tools: [work.echo], options: {key: "${{ secrets.CANARY }}"}}
"""


async def test_a_loop_with_another_value_of_its_secret_is_the_same_loop(
    broker: JetStreamBroker, tmp_path: Path
) -> None:
    """Its rounds are recognised by a hash of what it began with, which has no secret in it: after a rotation they still
    count, and whoever reads the log cannot try values against it."""
    calls, starts = Calls(), []
    await migrate(broker)
    await register(broker)
    async with (
        running_scheduler(broker) as scheduler,
        running(build_executor, broker, "e1", **executor(tmp_path, calls)),
    ):
        await until(lambda: "default/CANARY" in scheduler.handback.serving().secrets, what="the secret's name")
        await put(broker, LOOP, catalogue={**BUILTIN_TOOLS, **SPECS})
        for run in ("before", "after"):
            await start(broker, "looping", run)
            end = await finished(broker, run)
            assert isinstance(end, ev.RunCompleted), end
            starts += [one.data.start for one in await history(broker, run) if isinstance(one, rounds.TurnCompleted)]
            (tmp_path / "secrets" / "CANARY").write_text("rotated-value")
    assert calls.given["model"] == {"key": "rotated-value"}
    assert len(starts) == 2 and starts[0] == starts[1]


async def test_input_33_a_start_that_names_a_missing_secret_is_refused(broker: JetStreamBroker, tmp_path: Path) -> None:
    """Also one that only a child file names; by name, and no event exists afterwards. Where no executor lives, nobody
    can tell: the run begins."""
    text = (
        "pipeline: p\nsteps: {a: {tool: work.echo, with: {x: '${{ secrets.MISSING }}', y: '${{ secrets.CANARY }}'}}}\n"
    )
    data = {"pipeline": "p", "inputs": {}}
    async with running_scheduler(broker):
        await put(broker, text)
        answer = await command(broker, "run-start", data | {"runid": "lonely"}, command_id="lonely", within_s=15)
        assert isinstance(answer, ev.CommandAccepted)
    async with running_scheduler(broker, "s2"), running(build_executor, broker, "e1", **executor(tmp_path, Calls())):
        answer = await command(broker, "run-start", data | {"runid": "m"}, command_id="m", within_s=15)
    assert isinstance(answer, ev.CommandRefused)
    (reason,) = answer.data.reasons
    assert reason.code == "secret_missing" and "`MISSING`" in reason.message
    assert not await history(broker, "m")


async def test_a_secret_that_an_executor_lacks_fails_the_attempt_by_name(
    broker: JetStreamBroker, tmp_path: Path
) -> None:
    """It was there when the run began; another executor may have it, so it is tried again."""
    calls = Calls()
    text = PIPELINE.split("outputs")[0].replace("canary", "lacks") + (
        "steps: {a: {tool: work.echo, retry: {attempts: 2, initial: 1ms}, with: {x: '${{ secrets.CANARY }}'}}}\n"
    )
    await migrate(broker)
    await register(broker)
    async with (
        running_scheduler(broker) as scheduler,
        running(build_executor, broker, "e1", **executor(tmp_path, calls)),
    ):
        await until(lambda: "default/CANARY" in scheduler.handback.serving().secrets, what="the secret's name")
        await put(broker, text, catalogue={**BUILTIN_TOOLS, **SPECS})
        (tmp_path / "secrets" / "CANARY").unlink()
        await start(broker, "lacks", "l")
        end = await finished(broker, "l")
    assert isinstance(end, ev.RunFailed)
    assert (end.failure.code, "`CANARY`" in end.failure.message, calls.given) == ("secret_missing", True, {})


async def test_promise_p17_another_tenants_runs_are_given_none(broker: JetStreamBroker, tmp_path: Path) -> None:
    """What an executor has belongs to its own tenant."""
    given = executor(tmp_path, Calls())
    given["config"] = ExecutorConfig(data_dir=tmp_path, secrets_dir=tmp_path / "secrets", tenant="another")
    await migrate(broker)
    async with running_scheduler(broker) as scheduler, running(build_executor, broker, "e1", **given):
        await until(lambda: scheduler.handback.serving().secrets, what="names of secrets")
        await put(broker, "pipeline: p\nsteps: {a: {tool: work.echo, with: {x: '${{ secrets.CANARY }}'}}}\n")
        answer = await command(broker, "run-start", {"pipeline": "p"}, command_id="t", within_s=15)
    assert isinstance(answer, ev.CommandRefused) and answer.data.reasons[0].code == "secret_missing"
