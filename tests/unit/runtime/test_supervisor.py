"""No task may vanish, and no broken one may go on for ever."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from tests.conftest import until

from headrace.runtime.clock import SystemClock
from headrace.runtime.supervisor import ChildEndedError, SupervisionError, Supervisor


class Part:
    """Something to supervise: counts its starts, and ends as it is told."""

    def __init__(self, end: Callable[[], Coroutine[Any, Any, None]], *, fails: int = 1_000_000) -> None:
        self.starts, self.stopped = 0, False
        self._end, self._fails = end, fails

    async def run(self) -> None:
        self.starts += 1
        if self.starts <= self._fails:
            await self._end()
            return
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped = True


async def crash() -> None:
    msg = "injected"
    raise ValueError(msg)


async def cancelled_by_nobody() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def return_() -> None:
    return


@pytest.mark.parametrize("policy", ["permanent", "transient"])
@pytest.mark.parametrize("end", [crash, cancelled_by_nobody])
async def test_a_child_that_fails_is_restarted(policy: Any, end: Any) -> None:
    """Also when it ends by a cancellation that nobody asked for."""
    part = Part(end, fails=2)
    async with Supervisor(SystemClock()) as supervisor:
        supervisor.start("part", part.run, policy)
        await until(lambda: part.starts == 3)
        assert supervisor.crashes["part"] == 2
    assert part.stopped


@pytest.mark.parametrize(
    ("policy", "end", "cause"),
    [
        ("permanent", crash, ValueError),
        ("permanent", return_, ChildEndedError),
        ("permanent", cancelled_by_nobody, ChildEndedError),
        ("transient", crash, ValueError),
        ("transient", cancelled_by_nobody, ChildEndedError),
    ],
)
async def test_otp_s10_a_crash_loop_ends_the_supervisor_with_its_cause(
    policy: Any, end: Any, cause: type[Exception]
) -> None:
    """Three restarts in the window, then everything stops and the cause is told."""
    part, innocent = Part(end), Part(return_, fails=0)

    async def supervise() -> None:
        async with asyncio.timeout(5), Supervisor(SystemClock()) as supervisor:
            supervisor.start("innocent", innocent.run)
            supervisor.start("part", part.run, policy)
            await asyncio.Event().wait()

    with pytest.raises(SupervisionError, match="part failed again after 3 restarts") as failed:
        await supervise()

    assert part.starts == 4
    assert innocent.stopped
    assert isinstance(failed.value.__cause__, cause)
    assert failed.value.exit_code == 70


async def test_restarts_outside_the_window_are_forgiven() -> None:
    """A child that fails once in a while goes on for ever."""
    part = Part(crash, fails=6)
    async with Supervisor(SystemClock(), restarts_max=1, window_s=0.01) as supervisor:
        supervisor.start("part", part.run)
        await until(lambda: part.starts == 7)


async def test_a_temporary_child_reports_its_failure_and_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its error is in the log with its stack, and counted."""
    part, innocent = Part(crash), Part(return_, fails=0)
    async with Supervisor(SystemClock()) as supervisor:
        supervisor.start("innocent", innocent.run)
        child = supervisor.start("part", part.run, "temporary")
        await until(lambda: child.done)
        assert (part.starts, supervisor.crashes["part"]) == (1, 1)
        assert not innocent.stopped
    assert [record.exc_info[1].args for record in caplog.records if record.exc_info] == [("injected",)]


@pytest.mark.parametrize(("end", "said"), [(crash, "injected"), (cancelled_by_nobody, "work was cancelled by nobody")])
async def test_spawned_work_that_fails_is_reported(end: Any, said: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody awaits it, so the supervisor says how it ended."""
    async with Supervisor(SystemClock()) as supervisor:
        task = supervisor.spawn(end(), "work")
        await until(task.done)
        assert (supervisor.crashes["work"], supervisor.spawned) == (1, 0)
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == [said]


async def test_spawned_work_may_be_cancelled_by_its_owner(caplog: pytest.LogCaptureFixture) -> None:
    """That is no failure."""
    async with Supervisor(SystemClock()) as supervisor:
        task = supervisor.spawn(asyncio.sleep(60), "work")
        await asyncio.sleep(0)
        task.cancel()
        await until(task.done)
        assert not supervisor.crashes
    assert caplog.records == []


async def test_leaving_stops_children_last_started_first_and_spawned_work_too() -> None:
    """What came later may need what came earlier."""
    order: list[str] = []

    def named(name: str) -> Callable[[], Coroutine[Any, Any, None]]:
        async def run() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                order.append(name)

        return run

    async with Supervisor(SystemClock()) as supervisor:
        for name in ("one", "two", "three"):
            supervisor.start(name, named(name))
        work = supervisor.spawn(named("work")(), "work")
        await asyncio.sleep(0.01)

    assert order == ["three", "two", "one", "work"]
    assert work.cancelled()


async def test_cancelling_whoever_uses_it_stops_everything_and_stays_a_cancellation() -> None:
    """CancelledError is never swallowed."""
    part = Part(return_, fails=0)

    async def use() -> None:
        async with Supervisor(SystemClock()) as supervisor:
            supervisor.start("part", part.run)
            await asyncio.Event().wait()

    task = asyncio.get_running_loop().create_task(use())
    await until(lambda: part.starts == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert part.stopped


async def test_an_error_of_the_body_comes_out_as_itself() -> None:
    """No group around it."""
    part = Part(return_, fails=0)

    async def use() -> None:
        async with Supervisor(SystemClock()) as supervisor:
            supervisor.start("part", part.run)
            await asyncio.sleep(0)
            raise KeyError

    with pytest.raises(KeyError):
        await use()
    assert part.stopped


async def test_a_child_that_ignores_its_cancellation_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Stopping one child is bounded, and says who did not obey."""
    monkeypatch.setattr("headrace.runtime.supervisor.STOP_CHILD_S", 0.05)
    released = asyncio.Event()

    async def deaf() -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue

    async with Supervisor(SystemClock()) as supervisor:
        child = supervisor.start("deaf", deaf, "temporary")
        await asyncio.sleep(0)
        await supervisor.stop_child(child)
        assert not child.done
        released.set()
    assert "task.ignores_cancel" in [record.message for record in caplog.records]


async def test_a_name_is_alive_once_and_may_be_used_again() -> None:
    """Two living children of one name would be one too many to tell apart."""
    part = Part(return_, fails=0)
    async with Supervisor(SystemClock()) as supervisor:
        child = supervisor.start("part", part.run)
        with pytest.raises(ValueError, match="alive"):
            supervisor.start("part", part.run)
        await supervisor.stop_child(child)
        assert supervisor.children == ()
        supervisor.start("part", part.run)
    with pytest.raises(RuntimeError, match="not running"):
        supervisor.start("late", part.run)


async def test_ten_thousand_pieces_of_work_leave_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    """An executor spawns thousands a second; each costs a set entry while it lives."""
    caplog.set_level(logging.ERROR)
    done: list[int] = []

    async def work(index: int) -> None:
        await asyncio.sleep(0)
        done.append(index)

    async with Supervisor(SystemClock()) as supervisor:
        for index in range(10_000):
            supervisor.spawn(work(index), "work")
        await until(lambda: supervisor.spawned == 0)
    assert len(done) == 10_000
