"""Requests and answers in the terms of Google's generateContent. Pure."""

import base64
import json
from collections.abc import Mapping
from typing import Any, Final

from headrace.contracts.events import Usage
from headrace_step_executor.providers.connection import Heard, count
from headrace_step_executor.providers.failures import provider_error
from headrace_step_executor.providers.messages import (
    ChatMessage,
    ImagePart,
    Part,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    input_of,
)
from headrace_step_executor.providers.protocol import GenerateRequest

CALLS_MAX: Final = 1_000
OWNER: Final = "google"
_MODES: Final[Mapping[str, str]] = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
_FINISHES: Final[Mapping[str, str]] = {"STOP": "stop", "MAX_TOKENS": "length"}
_REFUSED: Final = frozenset(
    ("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT",
     "IMAGE_RECITATION", "MODEL_ARMOR")
)  # fmt: skip
_BROKEN: Final = frozenset(("MALFORMED_FUNCTION_CALL", "MALFORMED_RESPONSE", "UNEXPECTED_TOOL_CALL"))


def contents_of(request: GenerateRequest) -> list[dict[str, Any]]:
    """The conversation without the system's part."""
    return [_content(message) for message in request.messages if message.role != "system"]


def config_of(request: GenerateRequest) -> dict[str, Any]:
    """Limits, tools and schema."""
    system = "\n\n".join(message.text for message in request.messages if message.role == "system")
    config: dict[str, Any] = {"automatic_function_calling": {"disable": True}}  # the loop is ours, and recorded
    if system:
        config["system_instruction"] = system
    if request.max_tokens is not None:
        config["max_output_tokens"] = request.max_tokens
    if request.temperature is not None:
        config["temperature"] = request.temperature
    if request.tools:
        declared = [
            {"name": tool.name, "description": tool.description, "parameters_json_schema": tool.parameters}
            for tool in request.tools
        ]
        config["tools"] = [{"function_declarations": declared}]
        mode: dict[str, Any] = {"mode": _MODES.get(request.tool_choice, "ANY")}
        if request.tool_choice not in _MODES:
            mode["allowed_function_names"] = [request.tool_choice]
        config["tool_config"] = {"function_calling_config": mode}
    if request.output_schema is not None:
        config["response_mime_type"] = "application/json"
        config["response_json_schema"] = request.output_schema
    return config


def _content(message: ChatMessage) -> dict[str, Any]:
    role = "model" if message.role == "assistant" else "user"
    return {"role": role, "parts": [made for part in message.parts if (made := _part(part)) is not None]}


def _part(part: Part) -> dict[str, Any] | None:
    match part:
        case TextPart(text=text):
            return {"text": text}
        case ImagePart(url="", data=data, media_type=kind):
            return {"inline_data": {"mime_type": kind, "data": base64.b64decode(data)}}
        case ImagePart(url=url, media_type=kind):
            return {"file_data": {"file_uri": url, "mime_type": kind or None}}
        case ToolCallPart(id=made, name=name, signature=signature):
            call: dict[str, Any] = {"function_call": {"id": made, "name": name, "args": input_of(part)}}
            if signature:
                call["thought_signature"] = base64.b64decode(signature)
            return call
        case ToolResultPart(id=made, name=name, content=content, is_error=is_error):
            kind = "error" if is_error else "output"
            return {"function_response": {"id": made, "name": name, "response": {kind: content}}}
    return None


class Answer:
    """An answer on its way: on this wire a stream is a sequence of answers that add up."""

    def __init__(self, heard: Heard, *, turn: int) -> None:
        self._heard, self._turn = heard, turn
        self._calls: list[ToolCallPart] = []
        self._finish = ""
        self._blocked = ""
        self._usage: Any = None
        self.model = ""
        self.request_id = ""

    def take(self, piece: Any) -> None:
        """A whole answer, or the next of a stream.

        Raises:
            ProviderError: `malformed`, it is neither.
        """
        try:
            self.model = str(piece.model_version or self.model)
            self.request_id = str(piece.response_id or self.request_id)
            self._usage = piece.usage_metadata or self._usage
            feedback = piece.prompt_feedback
            if feedback is not None and feedback.block_reason is not None:
                self._blocked = _word(feedback.block_reason)
            for candidate in (piece.candidates or ())[:1]:
                self._finish = _word(candidate.finish_reason) if candidate.finish_reason else self._finish
                for part in (candidate.content.parts if candidate.content else None) or ():
                    self._take_part(part)
        except (AttributeError, TypeError) as error:
            msg = "malformed"
            raise provider_error(msg, f"an answer of another shape: {error}") from error

    def _take_part(self, part: Any) -> None:
        if part.text is not None and not part.thought:
            self._heard.add(part.text)
        if part.function_call is None:
            return
        if len(self._calls) >= CALLS_MAX:
            msg = "malformed"
            raise provider_error(msg, f"more than {CALLS_MAX} tool calls in one answer")
        call, arguments = part.function_call, json.dumps(self._heard.clean_value(part.function_call.args or {}))
        self._heard.weigh(arguments)
        signature = base64.b64encode(part.thought_signature).decode() if part.thought_signature else ""
        # Older models give calls no ids; a conversation needs them to be different.
        made = str(call.id or f"call_{self._turn}_{len(self._calls)}")
        self._calls.append(ToolCallPart(id=made, name=str(call.name), arguments=arguments, signature=signature))

    def parts(self) -> tuple[Part, ...]:
        """What was said, complete.

        Raises:
            ProviderError: `refused`; `malformed`: it was cut off, or holds neither words nor calls.
        """
        if self._blocked or self._finish in _REFUSED:
            msg = "refused"
            why = f"the prompt was blocked: {self._blocked}" if self._blocked else f"stopped: {self._finish}"
            raise provider_error(msg, why, usage=self.usage_of(self.model))
        if not self._finish or self._finish in _BROKEN:
            msg = "malformed"
            raise provider_error(msg, f"the answer has no end: {self._finish or 'it was cut off'}")
        text = self._heard.text
        if not text and not self._calls and self._finish not in _FINISHES:
            msg = "malformed"
            raise provider_error(msg, "the answer holds neither words nor calls")
        return ((TextPart(text=text),) if text or not self._calls else ()) + tuple(self._calls)

    def finished(self) -> str:
        """Why it ended, in our words."""
        return "tool_calls" if self._calls else _FINISHES.get(self._finish, self._finish.lower())

    def usage_of(self, model: str) -> Usage:
        """What it cost. This wire counts thoughts beside the rest; ours counts them in."""
        thoughts = count(self._usage, "thoughts_token_count")
        return Usage(
            input_tokens=count(self._usage, "prompt_token_count"),
            output_tokens=count(self._usage, "candidates_token_count") + thoughts,
            cached_tokens=count(self._usage, "cached_content_token_count"),
            reasoning_tokens=thoughts,
            model=f"{OWNER}/{model}",
        )


def _word(reason: Any) -> str:
    """The SDK's enumerations grow: what it does not know yet is a text."""
    return str(getattr(reason, "value", reason))
