"""What an `llm` step asks of a model, whatever wire it speaks, and what it hears."""

from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from headrace.contracts.events import Usage
from headrace_step_executor.providers.failures import provider_error
from headrace_step_executor.providers.messages import ChatMessage, Part, Quota, ToolCallPart, ToolOffer, text_of

OnDelta = Callable[[str], None]
"""Gets the words of an answer as they come. Never waits, never raises."""
MESSAGES_MAX: Final = 1_000
DEFAULT_MODEL: Final = "echo/echo"
SCHEMA_NAME: Final = "answer"
"""What wires that name a schema call it."""


class GenerateRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model call. `model` is without the provider's name."""

    model: str
    messages: tuple[ChatMessage, ...]
    key: str = ""
    """Idempotency key: the same for every attempt of the step."""
    attempt: int = 1
    max_tokens: int | None = None
    temperature: float | None = None
    tools: tuple[ToolOffer, ...] = ()
    tool_choice: str = "auto"
    """`auto`, `none`, `required`, or the name of the tool that must be called. Means nothing without tools."""
    output_schema: dict[str, Any] | None = None
    """The answer's text has to be JSON that fits it: asked for natively where the provider can. Never checked here."""
    options: dict[str, Any] = {}
    """The provider's own, passed through."""


class GenerateResponse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the model said."""

    parts: tuple[Part, ...]
    """In the model's order; as the content of an assistant's message they go on with the conversation."""
    model: str
    """`provider/model`, the model as the provider names what answered."""
    finish_reason: str
    """`stop`, `length` (cut by a limit), `tool_calls`, or the provider's own word for something else."""
    usage: Usage
    request_id: str = ""
    quota: Quota | None = None
    replaced: bool = False
    """Something in it was no Unicode and became U+FFFD."""

    @property
    def text(self) -> str:
        """What it said in words."""
        return text_of(self.parts)

    @property
    def tool_calls(self) -> tuple[ToolCallPart, ...]:
        """The calls it wants, in order."""
        return tuple(part for part in self.parts if isinstance(part, ToolCallPart))


class Provider(Protocol):
    """A way to models. One object serves all calls of the process."""

    async def generate(
        self, request: GenerateRequest, *, deadline_s: float, on_delta: OnDelta | None = None
    ) -> GenerateResponse:
        """The answer, within `deadline_s` in total, however slowly it drips.

        Args:
            on_delta: Where it is given the answer is asked for in pieces; together they are the answer's text.

        Raises:
            ProviderError: with a code of failures.ERRORS. It knows what was heard until then.
        """
        ...


class _Said(msgspec.Struct, frozen=True, kw_only=True):
    """A message as a pipeline's author writes it."""

    role: str
    content: str


class _Spec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of an `llm` step, rendered."""

    prompt: str | None = None
    system: str | None = None
    messages: tuple[_Said, ...] = ()
    model: str | tuple[str, ...] = DEFAULT_MODEL
    max_tokens: int | None = None
    temperature: float | None = None
    options: dict[str, Any] = {}
    allow_unpriced: bool = False


def request_of(spec: Any, *, key: str, attempt: int) -> tuple[tuple[str, ...], GenerateRequest]:
    """(models `provider/model` in the order in which they are tried, request) for the rendered fields of an `llm` step.

    Raises:
        ProviderError: `invalid_request` with the field that does not fit.
    """
    try:
        fields = msgspec.convert(spec, _Spec)
    except msgspec.ValidationError as error:
        msg = "invalid_request"
        raise provider_error(msg, f"llm: {error}") from error
    models = (fields.model,) if isinstance(fields.model, str) else fields.model
    for whole in models or ("",):
        provider, _, model = whole.partition("/")
        if not provider or not model:
            msg = "invalid_request"
            raise provider_error(msg, f"model {whole[:100]!r}: expected provider/model, e.g. {DEFAULT_MODEL}")
    messages = [ChatMessage(role=said.role, content=said.content) for said in fields.messages]
    if fields.system is not None:
        messages.insert(0, ChatMessage(role="system", content=fields.system))
    if fields.prompt is not None:
        messages.append(ChatMessage(role="user", content=fields.prompt))
    if not messages or len(messages) > MESSAGES_MAX:
        msg = "invalid_request"
        raise provider_error(msg, f"{len(messages)} messages; between 1 and {MESSAGES_MAX} are needed")
    request = GenerateRequest(
        model=models[0].partition("/")[2],
        messages=tuple(messages),
        key=key,
        attempt=attempt,
        max_tokens=fields.max_tokens,
        temperature=fields.temperature,
        options=fields.options,
    )
    return models, request


def word_count(request: GenerateRequest) -> int:
    """Tokens as the offline providers count them: words."""
    return sum(len(message.said.split()) for message in request.messages)
