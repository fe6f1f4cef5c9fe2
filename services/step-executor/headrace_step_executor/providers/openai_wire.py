"""`openai/…`, and everything that speaks its chat-completions wire: through the official SDK, imported at the first
call.

The SDK's own retries are off (the scheduler retries), and its time limits only end silences, so the whole call is
bounded from outside: an answer that drips one byte a second ends at the deadline too.
"""

from collections.abc import Callable
from typing import Any, Final

from headrace.runtime.clock import Clock
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
from headrace_step_executor.providers.openai_messages import Answer, arguments_of
from headrace_step_executor.providers.protocol import GenerateRequest, GenerateResponse, OnDelta
from headrace_step_executor.providers.quota import openai_quota

UNUSED_KEY: Final = "none"
"""The SDK insists on one; where there is none it is not sent."""
VENDOR: Final = Vendor(name="openai", extra="openai", key_name="OPENAI_API_KEY")
_BY_CODE: Final = {
    "context_length_exceeded": "context_too_long",
    "content_filter": "refused",
    "content_policy_violation": "refused",
    "insufficient_quota": "auth",  # the account is empty: waiting does not fill it
}


class OpenAIProvider:
    """Calls one endpoint with one key at a time. The connections are made at the first call and kept.

    Args:
        key: Asked for at every call. Empty is right for a server of one's own that wants none.
        base_url: Empty for the vendor's own.
    """

    def __init__(self, clock: Clock, *, key: Callable[[], str], base_url: str = "") -> None:
        self._clock, self._base_url = clock, base_url
        self._without_key: dict[str, Any] = {}
        self._connection = Connection(VENDOR, key=key, make=self._make, keyless=bool(base_url))

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
        import openai

        self._without_key = {} if key else {"Authorization": openai.Omit()}
        return openai.AsyncOpenAI(
            api_key=key or UNUSED_KEY, base_url=self._base_url or None, max_retries=0, http_client=http
        )

    async def _call(self, client: Any, request: GenerateRequest, heard: Heard, left_s: float) -> GenerateResponse:
        answer, create = Answer(heard), client.chat.completions
        if heard.streams:
            stream = await create.create(
                stream=True, stream_options={"include_usage": True}, **self._arguments(request)
            )
            headers = stream.response.headers
            async with stream:
                check_stream(headers)
                async for chunk in stream:
                    answer.take(chunk)
        else:
            # The whole answer is one silence. `with_raw_response` has the headers.
            raw = await create.with_raw_response.create(timeout=patient(left_s), **self._arguments(request))
            headers = raw.headers
            answer.take(raw.parse())
        return GenerateResponse(
            parts=answer.parts(),
            model=f"openai/{answer.model or request.model}",
            finish_reason=answer.finished(),
            usage=answer.usage_of(request.model),
            request_id=answer.request_id,
            quota=openai_quota(headers),
            replaced=heard.replaced,
        )

    def _arguments(self, request: GenerateRequest) -> dict[str, Any]:
        arguments = arguments_of(request)
        own = {"Idempotency-Key": request.key, "X-Attempt": str(request.attempt)}
        arguments["extra_headers"] = own | self._without_key
        if request.max_tokens is not None:
            # The vendor has a new name for it; compatible servers know the old one, and some ignore the new.
            arguments["max_tokens" if self._base_url else "max_completion_tokens"] = request.max_tokens
        if request.options:
            arguments["extra_body"] = dict(request.options)
        return arguments

    def _as_error(self, error: Exception) -> ProviderError:
        import openai

        if isinstance(error, openai.APIStatusError):
            text, named = str(error)[:500], _BY_CODE.get(str(error.code or ""))
            headers = error.response.headers
            wait = wait_ms(headers, now_ms=self._clock.now_ms())
            return provider_error(
                named or status_code(error.status_code), text, retry_after_ms=wait, quota=openai_quota(headers)
            )
        if (of_wire := transport_error(error)) is not None:
            return of_wire
        if isinstance(error, openai.APIError) and error.body is not None:  # an error inside a stream
            named = _BY_CODE.get(str(error.code or ""))
            by_type = {"server_error": "unavailable", "rate_limit_exceeded": "rate_limited"}
            return provider_error(named or by_type.get(str(error.type), "unavailable"), str(error)[:500])
        # What is left is an answer that is none: no JSON, cut off, or of another shape.
        return provider_error("malformed", f"{type(error).__name__}: {str(error)[:300]}")
