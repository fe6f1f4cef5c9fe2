"""`worker`: serve the tools of a Python file or module, or of MCP servers, until asked to stop."""

import asyncio
import importlib
import importlib.util
import re
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

from headrace.cli.connection import Connection, connected
from headrace.cli.interrupt import run_interruptible
from headrace.cli.output import UsageError, emit, note, say
from headrace.client.mcp_link import INIT_WITHIN_S, McpLink
from headrace.client.mcp_servers import McpServer, read_servers
from headrace.client.tool import Tool
from headrace.client.worker import Callee, ToolWorker
from headrace.contracts import names
from headrace.contracts.errors import ConflictError, DataError, InputFileError
from headrace.contracts.events import ToolSpec
from headrace.runtime import logging as json_logging
from headrace.runtime.entropy import SystemEntropy
from headrace.runtime.supervisor import Supervisor

LOOK_PAUSE_S: Final = 0.5
STOP_S: Final = 10.0
"""What calls in work are given after Ctrl-C or SIGTERM; less than a pod's grace period."""


@dataclass(slots=True, frozen=True)
class WorkerArgs:
    """The command line of `worker`."""

    module: str
    name: str = ""
    max_calls: int = 16
    data_dir: Path | None = None
    as_json: bool = False


def worker_command(args: WorkerArgs) -> int:
    """Serve until Ctrl-C or SIGTERM, which are the normal end."""
    path = Path(args.module)
    work = _mcp(args, read_servers(path)) if path.suffix in (".yaml", ".yml") else _python(args)

    def stopped() -> int:
        note("stopped")
        return names.EXIT_OK

    return run_interruptible(work, detached=stopped)


async def _python(args: WorkerArgs) -> int:
    found = _loaded(args.module)
    tools = list({id(value): value for value in vars(found).values() if isinstance(value, Tool)}.values())
    if not tools:
        msg = f"{args.module[:200]} has no tool; put `@tool` from headrace.client.tool on a function"
        raise UsageError(msg)
    service = args.name or found.__name__.rpartition(".")[2]
    async with (
        connected(args.data_dir) as link,
        Supervisor(link.clock) as supervisor,
        _serving(args, link, supervisor, tools, service=service) as worker,
    ):
        await worker.register()
        for spec in worker.specs:
            _tell(args, spec)
        while True:
            await link.clock.sleep(LOOK_PAUSE_S)


async def _mcp(args: WorkerArgs, servers: Mapping[str, McpServer]) -> int:
    """Serve the tools of MCP servers; whenever a server has others, begin anew with those."""
    async with connected(args.data_dir) as link, Supervisor(link.clock) as supervisor:
        links = [McpLink(name, server, clock=link.clock) for name, server in servers.items()]
        for one in links:
            supervisor.start(f"mcp.{one.name}", one.run, "temporary")
        for one in links:
            async with asyncio.timeout(2 * INIT_WITHIN_S):  # it has a limit of its own, half as long
                await one.first
        while True:
            for one in links:
                one.changed.clear()
            tools = [tool for one in links for tool in one.tools]
            async with _serving(args, link, supervisor, tools, service=args.name or "mcp") as worker:
                for spec in worker.specs:
                    try:
                        await worker.register_one(spec)
                    except (ConflictError, DataError) as error:  # of one tool: the others are none the worse
                        note(f"not served: {spec.tool}: {error}")
                    else:
                        _tell(args, spec)
                while not any(one.changed.is_set() for one in links):
                    await link.clock.sleep(LOOK_PAUSE_S)


@asynccontextmanager
async def _serving(
    args: WorkerArgs, link: Connection, supervisor: Supervisor, tools: Sequence[Callee], *, service: str
) -> AsyncIterator[ToolWorker]:
    name = re.sub(r"[^A-Za-z0-9_-]", "-", service)
    instance = f"{name}-{SystemEntropy().bits(40):010x}"
    json_logging.configure(link.settings.log_level, service="worker", instance=instance)
    worker = ToolWorker(
        link.broker,
        supervisor,
        tools,
        clock=link.clock,
        tenant=link.settings.tenant,
        name=name,
        instance=instance,
        in_flight_max=args.max_calls,
    )
    try:
        await worker.start()
        yield worker
    finally:
        await worker.stop(within_s=STOP_S)


def _tell(args: WorkerArgs, spec: ToolSpec) -> None:
    if args.as_json:
        emit({"event": "serving", "tool": spec.tool, "version": spec.version})
    else:
        say(f"serving {spec.tool} {spec.version}")


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
