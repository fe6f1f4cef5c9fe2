"""What an `llm` step asks of a model, whatever wire it speaks, and how that fails.

Errors are AttemptErrors with these codes. Retryable: `connect timeout overloaded rate_limited unavailable
malformed`. Terminal: `auth invalid_request context_too_long refused`, and `provider_missing` where the
model cannot be reached from here at all. Whether another attempt follows is the scheduler's to decide; an
adapter never retries.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import msgspec

from headrace.contracts.errors import AttemptError
from headrace.contracts.events import Usage

OnDelta = Callable[[str], None]
MESSAGES_MAX: Final = 1_000
RETRYABLE_CODES: Final = frozenset(("connect", "timeout", "overloaded", "rate_limited", "unavailable", "malformed"))
TERMINAL_CODES: Final = frozenset(("auth", "invalid_request", "context_too_long", "refused", "provider_missing"))
DEFAULT_MODEL: Final = "echo/echo"


class ChatMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a conversation."""

    role: str
    content: str


class GenerateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A model call. `model` is without the provider's name."""

    model: str
    messages: tuple[ChatMessage, ...]
    key: str = ""
    """Idempotency key: the same for every attempt of the step."""
    attempt: int = 1
    max_tokens: int | None = None
    temperature: float | None = None
    options: Mapping[str, Any] = {}
    """The provider's own, passed through."""


class GenerateResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What the model said."""

    text: str
    model: str
    finish_reason: str
    usage: Usage
    request_id: str = ""


class Provider(Protocol):
    """A way to models. One object serves all calls of the process."""

    async def generate(
        self, request: GenerateRequest, *, deadline_s: float, on_delta: OnDelta | None = None
    ) -> GenerateResponse:
        """The answer, within `deadline_s` in total, however slowly it drips.

        Raises:
            AttemptError: with one of the codes above.
        """
        ...


def provider_error(code: str, message: str, *, retry_after_ms: int = 0, retryable: bool | None = None) -> AttemptError:
    """The error of a code, retryable as the module's text has it unless said otherwise."""
    assert code in RETRYABLE_CODES or code in TERMINAL_CODES, code
    again = code in RETRYABLE_CODES if retryable is None else retryable
    return AttemptError(code, message, retryable=again, retry_after_ms=retry_after_ms)


class _Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of an `llm` step, rendered."""

    prompt: str | None = None
    system: str | None = None
    messages: tuple[ChatMessage, ...] = ()
    model: str | tuple[str, ...] = DEFAULT_MODEL
    max_tokens: int | None = None
    temperature: float | None = None
    options: dict[str, Any] = {}


def request_of(spec: Any, *, key: str, attempt: int) -> tuple[str, GenerateRequest]:
    """(provider, request) for the rendered fields of an `llm` step. Of several models the first is asked.

    Raises:
        AttemptError: `invalid_request` with the field that does not fit.
    """
    try:
        fields = msgspec.convert(spec, _Spec)
    except msgspec.ValidationError as error:
        msg = "invalid_request"
        raise provider_error(msg, f"llm: {error}") from error
    whole = fields.model if isinstance(fields.model, str) else next(iter(fields.model), "")
    provider, _, model = whole.partition("/")
    if not provider or not model:
        msg = "invalid_request"
        raise provider_error(msg, f"model {whole[:100]!r}: expected provider/model, e.g. {DEFAULT_MODEL}")
    messages = list(fields.messages)
    if fields.system is not None:
        messages.insert(0, ChatMessage(role="system", content=fields.system))
    if fields.prompt is not None:
        messages.append(ChatMessage(role="user", content=fields.prompt))
    if not messages or len(messages) > MESSAGES_MAX:
        msg = "invalid_request"
        raise provider_error(msg, f"{len(messages)} messages; between 1 and {MESSAGES_MAX} are needed")
    request = GenerateRequest(
        model=model,
        messages=tuple(messages),
        key=key,
        attempt=attempt,
        max_tokens=fields.max_tokens,
        temperature=fields.temperature,
        options=fields.options,
    )
    return provider, request


def word_count(request: GenerateRequest) -> int:
    """Tokens as the offline providers count them: words."""
    return sum(len(message.content.split()) for message in request.messages)
