"""An MCP server of the official SDK, as others write them: `python mcp_server.py [PORT]`.

What it says of its tool `Add-Up` is the text of the file MCP_DESCRIPTION, read at its start.
"""

import os
import sys
from pathlib import Path

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("demo", log_level="ERROR")
description = Path(os.environ["MCP_DESCRIPTION"]).read_text(encoding="utf-8")


@server.tool(name="Add-Up", description=description)
def add_up(a: int, b: int) -> int:
    """The sum."""
    return a + b


@server.tool()
def fail() -> str:
    """Always an error."""
    text = "no luck"
    raise ToolError(text)


@server.tool()
def crash() -> str:
    """Dies."""
    os._exit(3)


if len(sys.argv) > 1:
    server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
else:
    server.run()
