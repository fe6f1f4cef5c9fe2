"""`anthropic/…`: Anthropic's messages, through the official SDK, imported at the first call. Its retries are off."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from headrace.runtime.clock import Clock
from headrace_step_executor.providers.anthropic_messages import OWNER, Answer, arguments_of
from headrace_step_executor.providers.connection import (
    Connection,
    Heard,
    Vendor,
    check_stream,
    patient,
    sdk_call,
    status_code,
    transport_error,
    wait_ms,
)
from headrace_step_executor.providers.failures import ProviderError, provider_error
from headrace_step_executor.providers.protocol import GenerateRequest, GenerateResponse, OnDelta
from headrace_step_executor.providers.quota import anthropic_quota

VENDOR: Final = Vendor(name=OWNER, extra="anthropic", key_name="ANTHROPIC_API_KEY")
_BY_TYPE: Final[Mapping[str, str]] = {
    "overloaded_error": "overloaded",
    "rate_limit_error": "rate_limited",
    "authentication_error": "auth",
    "permission_error": "auth",
    "billing_error": "auth",
    "timeout_error": "timeout",
    "api_error": "unavailable",
}
_TOO_LONG: Final = ("prompt is too long", "exceed context limit", "context window")
_FILTERED: Final = ("content filtering policy", "usage policy")
"""Beginnings of the two meanings of a 400 for which this wire has words and no code."""


class AnthropicProvider:
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
        import anthropic

        base_url = self._base_url or "https://api.anthropic.com"  # else the SDK looks into files of its own
        return anthropic.AsyncAnthropic(api_key=key, base_url=base_url, max_retries=0, http_client=http)

    async def _call(self, client: Any, request: GenerateRequest, heard: Heard, left_s: float) -> GenerateResponse:
        answer, arguments = Answer(heard), self._arguments(request)
        if heard.streams:
            stream = await client.messages.create(stream=True, **arguments)
            headers = stream.response.headers
            async with stream:
                check_stream(headers)
                async for event in stream:
                    answer.take(event)
        else:
            raw = await client.messages.with_raw_response.create(timeout=patient(left_s), **arguments)
            headers = raw.headers
            answer.take_whole(await _parsed(raw))
        return GenerateResponse(
            parts=answer.parts(),
            model=f"{OWNER}/{answer.model or request.model}",
            finish_reason=answer.finished(),
            usage=answer.usage_of(request.model),
            request_id=answer.request_id,
            quota=anthropic_quota(headers, now_ms=self._clock.now_ms()),
            replaced=heard.replaced,
        )

    def _arguments(self, request: GenerateRequest) -> dict[str, Any]:
        arguments = arguments_of(request)
        arguments["extra_headers"] = {"Idempotency-Key": request.key, "X-Attempt": str(request.attempt)}
        arguments["extra_body"] = arguments.get("extra_body", {}) | dict(request.options)
        return arguments

    def _as_error(self, error: Exception) -> ProviderError:
        import anthropic

        if isinstance(error, anthropic.APIStatusError):
            headers, now_ms = error.response.headers, self._clock.now_ms()
            return provider_error(
                _code(error),
                str(error)[:500],
                retry_after_ms=wait_ms(headers, now_ms=now_ms),
                quota=anthropic_quota(headers, now_ms=now_ms),
            )
        if (of_wire := transport_error(error)) is not None:
            return of_wire
        # What is left is an answer that is none: no JSON, cut off, or of another shape.
        return provider_error("malformed", f"{type(error).__name__}: {str(error)[:300]}")


async def _parsed(raw: Any) -> Any:
    made = raw.parse()
    return await made if hasattr(made, "__await__") else made


def _code(error: Any) -> str:
    """By status; inside a stream, whose status was good, by type; two meanings of a 400 by their words."""
    if error.status_code == 400:
        said = str(error.api_message or "").lower()
        if any(words in said for words in _TOO_LONG):
            return "context_too_long"
        if any(words in said for words in _FILTERED):
            return "refused"
    if error.status_code < 400:
        return _BY_TYPE.get(str(error.type), "unavailable")
    return status_code(error.status_code)
