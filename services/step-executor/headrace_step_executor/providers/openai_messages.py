"""Requests and answers in the terms of OpenAI's chat completions. Pure."""

from collections.abc import Iterator, Mapping
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
)
from headrace_step_executor.providers.protocol import SCHEMA_NAME, GenerateRequest

CALLS_MAX: Final = 1_000
"""Tool calls in one answer; who asks for more at once has lost its way."""
_CHOICES: Final = frozenset(("auto", "none", "required"))
_FINISHES: Final[Mapping[str, str]] = {"function_call": "tool_calls"}


def arguments_of(request: GenerateRequest) -> dict[str, Any]:
    """Messages, tools and schema; limits are the adapter's, because servers differ in how they name them."""
    arguments: dict[str, Any] = {
        "model": request.model,
        "messages": [said for message in request.messages for said in _messages(message)],
    }
    if request.temperature is not None:
        arguments["temperature"] = request.temperature
    if request.tools:
        arguments["tools"] = [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
            }
            for tool in request.tools
        ]
        named = {"type": "function", "function": {"name": request.tool_choice}}
        arguments["tool_choice"] = request.tool_choice if request.tool_choice in _CHOICES else named
    if request.output_schema is not None:
        schema = {"name": SCHEMA_NAME, "schema": request.output_schema, "strict": is_strict(request.output_schema)}
        arguments["response_format"] = {"type": "json_schema", "json_schema": schema}
    return arguments


def is_strict(schema: Any) -> bool:
    """True when the provider can enforce the schema: every object lists all its properties as required, no others."""
    if isinstance(schema, list):
        return all(is_strict(part) for part in schema)
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        properties = schema.get("properties", {})
        if schema.get("additionalProperties") is not False or set(schema.get("required", ())) != set(properties):
            return False
    return all(is_strict(part) for part in schema.values())


def _messages(message: ChatMessage) -> Iterator[dict[str, Any]]:
    """Results of tools are messages of their own on this wire."""
    if isinstance(message.content, str):
        yield {"role": message.role, "content": message.content}
        return
    for part in message.parts:
        if isinstance(part, ToolResultPart):
            yield {"role": "tool", "tool_call_id": part.id, "content": part.content}
    calls = [
        {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": part.arguments}}
        for part in message.parts
        if isinstance(part, ToolCallPart)
    ]
    content = [made for part in message.parts if (made := _content(part)) is not None]
    if calls:
        yield {"role": message.role, "content": message.text or None, "tool_calls": calls}
    elif content:
        yield {"role": message.role, "content": content if message.role == "user" else message.text}


def _content(part: Part) -> dict[str, Any] | None:
    match part:
        case TextPart(text=text):
            return {"type": "text", "text": text}
        case ImagePart(url=url, data=data, media_type=kind):
            return {"type": "image_url", "image_url": {"url": url or f"data:{kind};base64,{data}"}}
    return None


class Answer:
    """An answer on its way: whole, or piece by piece."""

    def __init__(self, heard: Heard) -> None:
        self._heard = heard
        self._calls: dict[int, tuple[str, str, list[str]]] = {}
        self._refusal: list[str] = []
        self.finish_reason = ""
        self.model = ""
        self.request_id = ""
        self.usage: Any = None

    def take(self, piece: Any) -> None:
        """A chunk of a stream, or a whole completion: they differ in one name.

        Raises:
            ProviderError: `malformed`, it is neither.
        """
        try:
            self.request_id = self.request_id or str(piece.id or "")
            self.model = self.model or str(piece.model or "")
            self.usage = piece.usage or self.usage
            for choice in piece.choices or ():
                said = choice.delta if hasattr(choice, "delta") else choice.message
                self.finish_reason = str(choice.finish_reason or self.finish_reason)
                self._take_said(said)
        except (AttributeError, TypeError) as error:
            msg = "malformed"
            raise provider_error(msg, f"an answer of another shape: {error}") from error

    def _take_said(self, said: Any) -> None:
        if said is None:
            return
        if said.content is not None:
            if not isinstance(said.content, str):
                msg = "malformed"
                raise provider_error(msg, "the answer's content is no text")
            self._heard.add(said.content)
        refusal = getattr(said, "refusal", None)
        if refusal:
            self._refusal.append(str(refusal))
        for place, call in enumerate(said.tool_calls or ()):
            index = getattr(call, "index", None)
            self._take_call(place if index is None else index, call)

    def _take_call(self, index: int, call: Any) -> None:
        name, arguments = call.function.name or "", call.function.arguments or ""
        if index not in self._calls:
            if len(self._calls) >= CALLS_MAX:
                msg = "malformed"
                raise provider_error(msg, f"more than {CALLS_MAX} tool calls in one answer")
            self._calls[index] = (str(call.id or f"call_{index}"), str(name), [])
        self._heard.weigh(arguments)
        self._calls[index][2].append(str(arguments))

    def parts(self) -> tuple[Part, ...]:
        """What was said, complete.

        Raises:
            ProviderError: `refused`; `malformed`: it was cut off, or holds neither words nor calls.
        """
        if self._refusal or self.finish_reason == "content_filter":
            text = "".join(self._refusal) or "the provider's content filter stopped the answer"
            msg = "refused"
            raise provider_error(msg, text[:500], usage=self.usage_of(self.model))
        if not self.finish_reason:
            msg = "malformed"
            raise provider_error(msg, "the answer has no end: it was cut off")
        text = self._heard.text
        calls = tuple(
            ToolCallPart(id=call_id, name=name, arguments=self._heard.clean("".join(pieces)))
            for _, (call_id, name, pieces) in sorted(self._calls.items())
        )
        if not text and not calls and not self._is_empty_text():
            msg = "malformed"
            raise provider_error(msg, "the answer holds neither words nor calls")
        return ((TextPart(text=text),) if text or not calls else ()) + calls

    def _is_empty_text(self) -> bool:
        """A model may say nothing at all, in words."""
        return self._heard.began

    def finished(self) -> str:
        """Why it ended, in our words."""
        return _FINISHES.get(self.finish_reason, self.finish_reason)

    def usage_of(self, model: str) -> Usage:
        """What it cost; zeros where the provider does not say."""
        return Usage(
            input_tokens=count(self.usage, "prompt_tokens"),
            output_tokens=count(self.usage, "completion_tokens"),
            cached_tokens=count(self.usage, "prompt_tokens_details", "cached_tokens"),
            reasoning_tokens=count(self.usage, "completion_tokens_details", "reasoning_tokens"),
            model=f"openai/{model}",
        )
