"""`script/FILE`: answers from a YAML file, for tests and rehearsals. Latency, errors and hangs included.

```yaml
answers:
  - {match: "weather", text: "Sunny.", latency_ms: 20}   # the last message contains `match`
  - {times: 2, error: rate_limited, retry_after_ms: 1500}   # the first two requests that come this far
  - {hang: true, match: "never"}                            # no answer until the deadline
  - {text: "Anything else."}
```
The first entry that matches and has `times` left answers. Counts are kept by this process. Where nothing
matches the call fails as `invalid_request`: a script is never silently exceeded.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from headrace.contracts.errors import DefinitionError
from headrace.contracts.events import Usage
from headrace.pipeline.loader import load_bytes
from headrace.runtime.clock import Clock
from headrace_step_executor.providers.protocol import (
    RETRYABLE_CODES,
    TERMINAL_CODES,
    GenerateRequest,
    GenerateResponse,
    OnDelta,
    provider_error,
    word_count,
)

SCRIPTS_MAX: Final = 64
"""Scripts held by one process; a file that changed is another script."""
ReadScript = Callable[[str], bytes]
"""Name → bytes, confined to what the operator lets be read. Raises AttemptError."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One prepared answer."""

    match: str = ""
    times: int | None = None
    text: str = ""
    latency_ms: int = 0
    error: str = ""
    message: str = "scripted"
    retry_after_ms: int = 0
    hang: bool = False
    finish_reason: str = "stop"
    output_tokens: int | None = None


class _Script(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    answers: tuple[Entry, ...]


class ScriptProvider:
    """Answers as the files say."""

    def __init__(self, clock: Clock, read: ReadScript) -> None:
        self._clock, self._read = clock, read
        self._scripts: dict[tuple[str, bytes], tuple[_Script, list[int]]] = {}

    async def generate(
        self, request: GenerateRequest, *, deadline_s: float, on_delta: OnDelta | None = None
    ) -> GenerateResponse:
        """See Provider."""
        entry = self._next(request)
        if entry.hang:
            await self._clock.sleep(deadline_s)
            msg = "timeout"
            raise provider_error(msg, f"no answer within {deadline_s:.3f} s")
        if entry.latency_ms:
            await self._clock.sleep(min(entry.latency_ms / 1000, deadline_s))
            if entry.latency_ms / 1000 >= deadline_s:
                msg = "timeout"
                raise provider_error(msg, f"no answer within {deadline_s:.3f} s")
        if entry.error:
            raise provider_error(entry.error, entry.message, retry_after_ms=entry.retry_after_ms)
        if on_delta is not None:
            on_delta(entry.text)
        spent = len(entry.text.split()) if entry.output_tokens is None else entry.output_tokens
        model = f"script/{request.model}"
        usage = Usage(input_tokens=word_count(request), output_tokens=spent, model=model)
        return GenerateResponse(text=entry.text, model=model, finish_reason=entry.finish_reason, usage=usage)

    def _next(self, request: GenerateRequest) -> Entry:
        script, used = self._loaded(request.model)
        asked = request.messages[-1].content
        for index, entry in enumerate(script.answers):
            left = entry.times is None or used[index] < entry.times
            if left and entry.match in asked:
                used[index] += 1
                return entry
        msg = "invalid_request"
        raise provider_error(msg, f"{request.model}: no answer is prepared for this request")

    def _loaded(self, name: str) -> tuple[_Script, list[int]]:
        data = self._read(name)
        found = self._scripts.get((name, data))
        if found is None:
            script = parse_script(data, name)
            while len(self._scripts) >= SCRIPTS_MAX:
                del self._scripts[next(iter(self._scripts))]
            found = self._scripts[(name, data)] = (script, [0] * len(script.answers))
        return found


def parse_script(data: bytes, name: str) -> Any:
    """The script in YAML bytes. Raises AttemptError `invalid_request` with the place of what is wrong."""
    try:
        script = msgspec.convert(load_bytes(data, name).document, _Script)
    except (DefinitionError, msgspec.ValidationError) as error:
        msg = "invalid_request"
        raise provider_error(msg, f"{name}: {error}") from error
    for entry in script.answers:
        if entry.error and entry.error not in RETRYABLE_CODES | TERMINAL_CODES:
            known = ", ".join(sorted(RETRYABLE_CODES | TERMINAL_CODES))
            msg = "invalid_request"
            raise provider_error(msg, f"{name}: unknown error {entry.error!r}; known are {known}")
    return script
