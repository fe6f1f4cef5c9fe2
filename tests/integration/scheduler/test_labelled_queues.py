"""Queues with a label: served by executors that name them, refused where none does, and not lost with a holder."""

from pathlib import Path
from typing import Any

from headrace.contracts import events as ev
from headrace.contracts import names
from headrace.runtime.jetstream import JetStreamBroker
from headrace.runtime.streams import migrate
from headrace_step_executor.config import Config as ExecutorConfig
from headrace_step_executor.parts import build_executor
from tests.behaviour.bodies import pipeline
from tests.behaviour.world import LABEL, LABELLED, Script, played
from tests.conftest import until
from tests.engine import command, events_of, finished, history, put, running, running_scheduler, start

TEXT = """
pipeline: p
workspace: true
steps:
  write: {tool: fs.write, queue: gpu, with: {path: a.txt, text: hello}}
  read: {needs: [write], tool: fs.read, with: {path: a.txt}}
outputs: {read: "${{ steps.read.output.content }}"}
"""


def executor(folder: Path, *more: str) -> dict[str, Any]:
    """For `running`: one that also serves these queues."""
    return {"config": ExecutorConfig(data_dir=folder, queues=(*names.QUEUES, *more))}


async def test_an_order_with_a_label_goes_to_an_executor_that_names_it(broker: JetStreamBroker, tmp_path: Path) -> None:
    """Whoever does not is never given it; the workspace is the run's all the same."""
    await migrate(broker, caps={"tool-ws-gpu": 4})
    async with (
        running_scheduler(broker) as scheduler,
        running(build_executor, broker, "plain", **executor(tmp_path)),
        running(build_executor, broker, "gpu", **executor(tmp_path, "tool-ws-gpu")),
    ):
        await until(lambda: "tool-ws-gpu" in scheduler.handback.serving().queues, what="an executor with the label")
        await put(broker, TEXT)
        await start(broker, "p", "r")
        end = await finished(broker, "r")
        messages = await history(broker, "r")
    assert isinstance(end, ev.RunCompleted), end
    assert [one.queue for one in events_of(messages, ev.StepScheduled)] == ["tool-ws-gpu", "tool-ws"]
    (written,) = [one for one in messages if isinstance(one, ev.AttemptSucceeded) and one.stepid == "write"]
    assert written.source.endswith("/gpu")


async def test_a_start_whose_queue_nobody_serves_is_refused_with_its_name(
    broker: JetStreamBroker, tmp_path: Path
) -> None:
    """Not silently queued. Where no executor lives at all, those that come may serve it: the run waits."""
    async with running_scheduler(broker) as scheduler:
        await put(broker, TEXT)
        answer = await command(broker, "run-start", {"pipeline": "p", "runid": "w"}, command_id="w", within_s=15)
        assert isinstance(answer, ev.CommandAccepted)
        async with running(build_executor, broker, "plain", **executor(tmp_path)):
            await until(lambda: scheduler.handback.serving().executors, what="an executor")
            answer = await command(broker, "run-start", {"pipeline": "p", "runid": "r"}, command_id="r", within_s=15)
    assert isinstance(answer, ev.CommandRefused)
    (reason,) = answer.data.reasons
    assert reason.code == "queue_unserved" and "no executor serves the queue `tool-ws-gpu`" in reason.message
    assert not await history(broker, "r")


async def test_input_31_a_start_whose_provider_nobody_has_is_refused(broker: JetStreamBroker, tmp_path: Path) -> None:
    """By name, also in a list with models that can be asked; nothing is written."""
    text = "pipeline: p\nsteps: {s: {llm: {model: [echo/echo, nobody/knows], allow_unpriced: true, prompt: x}}}\n"
    async with running_scheduler(broker) as scheduler, running(build_executor, broker, "plain", **executor(tmp_path)):
        await until(lambda: scheduler.handback.serving().executors, what="an executor")
        await put(broker, text)
        answer = await command(broker, "run-start", {"pipeline": "p", "runid": "r"}, command_id="r", within_s=15)
    assert isinstance(answer, ev.CommandRefused)
    (reason,) = answer.data.reasons
    assert reason.code == "provider_missing" and "model nobody/knows: no executor can ask `nobody`" in reason.message
    assert not await history(broker, "r")


def test_a_labelled_order_is_offered_again_when_its_holder_dies() -> None:
    """Long before the broker would, as every order is."""
    step = {"tool": "play.do", "with": {"give": 7, "crash": 1}, "queue": LABEL}
    (run,) = played({"it": Script(pipeline({"s": step}))}).values()
    assert run.step("s") == "succeeded", run.end
    assert [(call.attempt, call.host) for call in run.calls] == [(1, LABELLED), (1, LABELLED)]
    assert run.took_s < names.ACK_WAIT_S / 2
