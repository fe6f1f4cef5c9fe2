"""`echo/…`: the last message back, word for word. The default model: it needs no key, no network and no
luck."""

from headrace.contracts.events import Usage
from headrace_step_executor.providers.messages import TextPart
from headrace_step_executor.providers.protocol import (
    GenerateRequest,
    GenerateResponse,
    OnDelta,
    word_count,
)


class EchoProvider:
    """Deterministic: the same request gives the same answer in every process and release."""

    async def generate(
        self, request: GenerateRequest, *, deadline_s: float, on_delta: OnDelta | None = None
    ) -> GenerateResponse:
        """See Provider. Never fails; `max_tokens` cuts after so many words, as a model would."""
        assert deadline_s > 0, deadline_s
        text, finish_reason = request.messages[-1].said, "stop"
        words = text.split()
        if request.max_tokens is not None and len(words) > request.max_tokens:
            text, finish_reason = " ".join(words[: request.max_tokens]), "length"
        if on_delta is not None:
            on_delta(text)
        usage = Usage(input_tokens=word_count(request), output_tokens=len(text.split()), model=f"echo/{request.model}")
        return GenerateResponse(
            parts=(TextPart(text=text),), model=f"echo/{request.model}", finish_reason=finish_reason, usage=usage
        )
