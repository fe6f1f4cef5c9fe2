"""What a child run is given: its own defaults, checked as a start is, whether it is small or held by reference."""

import pytest

from headrace.client.values import resolve
from headrace.contracts import events as ev
from headrace.contracts import ids
from headrace.contracts.codec import plain
from headrace.runtime.jetstream import JetStreamBroker
from tests.conftest import until
from tests.engine import events_of, finished, history, put, running_scheduler, start

CHILD = """
pipeline: taker
inputs:
  text: {type: string}
  greeting: {type: string, default: hello}
  times: {type: integer, minimum: 1, default: 2}
limits: {concurrency: {key: "${{ inputs.greeting }}"}}
outputs: {said: "${{ inputs.greeting + ' ' + string(inputs.times) + ' ' + string(size(inputs.text)) }}"}
steps: {n: {transform: "${{ inputs.times }}"}}
"""
PARENT = """
pipeline: giver
inputs: {text: {type: string}, times: {type: integer, default: 2}, empty: {type: boolean, default: false}}
outputs: {said: "${{ steps.child.output.said }}"}
steps:
  child: {pipeline: taker, with: {text: "${{ inputs.text + inputs.text }}"WITH}}
"""
LARGE = "x" * 40_000
"""Twice that is held by reference."""


@pytest.mark.parametrize("text", ["a", LARGE], ids=["inline", "by reference"])
async def test_a_child_gets_the_defaults_of_its_inputs(broker: JetStreamBroker, text: str) -> None:
    """What its parent does not give is as its own file says, in its creation, for its key and for every step. There is
    no executor here, so of a child with inputs by reference its creation alone is looked at."""
    async with running_scheduler(broker):
        await put(broker, CHILD)
        await put(broker, PARENT.replace("WITH", ""))
        await start(broker, "giver", "g", text=text)
        child = ids.child_run_id("g", "child")
        if text == "a":
            end = await finished(broker, "g")
            assert isinstance(end, ev.RunCompleted), end
            assert plain(end.outputs.json) == {"said": "hello 2 2"}  # type: ignore[arg-type]  # it is inline
        else:
            await _exists(broker, child)
        (created,) = events_of(await history(broker, child), ev.RunCreated)
        assert created.key == "hello"
        assert await resolve(broker, "default", created.inputs) == {
            "text": text + text,
            "greeting": "hello",
            "times": 2,
        }


@pytest.mark.parametrize("text", ["a", LARGE], ids=["inline", "by reference"])
async def test_what_does_not_fit_a_child_fails_its_step(broker: JetStreamBroker, text: str) -> None:
    """With the reasons that a start would be refused for, and no child begins."""
    given = ", times: '${{ inputs.times }}', more: 1"
    async with running_scheduler(broker):
        await put(broker, CHILD)
        await put(broker, PARENT.replace("WITH", given).replace("giver", "wrong"))
        await start(broker, "wrong", "w", text=text, times=0)
        end = await finished(broker, "w")
        assert isinstance(end, ev.RunFailed), end
        assert end.failure.code == "inputs_invalid"
        assert "no input `more`" in end.failure.message and "`times`: 0 is less than" in end.failure.message
        assert not await history(broker, ids.child_run_id("w", "child"))


async def test_inputs_that_are_complete_are_not_stored_twice(broker: JetStreamBroker) -> None:
    """A child that is given everything by reference is created with the reference it was given."""
    async with running_scheduler(broker):
        await put(broker, CHILD)
        await put(broker, PARENT.replace("WITH", ", times: 3, greeting: hi"))
        await start(broker, "giver", "g", text=LARGE)
        child = ids.child_run_id("g", "child")
        await _exists(broker, child)
        (begun,) = events_of(await history(broker, "g"), ev.ChildStarted)
        (created,) = events_of(await history(broker, child), ev.RunCreated)
        assert begun.inputs.ref and created.inputs == begun.inputs


async def _exists(broker: JetStreamBroker, run: str) -> None:
    async def begun() -> bool:
        return bool(await history(broker, run))

    await until(begun, within_s=20, what=f"run {run}")
