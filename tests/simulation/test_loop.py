"""The loop: virtual time, one order for one seed, and processes that can be held."""

import asyncio
import contextvars
import random
from collections.abc import Coroutine
from typing import Any

import pytest

from tests.simulation import loop as loops
from tests.simulation.loop import PROCESS, DeadlockError, Process, RunawayError, SimLoop


def run(work: Coroutine[Any, Any, Any], loop: SimLoop | None = None) -> Any:
    """What the work gives on a loop of its own."""
    loop = loop or SimLoop()
    try:
        return loop.run_until_complete(loop.create_task(work))
    finally:
        loop.close()


def test_an_hour_takes_no_time() -> None:
    """Time passes only when nothing is ready, and then at once."""

    async def wait() -> float:
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    assert run(wait()) == 3600


def test_deadlines_and_groups_of_tasks_work() -> None:
    """What the engine uses of asyncio behaves as on any loop."""

    async def work() -> list[str]:
        said = []

        async def say(word: str, after_s: float) -> None:
            await asyncio.sleep(after_s)
            said.append(word)

        async with asyncio.TaskGroup() as group:
            group.create_task(say("second", 2))
            group.create_task(say("first", 1))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.Event().wait()
        said.append(await asyncio.get_running_loop().run_in_executor(None, lambda: "inline"))
        return said

    assert run(work()) == ["first", "second", "inline"]


def test_waiting_for_nothing_is_a_deadlock() -> None:
    """Nothing ready and no timer: it would never end."""

    async def wait() -> None:
        await asyncio.get_running_loop().create_future()

    loop = SimLoop()
    with pytest.raises(DeadlockError):
        loop.run_until_complete(task := loop.create_task(wait()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()


def test_a_loop_without_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Virtual time would hide it for ever."""
    monkeypatch.setattr(loops, "STEPS_MAX", 1_000)

    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    loop = SimLoop()
    with pytest.raises(RunawayError):
        loop.run_until_complete(task := loop.create_task(spin()))
    monkeypatch.undo()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()


def test_a_seed_chooses_the_order_of_what_is_ready() -> None:
    """The same seed the same order, another seed another one, none the order of arrival."""

    async def arrive() -> list[int]:
        order: list[int] = []
        for number in range(20):
            asyncio.get_running_loop().call_soon(order.append, number)
        await asyncio.sleep(1)
        return order

    plain = run(arrive())
    shuffled = [run(arrive(), SimLoop(shuffle=random.Random(seed))) for seed in (1, 1, 2)]
    assert plain == list(range(20))
    assert shuffled[0] == shuffled[1] != shuffled[2]
    assert sorted(shuffled[0]) == plain != shuffled[0]


def test_a_held_process_does_nothing_until_it_is_released() -> None:
    """Its callbacks and timers wait; everybody else goes on."""

    async def story() -> list[tuple[str, float]]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        process, seen = Process("zombie"), list[tuple[str, float]]()
        context = contextvars.Context()
        context.run(PROCESS.set, process)
        loop.call_later(1, lambda: seen.append(("zombie", loop.time())), context=context)
        loop.call_later(2, lambda: seen.append(("other", loop.time())))
        process.holding = True
        await asyncio.sleep(5)
        loop.release(process)
        await asyncio.sleep(1)
        return seen

    assert run(story()) == [("other", 2.0), ("zombie", 5.0)]
