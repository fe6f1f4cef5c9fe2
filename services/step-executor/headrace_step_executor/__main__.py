"""Composition root: configuration in, adapters built, harness run. `python -m headrace_step_executor`."""

import os
import sys

from headrace.runtime.clock import SystemClock
from headrace.runtime.config import load
from headrace.runtime.entropy import SystemEntropy
from headrace.runtime.harness import Options, run_process, serve
from headrace.runtime.jetstream import connect
from headrace.runtime.logging import configure
from headrace.runtime.supervisor import Supervisor
from headrace_step_executor.config import Config
from headrace_step_executor.decide import SERVICE
from headrace_step_executor.parts import Surroundings, build_executor


async def run() -> int:
    """Serve until asked to stop; gives the exit code."""
    config = load(Config, os.environ, service=SERVICE)
    clock, entropy = SystemClock(), SystemEntropy()
    instance = f"{SERVICE}-{entropy.bits(40):010x}"
    configure(config.log_level, service=SERVICE, instance=instance)
    broker = await connect(config.nats_url, name=instance, creds=config.nats_creds or None, clock=clock)
    try:
        supervisor = Supervisor(clock)
        service = build_executor(
            broker,
            supervisor,
            clock=clock,
            entropy=entropy,
            instance=instance,
            config=config,
            around=Surroundings(environ=os.environ),
        )
        options = Options(drain_s=config.drain_s, health_host=config.http_host, health_port=config.metrics_port)
        return await serve(service, supervisor=supervisor, broker=broker, clock=clock, options=options)
    finally:
        await broker.close()


def main() -> int:
    """The exit code of the process."""
    configure("info", service=SERVICE)
    return run_process(run)


if __name__ == "__main__":
    sys.exit(main())
