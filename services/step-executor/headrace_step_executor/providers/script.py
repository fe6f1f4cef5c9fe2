"""`script/FILE`: answers from a YAML file, for tests and rehearsals. Latency, errors and hangs included.

```yaml
answers:
  - {match: "weather", text: "Sunny.", latency_ms: 20}   # the last message contains `match`
  - {times: 2, error: rate_limited, retry_after_ms: 1500}   # the first two requests that come this far
  - {hang: true, match: "never"}                            # no answer until the deadline
  - {pieces: ["It ", "is ", "late."], piece_ms: 50}         # a stream, 50 ms from piece to piece
  - {match: "list", tool_calls: [{name: fs_list, arguments: {path: "."}}]}
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
from headrace_step_executor.providers.failures import ERRORS, provider_error
from headrace_step_executor.providers.messages import Part, TextPart, ToolCallPart
from headrace_step_executor.providers.protocol import GenerateRequest, GenerateResponse, OnDelta, word_count

SCRIPTS_MAX: Final = 64
"""Scripts held by one process; a file that changed is another script."""
ReadScript = Callable[[str], bytes]
"""Name → bytes, confined to what the operator lets be read. Raises AttemptError."""


class Call(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool call of a prepared answer. `arguments` may be a text, for what is no JSON."""

    name: str
    arguments: dict[str, Any] | str = {}


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One prepared answer."""

    match: str = ""
    times: int | None = None
    text: str = ""
    pieces: tuple[str, ...] = ()
    """The text as a stream; instead of `text`."""
    piece_ms: int = 0
    tool_calls: tuple[Call, ...] = ()
    latency_ms: int = 0
    error: str = ""
    message: str = "scripted"
    retry_after_ms: int = 0
    hang: bool = False
    finish_reason: str = ""
    """`stop`, or `tool_calls` where there are any, unless given."""
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
        until_s = self._clock.monotonic_s() + deadline_s
        await self._wait(deadline_s if entry.hang else entry.latency_ms / 1000, until_s)
        if entry.error:
            raise provider_error(entry.error, entry.message, retry_after_ms=entry.retry_after_ms)
        for piece in entry.pieces or (entry.text,):
            await self._wait(entry.piece_ms / 1000, until_s)
            if on_delta is not None:
                on_delta(piece)
        return _response(entry, request)

    async def _wait(self, seconds: float, until_s: float) -> None:
        """The wait of an answer, or a timeout at the deadline."""
        left_s = until_s - self._clock.monotonic_s()
        if seconds > 0:
            await self._clock.sleep(max(0.0, min(seconds, left_s)))
        if seconds >= left_s:
            msg = "timeout"
            raise provider_error(msg, "no answer by the deadline")

    def _next(self, request: GenerateRequest) -> Entry:
        script, used = self._loaded(request.model)
        asked = request.messages[-1].said
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


def _response(entry: Entry, request: GenerateRequest) -> GenerateResponse:
    text = "".join(entry.pieces) or entry.text
    calls = tuple(
        ToolCallPart(id=f"call_{len(request.messages)}_{place}", name=call.name, arguments=_arguments(call))
        for place, call in enumerate(entry.tool_calls)
    )
    words: tuple[Part, ...] = (TextPart(text=text),) if text or not calls else ()
    spent = len(text.split()) if entry.output_tokens is None else entry.output_tokens
    model = f"script/{request.model}"
    return GenerateResponse(
        parts=words + calls,
        model=model,
        finish_reason=entry.finish_reason or ("tool_calls" if calls else "stop"),
        usage=Usage(input_tokens=word_count(request), output_tokens=spent, model=model),
    )


def _arguments(call: Call) -> str:
    return call.arguments if isinstance(call.arguments, str) else msgspec.json.encode(call.arguments).decode()


def parse_script(data: bytes, name: str) -> Any:
    """The script in YAML bytes. Raises AttemptError `invalid_request` with the place of what is wrong."""
    try:
        script = msgspec.convert(load_bytes(data, name).document, _Script)
    except (DefinitionError, msgspec.ValidationError) as error:
        msg = "invalid_request"
        raise provider_error(msg, f"{name}: {error}") from error
    for entry in script.answers:
        if entry.error and entry.error not in ERRORS:
            known = ", ".join(sorted(ERRORS))
            msg = "invalid_request"
            raise provider_error(msg, f"{name}: unknown error {entry.error!r}; known are {known}")
    return script
