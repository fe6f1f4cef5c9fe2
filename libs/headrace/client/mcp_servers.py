"""Which MCP servers an operator lets be used: a YAML file, and nothing that a server says of itself.

```yaml
servers:
  files: {command: [npx, -y, "@modelcontextprotocol/server-filesystem", /data], risk: write}
  search: {url: "https://mcp.example.com/mcp", risk: outbound, effect: idempotent}
```
Their tools are `mcp.<server>.<tool>`. A name that ours cannot have is made one: lower case, `-` for everything else,
and six hex digits of its hash.
"""

import re
from pathlib import Path
from typing import Any, Final

import msgspec

from headrace.contracts.canonical import canonical_json, sha256_hex
from headrace.contracts.errors import DataError, InputFileError
from headrace.contracts.events import ToolSpec
from headrace.pipeline.loader import load_bytes

SERVER_RE: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")
PART_RE: Final = SERVER_RE
FILE_BYTES_MAX: Final = 1024 * 1024
PART_CHARS_MAX: Final = 32
RESULT_BYTES_MAX: Final = 1_000_000


class McpServer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One server: a command that speaks over its standard streams, or an address (streamable HTTP)."""

    command: tuple[str, ...] = ()
    url: str = ""
    env: dict[str, str] = {}
    """Besides PATH, HOME, LANG and the like: the command gets nothing else of this process's environment."""
    cwd: str = ""
    risk: str = "outbound"
    """Of all its tools. What a server says of its own tools counts for nothing."""
    effect: str = "at_most_once"
    timeout_s: float = 60.0
    """Of one call."""


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    servers: dict[str, McpServer]


def read_servers(path: Path) -> dict[str, McpServer]:
    """The servers of a file, by name.

    Raises:
        InputFileError: it cannot be read. DefinitionError: no YAML. DataError: it names no servers, or one wrongly.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        msg = f"{path}: {error.strerror}"
        raise InputFileError(msg) from error
    try:
        servers = msgspec.convert(load_bytes(data, str(path)).document, _File).servers
    except msgspec.ValidationError as error:
        msg = f"{path}: {error}"
        raise DataError(msg) from error
    for name, server in servers.items():
        if not SERVER_RE.fullmatch(name):
            msg = f"{path}: server {name[:80]!r} must match {SERVER_RE.pattern}"
            raise DataError(msg)
        if bool(server.command) == bool(server.url):
            msg = f"{path}: server `{name}` needs either `command` or `url`"
            raise DataError(msg)
    return servers


def tool_name(server: str, name: str) -> str:
    """How pipelines call a tool of a server."""
    if PART_RE.fullmatch(name):
        return f"mcp.{server}.{name}"
    plain = re.sub(r"[^a-z0-9_-]", "-", name.lower())
    plain = plain if plain[:1].isalpha() else f"t{plain}"
    return f"mcp.{server}.{plain[: PART_CHARS_MAX - 7]}-{sha256_hex(name.encode())[:6]}"


def spec_of(server: str, config: McpServer, listed: Any) -> ToolSpec:
    """The specification of a tool as its server lists it. Its version is a hash of what the server says."""
    said = {
        "name": listed.name,
        "description": listed.description or listed.title or listed.name,
        "args": listed.input_schema,
        "result": listed.output_schema or {},
    }
    return ToolSpec(
        tool=tool_name(server, listed.name),
        version=f"h{sha256_hex(canonical_json(said))[:16]}",
        description=said["description"],
        args=said["args"],
        result=said["result"],
        effect=config.effect,
        risk=config.risk,
        timeout_ms=round(config.timeout_s * 1000),
        result_bytes_max=RESULT_BYTES_MAX,
    )
