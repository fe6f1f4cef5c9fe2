"""Anthropic's messages."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter
from tests.unit.step_executor.vendors.said import Said, Trouble, sse

from headrace.runtime.clock import SystemClock
from headrace_step_executor.providers.anthropic_wire import AnthropicProvider

FINISHES = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "refused": "refusal"}
TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error",
    404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error", 504: "timeout_error",
    529: "overloaded_error",
}  # fmt: skip
WORDS = {
    "context": "prompt is too long: 210000 tokens > 200000 maximum",
    "refused": "Output blocked by content filtering policy",
}


class Anthropic:
    """See said.Vendor."""

    name = "anthropic"

    @property
    def quota(self) -> str:
        """Headers: 20 s and 10 s from now on both are whole again."""
        now = datetime.now(UTC)
        return "".join(
            f"anthropic-ratelimit-{kind}-limit: {limit}\r\nanthropic-ratelimit-{kind}-remaining: {left}\r\n"
            f"anthropic-ratelimit-{kind}-reset: {(now + timedelta(seconds=wait)).isoformat()}\r\n"
            for kind, limit, left, wait in (("requests", 100, 4, 20), ("tokens", 9000, 800, 10))
        )

    def check_whole(self, body: bytes) -> None:
        """The SDK takes it for valid."""
        Message.model_validate_json(body)

    def check_event(self, event: bytes) -> bool:
        """The SDK takes it for valid; False: it is a mark without content."""
        data = event.partition(b"data: ")[2].strip()
        if json.loads(data)["type"] == "ping":
            return False
        TypeAdapter(RawMessageStreamEvent).validate_json(data)
        return True

    def provider(self, url: str, key: Callable[[], str]) -> AnthropicProvider:
        """See Vendor."""
        return AnthropicProvider(SystemClock(), key=key, base_url=url)

    def streams(self, request: bytes) -> bool:
        """See Vendor."""
        return bool(json.loads(request.partition(b"\r\n\r\n")[2]).get("stream"))

    def whole(self, said: Said) -> dict[str, Any]:
        """See Vendor."""
        blocks: list[dict[str, Any]] = [{"type": "text", "text": said.text, "citations": None}] if said.pieces else []
        blocks += [
            {"type": "tool_use", "id": made, "name": name, "input": arguments} for made, name, arguments in said.calls
        ]
        return _message(said, blocks, FINISHES.get(said.finish, said.finish))

    def events(self, said: Said) -> list[bytes]:
        """See Vendor."""
        made: list[dict[str, Any]] = [{"type": "message_start", "message": _message(said, [], None, output=1)}]
        made.append({"type": "ping"})
        index = 0
        if said.pieces:
            made.append(_start(index, {"type": "text", "text": "", "citations": None}))
            made += [_delta(index, {"type": "text_delta", "text": piece}) for piece in said.pieces]
            made.append({"type": "content_block_stop", "index": index})
            index += 1
        for call, name, arguments in said.calls:
            text = json.dumps(arguments)
            made.append(_start(index, {"type": "tool_use", "id": call, "name": name, "input": {}}))
            made += [
                _delta(index, {"type": "input_json_delta", "partial_json": piece}) for piece in ("", text[:3], text[3:])
            ]
            made.append({"type": "content_block_stop", "index": index})
            index += 1
        stop = {"stop_reason": FINISHES.get(said.finish, said.finish), "stop_sequence": None}
        usage = {"output_tokens": said.usage[1], "output_tokens_details": {"thinking_tokens": said.usage[3]}}
        made += [{"type": "message_delta", "delta": stop, "usage": usage}, {"type": "message_stop"}]
        return [sse(event, event["type"]) for event in made]

    def error(self, trouble: Trouble) -> dict[str, Any]:
        """See Vendor."""
        kind = TYPES.get(trouble.status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": WORDS.get(trouble.kind, "no")}, "request_id": "r"}


def _message(said: Said, blocks: list[dict[str, Any]], stop: str | None, *, output: int = -1) -> dict[str, Any]:
    given, made, cached, thoughts = said.usage
    usage: dict[str, Any] = {
        "input_tokens": given - cached, "cache_read_input_tokens": cached, "cache_creation_input_tokens": 0,
        "output_tokens": made if output < 0 else output,
    }  # fmt: skip
    if output < 0:
        usage["output_tokens_details"] = {"thinking_tokens": thoughts}
    return {
        "id": "req-1", "type": "message", "role": "assistant", "model": "m-2026", "content": blocks,
        "stop_reason": stop, "stop_sequence": None, "usage": usage,
    }  # fmt: skip


def _start(index: int, block: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def _delta(index: int, delta: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}
