"""A connection to one MCP server that comes back: its tools can be served by a tool worker.

The official SDK speaks the protocol; it is imported when a server is connected to, and is the extra `headrace[mcp]`.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from headrace.client.mcp_servers import McpServer, spec_of
from headrace.client.tool import CallInfo
from headrace.contracts.errors import AttemptError, ConfigError, HeadraceError
from headrace.contracts.events import ToolSpec
from headrace.contracts.failure import Failure
from headrace.runtime.clock import Clock

log = logging.getLogger("headrace.mcp")

INIT_WITHIN_S: Final = 60.0
"""From the start of a server to the list of its tools; `npx` may have to fetch one first."""
LOOK_EVERY_S: Final = 30.0
"""Between two lists of tools: a server may change them and say nothing."""
PAUSE_MIN_S: Final = 1.0
PAUSE_MAX_S: Final = 60.0
TOOLS_MAX: Final = 500
TEXT_CHARS_MAX: Final = 2_000


class McpError(HeadraceError):
    """A server cannot be used: `mcp_timeout`, `mcp_protocol`, `mcp_unavailable`."""

    exit_code = 69

    def __init__(self, code: str, message: str) -> None:
        self.own_code = code
        super().__init__(message)

    def failure(self) -> Failure:
        """As data, under its own code."""
        return Failure(code=self.own_code, message=str(self)[:2000], retryable=True)


class McpTool:
    """A tool of a server, as it was listed."""

    def __init__(self, link: "McpLink", spec: ToolSpec, name: str) -> None:
        self._link, self.spec, self._name = link, spec, name

    async def call(self, given: bytes, info: CallInfo, threads: Executor) -> Any:
        """See worker.Callee.

        Raises:
            AttemptError: `mcp_tool_error` when the tool says so; `tool_unavailable` while the server is away;
            `mcp_protocol`.
        """
        return await self._link.call(self._name, msgspec.json.decode(given), timeout_s=info.timeout_s)


class McpLink:
    """One server. `run` keeps the connection; the rest is for while it runs.

    Args:
        init_within_s: Until a server that says nothing is given up.
    """

    def __init__(self, name: str, config: McpServer, *, clock: Clock, init_within_s: float = INIT_WITHIN_S) -> None:
        self.name, self._config, self._clock, self._init_within_s = name, config, clock, init_within_s
        self.tools: tuple[McpTool, ...] = ()
        self.changed = asyncio.Event()
        """Set when the list of tools has become another one."""
        self.first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the first list is there, or failed with why there is none."""
        self._client: Any = None
        self._broken = asyncio.Event()
        self._why, self._code = "", "mcp_protocol"
        self._limit: asyncio.Timeout | None = None

    async def run(self) -> None:
        """Connect, and again whenever the connection is lost. A server that cannot be used at first is given up."""
        pause_s = PAUSE_MIN_S
        while True:
            try:
                async with self._connected():
                    pause_s = PAUSE_MIN_S
                    await self._watch()
            except McpError as error:
                log.warning("mcp.lost", extra={"server": self.name, "code": error.own_code, "why": str(error)})
                if not self.first.done():
                    self.first.set_exception(error)
                    return
            finally:
                self._client = None
            await self._clock.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MAX_S)

    async def call(self, name: str, arguments: Any, *, timeout_s: float) -> Any:
        """What a tool gives: its structured content, its text, or its parts. Raises as McpTool.call."""
        from mcp import MCPError
        from mcp_types import CONNECTION_CLOSED

        client = self._client
        if client is None:
            code = "tool_unavailable"
            raise AttemptError(code, f"the MCP server {self.name} is away", retryable=True)
        try:
            return _content(name, await client.call_tool(name, arguments, read_timeout_seconds=timeout_s))
        except MCPError as error:
            is_gone = error.code == CONNECTION_CLOSED
            if is_gone and not self._why:
                self._end("mcp_unavailable", "the connection was closed")
            text = f"{self.name}: {self._why or error}"[:TEXT_CHARS_MAX]
            raise AttemptError(self._code, text, retryable=is_gone) from error

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        try:
            from mcp import Client, StdioServerParameters
        except ImportError as error:
            msg = "MCP servers need the package mcp: install headrace[mcp]"
            raise ConfigError(msg) from error
        config = self._config
        where: Any = config.url
        if config.command:
            program, *rest = config.command
            where = StdioServerParameters(command=program, args=rest, env=config.env, cwd=config.cwd or None)
        self._broken.clear()
        self._why, self._code = "", "mcp_protocol"
        try:
            async with (
                asyncio.timeout(self._init_within_s) as self._limit,
                Client(where, message_handler=self._hear) as client,
            ):
                limit = self._limit
                await self._list(client)
                if self._broken.is_set():
                    code = "mcp_protocol"
                    raise McpError(code, f"{self.name}: {self._why}")
                self._limit = None
                limit.reschedule(None)
                self._client = client
                yield
        except TimeoutError as error:
            code = self._code if self._why else "mcp_timeout"
            text = self._why or f"no answer within {self._init_within_s:g} s"
            raise McpError(code, f"{self.name}: {text}") from error
        except (Exception, BaseExceptionGroup) as error:
            if isinstance(error, HeadraceError):
                raise
            code = "mcp_protocol" if self._why else "mcp_unavailable"
            raise McpError(code, f"{self.name}: {self._why or _first(error)}"[:TEXT_CHARS_MAX]) from error

    async def _hear(self, message: Any) -> None:
        """What a server says unasked, and what is no message at all."""
        if isinstance(message, Exception):
            self._end("mcp_protocol", f"what it said is no message of the protocol: {message}"[:500])

    def _end(self, code: str, why: str) -> None:
        """The connection is of no use any more."""
        self._code, self._why = code, why
        self._broken.set()
        if self._limit is not None:  # nobody else looks while it begins
            self._limit.reschedule(asyncio.get_running_loop().time())

    async def _watch(self) -> None:
        """Look at the tools now and then; return, by raising, when the connection is of no use any more."""
        while True:
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._broken.wait()
            except TimeoutError:
                async with asyncio.timeout(self._init_within_s):
                    await self._list(self._client)
            else:
                raise McpError(self._code, f"{self.name}: {self._why}")

    async def _list(self, client: Any) -> None:
        found: list[McpTool] = []
        cursor: str | None = None
        while len(found) < TOOLS_MAX:
            page = await client.list_tools(cursor=cursor, cache_mode="bypass")
            found += [McpTool(self, spec_of(self.name, self._config, tool), tool.name) for tool in page.tools]
            cursor = page.next_cursor
            if cursor is None:
                break
        before = {(tool.spec.tool, tool.spec.version) for tool in self.tools}
        self.tools = tuple(found[:TOOLS_MAX])
        if not self.first.done():
            self.first.set_result(None)
        elif before != {(tool.spec.tool, tool.spec.version) for tool in self.tools}:
            self.changed.set()


def _content(name: str, result: Any) -> Any:
    parts = [part.model_dump(mode="json", by_alias=True, exclude_none=True) for part in result.content]
    texts = [part["text"] for part in parts if part.get("type") == "text"]
    if result.is_error:
        code = "mcp_tool_error"
        raise AttemptError(
            code, f"{name}: {' '.join(texts) or 'an error without words'}"[:TEXT_CHARS_MAX], retryable=False
        )
    if result.structured_content is not None:
        return result.structured_content
    return "\n".join(texts) if len(texts) == len(parts) else parts


def _first(error: BaseException) -> str:
    """The innermost reason, in words."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
