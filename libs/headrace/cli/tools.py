"""`tools`: what may be called, and what waits for somebody to allow it."""

from pathlib import Path
from typing import Any, TypeVar

from headrace.cli.connection import Connection, connected
from headrace.cli.interrupt import run_interruptible
from headrace.cli.output import emit, note, say, table
from headrace.contracts import names
from headrace.contracts.errors import ConflictError, NotFoundError
from headrace.contracts.events import ToolName, ToolSpec
from headrace.contracts.live import Empty, ToolList
from headrace.runtime.api import ServiceError, call

T = TypeVar("T")


def list_command(data_dir: Path | None, *, as_json: bool) -> int:
    """Print the catalogue."""

    async def work() -> int:
        async with connected(data_dir) as link:
            found = await _asked(link, "list", Empty(), ToolList)
        rows = [(spec, "allowed") for spec in found.tools] + [(spec, "changed") for spec in found.waiting]
        if as_json:
            for spec, status in rows:
                emit(_shown(spec) | {"status": status})
            return names.EXIT_OK
        lines = [
            (spec.tool, spec.version, status, spec.effect, spec.risk, spec.description.partition("\n")[0][:60])
            for spec, status in rows
        ]
        table(("tool", "version", "status", "effect", "risk", "description"), lines)
        if found.waiting:
            note("changed tools are off until `headrace tools approve TOOL`")
        return names.EXIT_OK

    return run_interruptible(work(), detached=lambda: None)


def approve_command(tool: str, *, data_dir: Path | None, as_json: bool) -> int:
    """Allow what waits, and show what was allowed."""

    async def work() -> int:
        async with connected(data_dir) as link:
            spec = await _asked(link, "approve", ToolName(tool=tool, version=""), ToolSpec)
        if as_json:
            emit(_shown(spec) | {"status": "allowed"})
        else:
            say(f"{spec.tool} {spec.version} is allowed: {spec.description}")
        return names.EXIT_OK

    return run_interruptible(work(), detached=lambda: note("the approval may be stored; list the tools to be sure"))


async def _asked(link: Connection, verb: str, data: Any, answer: type[T]) -> T:
    tenant, request_id = link.settings.tenant, link.client.new_id()
    try:
        return await call(link.broker, "tool-registry", verb, data, answer, tenant=tenant, request_id=request_id)
    except ServiceError as error:
        kinds = {NotFoundError.code: NotFoundError, ConflictError.code: ConflictError}
        if error.refusal.code not in kinds:
            raise
        raise kinds[error.refusal.code](error.refusal.message) from error


def _shown(spec: ToolSpec) -> dict[str, Any]:
    return {
        "tool": spec.tool,
        "version": spec.version,
        "effect": spec.effect,
        "risk": spec.risk,
        "description": spec.description,
    }
