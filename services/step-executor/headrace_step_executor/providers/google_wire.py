"""`google/…`: Gemini's generateContent, through the official SDK, imported at the first call. Its own retries are
off."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from headrace.contracts import names
from headrace.runtime.clock import Clock
from headrace_step_executor.providers.connection import (
    Connection,
    Heard,
    Vendor,
    check_stream,
    sdk_call,
    status_code,
    transport_error,
    wait_ms,
)
from headrace_step_executor.providers.failures import ProviderError, provider_error
from headrace_step_executor.providers.google_messages import OWNER, Answer, config_of, contents_of
from headrace_step_executor.providers.protocol import GenerateRequest, GenerateResponse, OnDelta

VENDOR: Final = Vendor(name=OWNER, extra="google", key_name="GEMINI_API_KEY")
DEFAULT_URL: Final = "https://generativelanguage.googleapis.com/"
_TOO_LONG: Final = ("exceeds the maximum number of tokens", "token count exceeds")
_FILTERED: Final = ("content policy", "prohibited")
_NO_KEY: Final = ("api key not valid", "api key expired", "api_key_invalid")
"""Three meanings of a 400 for which this wire has words and no status."""


class GoogleProvider:
    """Calls one endpoint with one key at a time. The connections are made at the first call and kept.

    Args:
        key: Asked for at every call.
        base_url: Empty for the vendor's own.
    """

    def __init__(self, clock: Clock, *, key: Callable[[], str], base_url: str = "") -> None:
        self._clock, self._base_url = clock, base_url
        self._connection = Connection(VENDOR, key=key, make=self._make, keyless=False)

    async def generate(
        self, request: GenerateRequest, *, deadline_s: float, on_delta: OnDelta | None = None
    ) -> GenerateResponse:
        """See Provider."""

        async def work(client: Any, heard: Heard, left_s: float) -> GenerateResponse:
            return await self._call(client, request, heard, left_s)

        return await sdk_call(
            self._connection, work, clock=self._clock, deadline_s=deadline_s, on_delta=on_delta, as_error=self._as_error
        )

    async def close(self) -> None:
        """Let go of the connections."""
        await self._connection.close()

    def _make(self, key: str, http: Any) -> Any:
        from google import genai
        from google.genai import types

        options = types.HttpOptions(
            base_url=self._base_url or DEFAULT_URL,  # else the SDK takes one from the environment
            retry_options=types.HttpRetryOptions(attempts=1),
            httpx_async_client=http,
        )
        return genai.Client(api_key=key, vertexai=False, http_options=options)

    async def _call(self, client: Any, request: GenerateRequest, heard: Heard, left_s: float) -> GenerateResponse:
        answer, models = Answer(heard, turn=len(request.messages)), client.aio.models
        headers = {"Idempotency-Key": request.key, "X-Attempt": str(request.attempt)}
        options: dict[str, Any] = {"headers": headers, "timeout": max(1, int(left_s * 1000))}
        if request.options:
            options["extra_body"] = dict(request.options)
        arguments: dict[str, Any] = {
            "model": request.model,
            "contents": contents_of(request),
            "config": config_of(request) | {"http_options": options},
        }
        if heard.streams:
            stream = await models.generate_content_stream(**arguments)
            async for piece in stream:
                check_stream(_headers(piece))
                answer.take(piece)
        else:
            answer.take(await models.generate_content(**arguments))
        return GenerateResponse(
            parts=answer.parts(),
            model=f"{OWNER}/{answer.model or request.model}",
            finish_reason=answer.finished(),
            usage=answer.usage_of(request.model),
            request_id=answer.request_id,
            replaced=heard.replaced,
        )

    def _as_error(self, error: Exception) -> ProviderError:
        from google.genai import errors

        if isinstance(error, errors.APIError) and isinstance(error.code, int):
            headers = getattr(error.response, "headers", None) or {}
            wait = wait_ms(headers, now_ms=self._clock.now_ms()) or _asked_wait_ms(error.details)
            return provider_error(_code(error), str(error)[:500], retry_after_ms=wait)
        if (of_wire := transport_error(error)) is not None:
            return of_wire
        # What is left is an answer that is none: no JSON, cut off, or of another shape.
        return provider_error("malformed", f"{type(error).__name__}: {str(error)[:300]}")


def _headers(piece: Any) -> Mapping[str, str]:
    response = piece.sdk_http_response
    found = {} if response is None else response.headers or {}
    return {name.lower(): text for name, text in found.items()}


def _code(error: Any) -> str:
    """By status; three meanings of a 400 by their words."""
    said = str(error.message or "").lower()
    if error.code == 400:
        if any(words in said for words in _TOO_LONG):
            return "context_too_long"
        if any(words in said for words in _NO_KEY):
            return "auth"
        if any(words in said for words in _FILTERED):
            return "refused"
    return status_code(error.code)


def _asked_wait_ms(details: Any) -> int:
    """`RetryInfo` in the body of an error: `{"retryDelay": "34s"}`. 0 where there is none that can be read."""
    inner = details.get("error", details) if isinstance(details, dict) else {}
    listed = inner.get("details") if isinstance(inner, dict) else None
    for item in listed if isinstance(listed, list) else ():
        text = item.get("retryDelay") if isinstance(item, dict) else None
        if isinstance(text, str) and text.endswith("s") and text[:-1].replace(".", "", 1).isdecimal():
            return min(int(float(text[:-1]) * 1000), names.RETRY_AFTER_MS_MAX)
    return 0
