"""`up` and `service`: the system itself, in one process or in several."""

import importlib
import os
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headrace.cli.connection import cli_settings
from headrace.cli.interrupt import run_interruptible
from headrace.cli.output import UsageError, emit, note, say
from headrace.contracts import names
from headrace.local.embedded import Options, embedded
from headrace.local.files import local_logging
from headrace.local.procs import processes
from headrace.runtime.clock import SystemClock
from headrace.runtime.config import SERVICES

LOOK_PAUSE_S: Final = 0.5
UP_DRAIN_S: Final = 5.0
"""Ctrl-C must not take long; what is in hand then is handed back to whoever comes up next."""


@dataclass(slots=True, frozen=True)
class UpArgs:
    """The command line of `up`."""

    procs: bool = False
    as_json: bool = False
    data_dir: Path | None = None
    read_roots: tuple[Path, ...] = ()
    nats_server: str = ""


def up_command(args: UpArgs) -> int:
    """Serve until Ctrl-C or SIGTERM, which are the normal end."""
    settings = cli_settings(args.data_dir)
    options = Options(
        data_dir=settings.data_dir,
        read_roots=tuple(dict.fromkeys((Path.cwd(), *(root.absolute() for root in args.read_roots)))),
        environ=os.environ,
        nats_server=args.nats_server,
        stays=True,
        tell=note,
        drain_s=UP_DRAIN_S,
    )

    def tell(text: str) -> None:
        if args.as_json:
            emit({"event": "unit", "text": text})
        else:
            say(text)

    async def work() -> int:
        async with AsyncExitStack() as stack:
            stack.enter_context(local_logging(settings.data_dir, settings.log_level))
            if args.procs:
                await stack.enter_async_context(processes(options, tell=tell))
            else:
                local = await stack.enter_async_context(embedded(options))
                tell(f"nats-server: {local.endpoint.url}")
                tell(f"ready: {', '.join(local.hosts.names)}, in one process (pid {os.getpid()})")
            clock = SystemClock()
            while True:
                await clock.sleep(LOOK_PAUSE_S)

    def stopped() -> int:
        tell("stopped")
        return names.EXIT_OK

    return run_interruptible(work(), detached=stopped)


def service_command(name: str) -> int:
    """One service in this process, as its own `python -m` would run it; configured by the environment."""
    if name not in SERVICES:
        msg = f"no service {name[:60]!r}; there are {', '.join(SERVICES)}"
        raise UsageError(msg)
    root = importlib.import_module(f"headrace_{name.replace('-', '_')}.__main__")
    code: int = root.main()
    return code
