"""OpenAI's chat completions."""

import json
from collections.abc import Callable
from typing import Any

from openai.types.chat import ChatCompletion, ChatCompletionChunk
from tests.unit.step_executor.vendors.said import Said, Trouble, sse

from headrace.runtime.clock import SystemClock
from headrace_step_executor.providers.openai_wire import OpenAIProvider

FINISHES = {"refused": "content_filter"}


class OpenAI:
    """See said.Vendor."""

    name = "openai"
    quota = (
        "x-ratelimit-limit-requests: 100\r\nx-ratelimit-remaining-requests: 4\r\nx-ratelimit-reset-requests: 20s\r\n"
        "x-ratelimit-limit-tokens: 9000\r\nx-ratelimit-remaining-tokens: 800\r\nx-ratelimit-reset-tokens: 120ms\r\n"
    )

    def check_whole(self, body: bytes) -> None:
        """The SDK takes it for valid."""
        ChatCompletion.model_validate_json(body)

    def check_event(self, event: bytes) -> bool:
        """The SDK takes it for valid; False: it is a mark without content."""
        data = event.partition(b"data: ")[2].strip()
        if data == b"[DONE]":
            return False
        ChatCompletionChunk.model_validate_json(data)
        return True

    def provider(self, url: str, key: Callable[[], str]) -> OpenAIProvider:
        """See Vendor."""
        return OpenAIProvider(SystemClock(), key=key, base_url=f"{url}/v1")

    def streams(self, request: bytes) -> bool:
        """See Vendor."""
        return bool(json.loads(request.partition(b"\r\n\r\n")[2]).get("stream"))

    def whole(self, said: Said) -> dict[str, Any]:
        """See Vendor."""
        message: dict[str, Any] = {"role": "assistant", "content": said.text or None, "refusal": None}
        if said.calls:
            message["tool_calls"] = [
                {"id": made, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
                for made, name, arguments in said.calls
            ]
        finish = FINISHES.get(said.finish, said.finish)
        choice = {"index": 0, "finish_reason": finish, "message": message, "logprobs": None}
        return {
            "id": "req-1", "object": "chat.completion", "created": 1, "model": "m-2026", "choices": [choice],
            "usage": _usage(said),
        }  # fmt: skip

    def events(self, said: Said) -> list[bytes]:
        """See Vendor."""
        made = [_chunk({"role": "assistant", "content": ""})]
        made += [_chunk({"content": piece}) for piece in said.pieces]
        for index, (call, name, arguments) in enumerate(said.calls):
            text = json.dumps(arguments)
            first = {"index": index, "id": call, "type": "function", "function": {"name": name, "arguments": ""}}
            made.append(_chunk({"tool_calls": [first]}))
            for piece in (text[:3], text[3:]):
                made.append(_chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}))
        made.append(_chunk({}, finish=FINISHES.get(said.finish, said.finish)))
        usage = {**_chunk({}), "choices": [], "usage": _usage(said)}
        return [sse(chunk) for chunk in (*made, usage)] + [sse("[DONE]")]

    def error(self, trouble: Trouble) -> dict[str, Any]:
        """See Vendor."""
        codes = {"context": "context_length_exceeded", "refused": "content_policy_violation"}
        return {"error": {"message": "no", "type": "x", "param": None, "code": codes.get(trouble.kind)}}


def _chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
    return {
        "id": "req-1", "object": "chat.completion.chunk", "created": 1, "model": "m-2026", "choices": [choice],
        "usage": None,
    }  # fmt: skip


def _usage(said: Said) -> dict[str, Any]:
    given, made, cached, thoughts = said.usage
    return {
        "prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": thoughts},
    }  # fmt: skip
