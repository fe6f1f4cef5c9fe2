"""One service as a process: the product's own composition, with the chaos tools added to the executor."""

import os
import sys

from headrace.runtime.clock import SystemClock
from headrace.runtime.config import load
from headrace.runtime.entropy import SystemEntropy
from headrace.runtime.harness import Options, run_process, serve
from headrace.runtime.jetstream import connect
from headrace.runtime.logging import configure
from headrace.runtime.supervisor import Supervisor
from headrace_scheduler.__main__ import main as scheduler
from headrace_step_executor.config import Config
from headrace_step_executor.parts import Surroundings, build_executor
from tests.chaos.tools import TOOLS


async def executor() -> int:
    """As `headrace_step_executor.__main__`, with more tools."""
    config = load(Config, os.environ, service="step-executor")
    clock, entropy = SystemClock(), SystemEntropy()
    instance = f"step-executor-{entropy.bits(40):010x}"
    configure(config.log_level, service="step-executor", instance=instance)
    broker = await connect(config.nats_url, name=instance, clock=clock)
    try:
        supervisor = Supervisor(clock)
        service = build_executor(
            broker,
            supervisor,
            clock=clock,
            entropy=entropy,
            instance=instance,
            config=config,
            around=Surroundings(environ=os.environ, tools=TOOLS),
        )
        return await serve(service, supervisor=supervisor, broker=broker, clock=clock, options=Options(drain_s=5))
    finally:
        await broker.close()


def main(kind: str) -> int:
    """The exit code of the process."""
    return scheduler() if kind == "scheduler" else run_process(executor)


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        pass
    else:
        uvloop.install()
    sys.exit(main(sys.argv[1]))
