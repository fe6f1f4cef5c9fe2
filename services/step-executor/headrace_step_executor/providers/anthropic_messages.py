"""Requests and answers in the terms of Anthropic's messages. Pure."""

import json
from collections.abc import Mapping
from typing import Any, Final

from headrace.contracts.events import Usage
from headrace_step_executor.providers.connection import Heard, count
from headrace_step_executor.providers.failures import provider_error
from headrace_step_executor.providers.messages import (
    ChatMessage,
    ImagePart,
    OwnPart,
    Part,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    input_of,
)
from headrace_step_executor.providers.protocol import GenerateRequest

MAX_TOKENS: Final = 8_192
"""This wire insists on a limit; what a step has that names none."""
BLOCKS_MAX: Final = 1_000
"""Parts of one answer; a model that says more has lost its way."""
OWNER: Final = "anthropic"
_CHOICES: Final[Mapping[str, str]] = {"auto": "auto", "none": "none", "required": "any"}
_FINISHES: Final[Mapping[str, str]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
}


def arguments_of(request: GenerateRequest) -> dict[str, Any]:
    """Everything but headers and the provider's own options."""
    system = "\n\n".join(message.text for message in request.messages if message.role == "system")
    arguments: dict[str, Any] = {
        "model": request.model,
        "max_tokens": request.max_tokens or MAX_TOKENS,
        "messages": [_message(message) for message in request.messages if message.role != "system"],
    }
    if system:
        arguments["system"] = system
    if request.temperature is not None:
        arguments["extra_body"] = {"temperature": request.temperature}
    if request.tools:
        arguments["tools"] = [
            {"name": tool.name, "description": tool.description, "input_schema": tool.parameters}
            for tool in request.tools
        ]
        kind = _CHOICES.get(request.tool_choice)
        arguments["tool_choice"] = {"type": kind} if kind else {"type": "tool", "name": request.tool_choice}
    if request.output_schema is not None:
        arguments["output_config"] = {"format": {"type": "json_schema", "schema": request.output_schema}}
    return arguments


def _message(message: ChatMessage) -> dict[str, Any]:
    role = "user" if message.role == "tool" else message.role
    if isinstance(message.content, str):
        return {"role": role, "content": message.content}
    return {"role": role, "content": [made for part in message.parts if (made := _block(part)) is not None]}


def _block(part: Part) -> dict[str, Any] | None:
    match part:
        case TextPart(text=text):
            return {"type": "text", "text": text} if text else None  # an empty block is refused
        case ImagePart(url="", data=data, media_type=kind):
            return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": data}}
        case ImagePart(url=url):
            return {"type": "image", "source": {"type": "url", "url": url}}
        case ToolCallPart(id=made, name=name):
            return {"type": "tool_use", "id": made, "name": name, "input": input_of(part)}
        case ToolResultPart(id=made, content=content, is_error=is_error):
            return {"type": "tool_result", "tool_use_id": made, "content": content, "is_error": is_error}
        case OwnPart(provider=provider, data=data):
            return data if provider == OWNER else None


class _Block:
    """A part of an answer on its way."""

    def __init__(self, start: Any) -> None:
        self.start, self.kind = start, str(start.type)
        self.pieces: list[str] = []
        self.signature = str(getattr(start, "signature", "") or "")

    def part(self, heard: Heard) -> Part | None:
        """It, complete."""
        text = heard.clean("".join(self.pieces))
        match self.kind:
            case "text":
                return TextPart(text=text)
            case "tool_use":
                # An object given at the start counts where no text follows it.
                arguments = text or json.dumps(heard.clean_value(self.start.input or {}))
                return ToolCallPart(id=str(self.start.id), name=str(self.start.name), arguments=arguments)
            case "thinking":
                data = {"type": "thinking", "thinking": text, "signature": self.signature}
                return OwnPart(provider=OWNER, data=data)
            case "redacted_thinking":
                return OwnPart(provider=OWNER, data={"type": self.kind, "data": str(self.start.data)})
        return None


class Answer:
    """An answer on its way: whole, or event by event."""

    def __init__(self, heard: Heard) -> None:
        self._heard = heard
        self._blocks: dict[int, _Block] = {}
        self._usage: dict[str, int] = {}
        self._over = False
        self.stop_reason = ""
        self.model = ""
        self.request_id = ""

    def take_whole(self, message: Any) -> None:
        """A complete message.

        Raises:
            ProviderError: `malformed`, it is none.
        """
        try:
            self._begin(message)
            for index, block in enumerate(message.content):
                self._start(index, block)
            self.stop_reason = str(message.stop_reason or "")
        except (AttributeError, TypeError) as error:
            msg = "malformed"
            raise provider_error(msg, f"an answer of another shape: {error}") from error
        self._over = True

    def take(self, event: Any) -> None:
        """An event of a stream.

        Raises:
            ProviderError: `malformed`, it is none, or not in its place.
        """
        try:
            match event.type:
                case "message_start":
                    self._begin(event.message)
                case "content_block_start":
                    self._start(event.index, event.content_block)
                case "content_block_delta":
                    self._more(self._blocks[event.index], event.delta)
                case "message_delta":
                    self.stop_reason = str(event.delta.stop_reason or self.stop_reason)
                    self._note_usage(event.usage)
                case "message_stop":
                    self._over = True
        except (AttributeError, TypeError, KeyError) as error:
            msg = "malformed"
            raise provider_error(msg, f"an event of another shape: {error}") from error

    def _begin(self, message: Any) -> None:
        self.model, self.request_id = str(message.model or ""), str(message.id or "")
        self._note_usage(message.usage)

    def _note_usage(self, usage: Any) -> None:
        """Counts of later events replace those of earlier ones."""
        for name in ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"):
            if isinstance(getattr(usage, name, None), int):
                self._usage[name] = count(usage, name)
        if getattr(usage, "output_tokens_details", None) is not None:
            self._usage["thinking"] = count(usage, "output_tokens_details", "thinking_tokens")

    def _start(self, index: int, start: Any) -> None:
        if len(self._blocks) >= BLOCKS_MAX:
            msg = "malformed"
            raise provider_error(msg, f"more than {BLOCKS_MAX} parts in one answer")
        block = self._blocks[index] = _Block(start)
        if block.kind == "text":
            self._say(block, start.text)
        elif block.kind == "thinking":
            block.pieces.append(str(start.thinking))

    def _more(self, block: _Block, delta: Any) -> None:
        match delta.type:
            case "text_delta":
                self._say(block, delta.text)
            case "input_json_delta":
                self._heard.weigh(delta.partial_json)
                block.pieces.append(str(delta.partial_json))
            case "thinking_delta":
                self._heard.weigh(delta.thinking)
                block.pieces.append(str(delta.thinking))
            case "signature_delta":
                block.signature += str(delta.signature)

    def _say(self, block: _Block, text: str) -> None:
        if not isinstance(text, str):
            msg = "malformed"
            raise provider_error(msg, "the answer's text is no text")
        self._heard.add(text)
        block.pieces.append(text)

    def parts(self) -> tuple[Part, ...]:
        """What was said, complete.

        Raises:
            ProviderError: `refused`; `malformed`: it was cut off, or holds nothing.
        """
        if not self.stop_reason or not self._over:
            msg = "malformed"
            raise provider_error(msg, "the answer has no end: it was cut off")
        if self.stop_reason == "refusal":
            msg = "refused"
            said = self._heard.text[:400] or "the model refused"
            raise provider_error(msg, said, usage=self.usage_of(self.model))
        made = (block.part(self._heard) for _, block in sorted(self._blocks.items()))
        parts = tuple(part for part in made if part is not None)
        if not parts and self.stop_reason not in _FINISHES:
            msg = "malformed"
            raise provider_error(msg, "the answer holds neither words nor calls")
        return parts or (TextPart(text=""),)

    def finished(self) -> str:
        """Why it ended, in our words."""
        return _FINISHES.get(self.stop_reason, self.stop_reason)

    def usage_of(self, model: str) -> Usage:
        """What it cost. This wire counts what was cached beside the rest; ours counts it in."""
        cached = self._usage.get("cache_read_input_tokens", 0)
        stored = self._usage.get("cache_creation_input_tokens", 0)
        return Usage(
            input_tokens=self._usage.get("input_tokens", 0) + cached + stored,
            output_tokens=self._usage.get("output_tokens", 0),
            cached_tokens=cached,
            reasoning_tokens=self._usage.get("thinking", 0),
            model=f"{OWNER}/{model}",
        )
