"""What runs on the hosts: the real scheduler and the real executor, composed as their `__main__` does.

What is given to them instead of the real thing are their ports: broker, clock, entropy, and one scripted tool.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import headrace_scheduler.plans
from headrace.pipeline.compile import compile_plan
from headrace.runtime.supervisor import Supervisor
from headrace_scheduler.config import Config as SchedulerConfig
from headrace_scheduler.service import Scheduler
from headrace_step_executor.config import Config as ExecutorConfig
from headrace_step_executor.parts import Surroundings, build_executor
from headrace_step_executor.tools.call import ToolCall, refuse, try_later
from tests.simulation.faults import CALL, Faults
from tests.simulation.host import Host
from tests.simulation.workload import CALL as CALL_TOOL

QUEUES: Final = ("tool", "transform")
SCHEDULER: Final = SchedulerConfig()
EXECUTOR: Final = ExecutorConfig(queues=QUEUES)

compiled: Final = functools.lru_cache(maxsize=256)(compile_plan)
"""A plan is immutable and a function of its bytes; compiling one takes longer than a short simulation."""
headrace_scheduler.plans.compile_plan = compiled  # type: ignore[attr-defined]


@dataclass(slots=True)
class Called:
    """The outside world's record of a call."""

    at_s: float
    host: str
    instance: str
    run: str
    path: str
    attempt: int


@dataclass(slots=True)
class Outside:
    """What steps call. It remembers everything and never fails by itself."""

    faults: Faults
    calls: list[Called]

    def tool(self, host: Host) -> Callable[[ToolCall], Awaitable[Any]]:
        """The scripted tool as one host's executor sees it."""

        async def call(given: ToolCall) -> Any:
            clock = host.clock
            half_s = given.args["ms"] / 2000
            await clock.sleep(half_s)
            fault = self.faults.at(host.name, "call", CALL)
            if fault is not None and fault.kind == "freeze-in-call":
                host.freeze(fault.seconds)
                await clock.sleep(0)
            self.calls.append(Called(host.loop.time(), host.name, host.instance, given.run, given.path, given.attempt))
            if fault is not None and fault.kind == "crash-in-call":
                host.crash(restart_s=fault.seconds)
            await clock.sleep(half_s)
            if given.attempt <= given.args.get("fail", 0):
                raise try_later("unavailable", f"{given.path}: scripted failure of attempt {given.attempt}")
            if given.args.get("fatal"):
                raise refuse("refused", f"{given.path}: scripted")
            return {"v": len(self.calls), "by": host.instance, "attempt": given.attempt}

        return call


async def scheduler(host: Host) -> None:
    """A scheduler's process."""
    supervisor = Supervisor(host.clock)
    service = Scheduler(
        host.broker,
        supervisor,
        clock=host.clock,
        entropy=host.entropy,
        instance=host.instance,
        config=SCHEDULER,
    )
    host.service = service
    async with supervisor:
        await service.start()
        await asyncio.Event().wait()


def executor(outside: Outside) -> Callable[[Host], Any]:
    """An executor's process, whose steps call `outside`."""

    async def main(host: Host) -> None:
        supervisor = Supervisor(host.clock)
        service = build_executor(
            host.broker,
            supervisor,
            clock=host.clock,
            entropy=host.entropy,
            instance=host.instance,
            config=EXECUTOR,
            around=Surroundings(tools={CALL_TOOL: outside.tool(host)}),
        )
        host.service = service
        async with supervisor:
            await service.start()
            await asyncio.Event().wait()

    return main
