"""The tool catalogue's messages. Facts are past tense; within `.vN` only fields with defaults are added."""

from typing import Any

import msgspec

from headrace.contracts.envelope import Message


class ToolSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool that steps may call.

    `effect`: pure, idempotent or at_most_once. `risk`: read, write, outbound or exec. `endpoint`: `builtin`, or where
    the tool answers. `workspace`: it touches the run's files and runs only where they are.
    """

    tool: str
    version: str
    description: str
    args: dict[str, Any]
    result: dict[str, Any] = {}
    effect: str = "idempotent"
    risk: str = "read"
    timeout_ms: int = 60_000
    result_bytes_max: int = 64 * 1024 * 1024
    endpoint: str = "builtin"
    workspace: bool = False


class ToolRegistered(Message, frozen=True, tag="io.headrace.tool.registered.v1"):
    """A tool, or a version of one, may be called."""

    data: ToolSpec


class ToolName(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `tool-disabled`."""

    tool: str
    version: str
    reason: str = ""


class ToolDisabled(Message, frozen=True, tag="io.headrace.tool.disabled.v1"):
    """A version of a tool may no longer be called."""

    data: ToolName


class ToolChanged(Message, frozen=True, tag="io.headrace.tool.changed.v1"):
    """A server describes a tool otherwise than before: no version of it may be called until somebody approves one."""

    data: ToolSpec
