"""What an executor says of a model's loop while it goes on: turns and tool calls, each once, so that nobody pays twice.

They decide nothing about the run. Whoever goes on with the step, in this attempt or a later one, reads them and begins
where they end. All of one step instance are on one subject, each checked against the sequence of the one before.
Instants and durations are integer milliseconds.
"""

import msgspec

from headrace.contracts.envelope import Message, Value


class Turned(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `turn-completed`. `round` counts from 1."""

    decision: str
    offer: int
    start: str
    """Hash of what the loop began with: turns of another beginning do not count."""
    round: int
    response: Value
    """The model's answer, as the executor's `GenerateResponse`: parts, model, finish reason, usage."""
    duration_ms: int = 0


class TurnCompleted(Message, frozen=True, tag="io.headrace.turn.completed.v1"):
    """A model has answered within a loop."""

    data: Turned


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `tool-started`. `call` counts from 0 within its round."""

    decision: str
    offer: int
    start: str
    round: int
    call: int
    tool: str


class ToolStarted(Message, frozen=True, tag="io.headrace.tool.started.v1"):
    """An at-most-once call of a loop may have happened from here on."""

    data: Begun


class Called(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Body of `tool-completed`. `content` is what the model is told, shortened where it is long."""

    decision: str
    offer: int
    start: str
    round: int
    call: int
    tool: str
    content: str
    code: str = ""
    """Of the error; empty for a result."""
    refused: bool = False
    """The call was not made: unknown, not allowed, or its arguments do not fit."""
    untrusted: bool = False
    """The content comes from outside: tools that are not allowed by name are lost from here on."""
    bytes: int = 0
    """Size of the whole result."""
    duration_ms: int = 0


class ToolCompleted(Message, frozen=True, tag="io.headrace.tool.completed.v1"):
    """A tool call of a loop has a result or an error, and the model is told."""

    data: Called


RoundMessage = TurnCompleted | ToolStarted | ToolCompleted
