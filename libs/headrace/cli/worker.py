"""`worker`: serve the tools of a Python file or module until asked to stop."""

import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Final

from headrace.cli.connection import connected
from headrace.cli.interrupt import run_interruptible
from headrace.cli.output import UsageError, emit, note, say
from headrace.client.tool import Tool
from headrace.client.worker import ToolWorker
from headrace.contracts import names
from headrace.contracts.errors import InputFileError
from headrace.runtime import logging as json_logging
from headrace.runtime.entropy import SystemEntropy
from headrace.runtime.supervisor import Supervisor

LOOK_PAUSE_S: Final = 0.5
STOP_S: Final = 10.0
"""What calls in work are given after Ctrl-C or SIGTERM; less than a pod's grace period."""


def worker_command(module: str, *, name: str, max_calls: int, data_dir: Path | None, as_json: bool) -> int:
    """Serve until Ctrl-C or SIGTERM, which are the normal end."""
    found = _loaded(module)
    tools = list({id(value): value for value in vars(found).values() if isinstance(value, Tool)}.values())
    if not tools:
        msg = f"{module[:200]} has no tool; put `@tool` from headrace.client.tool on a function"
        raise UsageError(msg)
    service = re.sub(r"[^A-Za-z0-9_-]", "-", name or found.__name__.rpartition(".")[2])

    async def work() -> int:
        async with connected(data_dir) as link, Supervisor(link.clock) as supervisor:
            instance = f"{service}-{SystemEntropy().bits(40):010x}"
            json_logging.configure(link.settings.log_level, service="worker", instance=instance)
            worker = ToolWorker(
                link.broker,
                supervisor,
                tools,
                clock=link.clock,
                tenant=link.settings.tenant,
                name=service,
                instance=instance,
                in_flight_max=max_calls,
            )
            try:
                await worker.start()
                await worker.register()
                for spec in worker.specs:
                    if as_json:
                        emit({"event": "serving", "tool": spec.tool, "version": spec.version})
                    else:
                        say(f"serving {spec.tool} {spec.version}")
                while True:
                    await link.clock.sleep(LOOK_PAUSE_S)
            finally:
                await worker.stop(within_s=STOP_S)

    def stopped() -> int:
        note("stopped")
        return names.EXIT_OK

    return run_interruptible(work(), detached=stopped)


def _loaded(module: str) -> ModuleType:
    """The module of a file, or of a dotted name. What it imports may lie beside it.

    Raises:
        InputFileError: it cannot be read. Whatever it raises itself.
    """
    path = Path(module)
    if path.suffix != ".py":
        sys.path.insert(0, str(Path.cwd()))
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise
            msg = f"no module {module[:200]!r}; a file is named with its `.py`"
            raise InputFileError(msg) from error
    if not path.is_file():
        msg = f"{module[:200]}: no such file"
        raise InputFileError(msg)
    sys.path.insert(0, str(path.absolute().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None, path
    assert spec.loader is not None, path
    found = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = found  # annotations are looked up there
    spec.loader.exec_module(found)
    return found
