"""Composition root of the scheduler."""

import os
import sys

from headrace.runtime import logging as structured
from headrace.runtime.clock import SystemClock
from headrace.runtime.config import load
from headrace.runtime.entropy import SystemEntropy
from headrace.runtime.harness import Options, run_process, serve
from headrace.runtime.jetstream import connect
from headrace.runtime.supervisor import Supervisor
from headrace_scheduler.config import Config
from headrace_scheduler.service import Scheduler


async def serve_scheduler() -> int:
    """Run until told to stop; gives the exit code."""
    config = load(Config, os.environ, service=Scheduler.name)
    clock, entropy = SystemClock(), SystemEntropy()
    instance = f"{Scheduler.name}-{entropy.bits(32):08x}"
    structured.configure(config.log_level, service=Scheduler.name, instance=instance)
    broker = await connect(config.nats_url, name=instance, creds=config.nats_creds or None, clock=clock)
    try:
        supervisor = Supervisor(clock)
        service = Scheduler(broker, supervisor, clock=clock, entropy=entropy, instance=instance, config=config)
        options = Options(drain_s=config.drain_s, health_host=config.http_host, health_port=config.metrics_port)
        return await serve(service, supervisor=supervisor, broker=broker, clock=clock, options=options)
    finally:
        await broker.close()


def main() -> int:
    """The process's exit code."""
    return run_process(serve_scheduler)


if __name__ == "__main__":
    sys.exit(main())
