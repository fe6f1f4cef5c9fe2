"""`openai/…`, and everything that speaks its chat-completions wire: through the official SDK, imported at
the first call.

The SDK's own retries are off (the scheduler retries), and its `timeout` limits only silences, so the whole
call is bounded from outside: an answer that drips one byte a second ends at the deadline too.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from headrace.contracts import names
from headrace.contracts.errors import AttemptError
from headrace.contracts.events import Usage
from headrace.runtime.clock import Clock
from headrace.runtime.values import without_surrogates
from headrace_step_executor.providers.protocol import (
    GenerateRequest,
    GenerateResponse,
    OnDelta,
    provider_error,
)
from headrace_step_executor.retry_after import retry_after_ms

UNUSED_KEY: Final = "none"
"""The SDK insists on one; where there is none it is not sent."""
MISSING: Final = "provider_missing"
LATE: Final = "timeout"


class OpenAIProvider:
    """Calls one endpoint with one key. The connection pool is made at the first call and kept.

    Args:
        key: Asked for at the first call. Empty is right for a server of one's own that wants none.
        base_url: Empty for the vendor's own.
    """

    def __init__(self, clock: Clock, *, key: Callable[[], str], base_url: str = "") -> None:
        self._clock, self._key, self._base_url = clock, key, base_url
        self._client: Any = None
        self._without_key: dict[str, Any] = {}

    async def generate(
        self, request: GenerateRequest, *, deadline_s: float, on_delta: OnDelta | None = None
    ) -> GenerateResponse:
        """See Provider. Not streamed: `on_delta` gets the whole text once."""
        client = await self._connected(deadline_s)
        try:
            async with asyncio.timeout(deadline_s):
                # `with_raw_response` keeps the body as bytes, so a damaged one is told from a foreign
                # exception.
                raw = await client.chat.completions.with_raw_response.create(**self._arguments(request))
                completion = raw.parse()
        except TimeoutError as error:
            raise provider_error(LATE, f"no complete answer within {deadline_s:.3f} s") from error
        except Exception as error:
            raise self._as_attempt_error(error) from error
        response = _response(completion, request)
        if on_delta is not None:
            on_delta(response.text)
        return response

    async def close(self) -> None:
        """Let go of the connections."""
        if self._client is not None:
            await self._client.close()

    async def _connected(self, deadline_s: float) -> Any:
        if self._client is None:
            key = self._key()
            if not key and not self._base_url:
                text = "the provider `openai` has no key: set OPENAI_API_KEY or OPENAI_API_KEY_FILE"
                raise provider_error(MISSING, text)
            try:
                async with asyncio.timeout(deadline_s):
                    # In a thread: importing the SDK takes longer than this process may be silent.
                    made = await asyncio.to_thread(self._make_client, key)
            except ImportError as error:
                text = "the provider `openai` needs the extra: pip install 'headrace[openai]'"
                raise provider_error(MISSING, text) from error
            except TimeoutError as error:
                raise provider_error(LATE, f"the SDK was not loaded within {deadline_s:.3f} s") from error
            self._client = self._client or made
        return self._client

    def _make_client(self, key: str) -> Any:
        import openai

        # The attempt's own deadline bounds every call; the SDK's would cut long ones short.
        timeout_s = names.DURATION_MS_MAX / 1000
        self._without_key = {} if key else {"Authorization": openai.Omit()}
        return openai.AsyncOpenAI(
            api_key=key or UNUSED_KEY, base_url=self._base_url or None, max_retries=0, timeout=timeout_s
        )

    def _arguments(self, request: GenerateRequest) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "model": request.model,
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
            "extra_headers": {"Idempotency-Key": request.key, "X-Attempt": str(request.attempt), **self._without_key},
        }
        if request.max_tokens is not None:
            # The vendor has a new name for it; compatible servers know the old one, and some ignore the new.
            arguments["max_tokens" if self._base_url else "max_completion_tokens"] = request.max_tokens
        if request.temperature is not None:
            arguments["temperature"] = request.temperature
        if request.options:
            arguments["extra_body"] = dict(request.options)
        return arguments

    def _as_attempt_error(self, error: Exception) -> AttemptError:
        import openai

        if isinstance(error, openai.APITimeoutError):
            return provider_error("timeout", str(error))
        if isinstance(error, openai.APIConnectionError):
            return provider_error("connect", f"{error}: {error.__cause__}")
        if isinstance(error, openai.APIStatusError):
            header = error.response.headers.get("retry-after")
            wait_ms = retry_after_ms(header, now_ms=self._clock.now_ms())
            return _status_error(error.status_code, str(error)[:500], str(error.code or ""), wait_ms)
        # What is left is an answer that is none: no JSON, cut off, or of another shape.
        return provider_error("malformed", f"{type(error).__name__}: {str(error)[:300]}")


_BY_STATUS = {401: "auth", 403: "auth", 408: "timeout", 425: "unavailable", 429: "rate_limited",
              504: "timeout", 529: "overloaded"}  # fmt: skip


def _status_error(status: int, message: str, code: str, wait_ms: int) -> AttemptError:
    if code == "context_length_exceeded":
        return provider_error("context_too_long", message)
    if code in ("content_filter", "content_policy_violation"):
        return provider_error("refused", message)
    named = _BY_STATUS.get(status) or ("unavailable" if status >= 500 else "invalid_request")
    return provider_error(named, message, retry_after_ms=wait_ms)


def _response(completion: Any, request: GenerateRequest) -> GenerateResponse:
    try:
        choice = completion.choices[0]
        text, finish_reason = choice.message.content, choice.finish_reason
        refusal = getattr(choice.message, "refusal", None)
    except (AttributeError, IndexError, TypeError) as error:
        msg = "malformed"
        raise provider_error(msg, f"no choice in the answer: {error}") from error
    if refusal or finish_reason == "content_filter":
        msg = "refused"
        raise provider_error(msg, str(refusal or "the provider's content filter stopped the answer")[:500])
    if not isinstance(text, str):
        msg = "malformed"
        raise provider_error(msg, "the answer holds no text")
    return GenerateResponse(
        text=without_surrogates(text),
        model=f"openai/{completion.model or request.model}",
        finish_reason=str(finish_reason or ""),
        usage=_usage(completion.usage, request),
        request_id=str(completion.id or ""),
    )


def _usage(usage: Any, request: GenerateRequest) -> Usage:
    if usage is None:
        return Usage(model=f"openai/{request.model}")

    def count(holder: Any, name: str) -> int:
        found = getattr(holder, name, 0) or 0
        return found if isinstance(found, int) and found >= 0 else 0

    return Usage(
        input_tokens=count(usage, "prompt_tokens"),
        output_tokens=count(usage, "completion_tokens"),
        cached_tokens=count(getattr(usage, "prompt_tokens_details", None), "cached_tokens"),
        reasoning_tokens=count(getattr(usage, "completion_tokens_details", None), "reasoning_tokens"),
        model=f"openai/{request.model}",
    )
