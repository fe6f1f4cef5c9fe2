"""Google's generateContent."""

from collections.abc import Callable
from typing import Any

from google.genai.types import GenerateContentResponse
from tests.unit.step_executor.vendors.said import Said, Trouble, sse

from headrace.runtime.clock import SystemClock
from headrace_step_executor.providers.google_wire import GoogleProvider

FINISHES = {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP", "refused": "SAFETY"}
STATUSES = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}
WORDS = {
    "context": "The input token count (1048577) exceeds the maximum number of tokens allowed (1048576).",
    "refused": "The request was prohibited under the content policy.",
}


class Google:
    """See said.Vendor."""

    name = "google"

    def check_whole(self, body: bytes) -> None:
        """The SDK takes it for valid: its own model forbids fields that it does not know."""
        GenerateContentResponse.model_validate_json(body)

    def check_event(self, event: bytes) -> bool:
        """The SDK takes it for valid."""
        GenerateContentResponse.model_validate_json(event.partition(b"data: ")[2].strip())
        return True

    def provider(self, url: str, key: Callable[[], str]) -> GoogleProvider:
        """See Vendor."""
        return GoogleProvider(SystemClock(), key=key, base_url=url)

    def streams(self, request: bytes) -> bool:
        """See Vendor."""
        return b":streamGenerateContent?alt=sse" in request.partition(b"\r\n")[0]

    def whole(self, said: Said) -> dict[str, Any]:
        """See Vendor."""
        parts = ([{"text": said.text}] if said.pieces else []) + _calls(said)
        return _piece(said, parts, finish=FINISHES.get(said.finish, said.finish))

    def events(self, said: Said) -> list[bytes]:
        """See Vendor."""
        made = [_piece(said, [{"text": piece}], usage=False) for piece in said.pieces]
        made += [_piece(said, [call], usage=False) for call in _calls(said)]
        made.append(_piece(said, [{"text": ""}], finish=FINISHES.get(said.finish, said.finish)))
        return [sse(piece) for piece in made]

    def error(self, trouble: Trouble) -> dict[str, Any]:
        """See Vendor."""
        status = STATUSES.get(trouble.status, "UNKNOWN")
        return {"error": {"code": trouble.status, "message": WORDS.get(trouble.kind, "no"), "status": status}}


def _calls(said: Said) -> list[dict[str, Any]]:
    return [
        {"functionCall": {"id": made, "name": name, "args": arguments}, "thoughtSignature": "c2ln"}
        for made, name, arguments in said.calls
    ]


def _piece(said: Said, parts: list[dict[str, Any]], *, finish: str = "", usage: bool = True) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
    if finish:
        candidate["finishReason"] = finish
    piece: dict[str, Any] = {"candidates": [candidate], "modelVersion": "m-2026", "responseId": "req-1"}
    if usage:
        given, made, cached, thoughts = said.usage
        piece["usageMetadata"] = {
            "promptTokenCount": given, "cachedContentTokenCount": cached, "candidatesTokenCount": made - thoughts,
            "thoughtsTokenCount": thoughts, "totalTokenCount": given + made,
        }  # fmt: skip
    return piece
