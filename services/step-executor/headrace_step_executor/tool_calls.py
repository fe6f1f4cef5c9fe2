"""One call of a tool: found in the catalogue, arguments checked, bounded in time and size."""

import asyncio
import logging
import re
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any, Final

import msgspec

from headrace.contracts import codec, events, ids, names, subjects
from headrace.contracts.errors import AttemptError, DataError, HeadraceError, UnavailableError
from headrace.contracts.live import Reply, Request
from headrace.pipeline import json_schemas
from headrace.runtime.eventlog import Bus
from headrace.runtime.values import encode_checked
from headrace_step_executor.decide import Received
from headrace_step_executor.state import Catalogue
from headrace_step_executor.tools.beneath import Workspace
from headrace_step_executor.tools.call import Stop, ToolCall, ToolFunction, refuse, try_later

log = logging.getLogger("headrace.executor")

MESSAGE_CHARS_MAX: Final = 500
CODE_RE: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
"""What people list under `retry.on`; a responder may be anything."""
HERE_BYTES_MAX: Final = 256 * 1024
"""Results up to this size are looked through on the event loop, in about 5 ms at worst."""


class PreparedTool:
    """A tool that may be called now, with its arguments."""

    def __init__(self, spec: events.ToolSpec, args: dict[str, Any], function: ToolFunction | None) -> None:
        self.spec, self.args, self.function = spec, args, function


class ToolCalls:
    """Calls tools for attempts."""

    def __init__(
        self, bus: Bus, catalogue: Catalogue, functions: Mapping[str, ToolFunction], *, threads: Executor
    ) -> None:
        self._bus, self._catalogue, self._functions = bus, catalogue, functions
        self.threads = threads
        self._local = {
            name: events.ToolSpec(tool=name, version="0", description="in this process", args={}) for name in functions
        }
        self._checkers: dict[tuple[str, str], tuple[events.ToolSpec, Any]] = {}

    def spec(self, tenant: str, name: str, version: str = "") -> events.ToolSpec | None:
        """The tool of that name as it can be called here, the newest or of that version; None when there is none."""
        spec = self._catalogue.find(tenant, name, version)
        local = self._local.get(name)
        if spec is None and local is not None and not self._catalogue.knows(tenant, name):
            spec = local if version in ("", local.version) else None
        return None if spec is not None and spec.endpoint == subjects.BUILTIN and name not in self._functions else spec

    def specs(self, tenant: str) -> list[events.ToolSpec]:
        """Every tool that can be called here, by name."""
        found = (self.spec(tenant, name) for name in sorted({*self._catalogue.names(tenant), *self._local}))
        return [spec for spec in found if spec is not None]

    def prepare(self, received: Received, data: bytes) -> PreparedTool:
        """The tool that an order names, and its arguments with the schema's defaults. Nothing has happened
        yet.

        Raises:
            AttemptError: `tool_unavailable` (retryable: it may be registered in a moment),
            `tool_args_invalid`.
        """
        tenant, name = received.message.tenant, received.order.tool
        version = received.order.tool_version
        spec, function = self.spec(tenant, name, version), self._functions.get(name)
        if spec is None:
            which = f"version {version[:64]!r}" if version else "enabled version"
            msg = "tool_unavailable"
            raise try_later(msg, f"no {which} of the tool {name[:100]!r} is known here")
        args = msgspec.json.decode(data)
        if not isinstance(args, dict):
            msg = "tool_args_invalid"
            raise refuse(msg, f"{name}: arguments are an object, not {type(args).__name__}")
        args = _with_defaults(spec, args)
        problems = json_schemas.errors(self._checker(tenant, spec), args)
        if problems:
            shown = "; ".join(f"{_place(path)}: {message}" for path, message in problems[:5])
            msg = "tool_args_invalid"
            raise refuse(msg, f"{name}: {shown}"[:MESSAGE_CHARS_MAX])
        return PreparedTool(spec, args, function)

    async def call(self, tool: PreparedTool, received: Received, workspace: Workspace, *, left_s: float) -> bytes:
        """The JSON bytes of the result.

        Raises:
            AttemptError: the tool's own, or `tool_timeout`, `tool_crashed`, `too_large`.
        """
        spec, stop = tool.spec, Stop()
        limit_s = spec.timeout_ms / 1000
        try:
            if limit_s >= left_s:  # the attempt's own deadline ends it
                result = await self._answer(tool, received, workspace, left_s, stop)
            else:
                result = await self._answer_within(tool, received, workspace, limit_s, stop)
        except TimeoutError as error:
            msg = "tool_crashed"
            raise try_later(msg, f"{spec.tool}: TimeoutError: {error}") from error
        finally:
            stop.set()
        return await self._encoded(spec, result)

    async def _answer_within(
        self, tool: PreparedTool, received: Received, workspace: Workspace, limit_s: float, stop: Stop
    ) -> Any:
        try:
            async with asyncio.timeout(limit_s) as limit:
                return await self._answer(tool, received, workspace, limit_s, stop)
        except TimeoutError as error:
            if not limit.expired():
                raise
            msg = "tool_timeout"
            raise try_later(msg, f"{tool.spec.tool}: no result within {limit_s:.3f} s") from error

    async def _answer(
        self, tool: PreparedTool, received: Received, workspace: Workspace, limit_s: float, stop: Stop
    ) -> Any:
        if tool.spec.endpoint.startswith(subjects.RESPONDER):
            return await self._ask(tool, received, limit_s)
        return await self._run(tool, received, workspace, left_s=limit_s, stop=stop)

    async def _encoded(self, spec: events.ToolSpec, result: Any) -> bytes:
        """The result's JSON bytes: sized before they are looked through, a large one in a thread."""
        size = _rough_size(result)
        _require_size(spec, size)
        if size <= HERE_BYTES_MAX:
            return encode_checked(result)
        data = await asyncio.get_running_loop().run_in_executor(self.threads, encode_checked, result)
        _require_size(spec, len(data))
        return data

    async def _run(
        self,
        tool: PreparedTool,
        received: Received,
        workspace: Workspace,
        *,
        left_s: float,
        stop: Stop,
    ) -> Any:
        assert tool.function is not None
        order, message = received.order, received.message
        call = ToolCall(
            tool=tool.spec.tool,
            args=tool.args,
            tenant=message.tenant,
            run=message.runid,
            path=order.path,
            attempt=order.attempt,
            key=ids.idempotency_key(message.runid, order.path),
            timeout_s=left_s,
            workspace=workspace,
            threads=self.threads,
            stop=stop,
        )
        try:
            return await tool.function(call)
        except (HeadraceError, TimeoutError):
            raise
        except Exception as error:
            log.exception("tool.crashed", extra={"tool": tool.spec.tool, "run_id": message.runid})
            text = f"{tool.spec.tool}: {type(error).__name__}: {error}"[:MESSAGE_CHARS_MAX]
            msg = "tool_crashed"
            raise try_later(msg, text) from error

    async def _ask(self, tool: PreparedTool, received: Received, limit_s: float) -> Any:
        """A responder's answer. It may be in another language, so nothing is believed before it is
        decoded."""
        order, message = received.order, received.message
        body = codec.encode(
            Request(
                id=f"{ids.idempotency_key(message.runid, order.path)}/{order.attempt}",
                tenant=message.tenant,
                data=msgspec.Raw(codec.encode_value(tool.args)),
                timeout_ms=max(1, int(limit_s * 1000)),
            )
        )
        if len(body) > names.ORDER_BYTES_MAX:
            msg = "too_large"
            raise refuse(msg, f"{tool.spec.tool}: arguments of {len(body)} bytes for a responder")
        subject = tool.spec.endpoint.removeprefix(subjects.RESPONDER)
        try:
            # Longer than our own limit, so that silence ends as a timeout and absence at once as unavailable.
            answer = await self._bus.request(subject, body, timeout_s=limit_s + names.REQUEST_DEADLINE_S)
        except UnavailableError as error:
            msg = "tool_unavailable"
            raise try_later(msg, f"{tool.spec.tool}: {error}") from error
        reply = codec.decode_as(Reply, answer)
        if reply.error is not None:
            failed = reply.error
            if not CODE_RE.fullmatch(failed.code):
                msg = "tool_crashed"
                raise try_later(msg, f"{tool.spec.tool}: an error with the code {failed.code[:80]!r}: {failed.message}")
            raise AttemptError(
                failed.code, failed.message, retryable=failed.retryable, retry_after_ms=failed.retry_after_ms
            )
        if not isinstance(reply.data, msgspec.Raw):
            msg = "tool_crashed"
            raise try_later(msg, f"{tool.spec.tool}: an answer with neither data nor error")
        return msgspec.json.decode(reply.data)

    def _checker(self, tenant: str, spec: events.ToolSpec) -> Any:
        key = (tenant, spec.tool)
        kept = self._checkers.get(key)
        if kept is None or kept[0] is not spec:
            try:
                kept = (spec, json_schemas.validator(spec.args))
            except DataError as error:
                msg = "schema_invalid"
                raise refuse(msg, f"{spec.tool} {spec.version}: {error}") from error
            self._checkers[key] = kept
        return kept[1]


def _require_size(spec: events.ToolSpec, size: int) -> None:
    if size > spec.result_bytes_max:
        msg = "too_large"
        raise refuse(msg, f"{spec.tool}: {size} bytes; at most {spec.result_bytes_max}")


def _rough_size(result: Any) -> int:
    """Bytes of the result's JSON; of what cannot be encoded as it is, more than is worked on here."""
    try:
        return len(codec.encode_value(result))
    except (TypeError, ValueError, RecursionError):  # the thorough encoding repairs or refuses it
        return HERE_BYTES_MAX + 1


def _with_defaults(spec: events.ToolSpec, args: dict[str, Any]) -> dict[str, Any]:
    properties = spec.args.get("properties")
    if not isinstance(properties, dict):
        return args
    defaults = {
        name: schema["default"]
        for name, schema in properties.items()
        if isinstance(schema, dict) and "default" in schema
    }
    return {**defaults, **args}


def _place(path: tuple[str | int, ...]) -> str:
    return ".".join(map(str, path)) or "arguments"
