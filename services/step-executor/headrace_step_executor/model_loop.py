"""A model's loop: it answers, or asks for tools and is told their results, until it is done. Every round is recorded.

A loop that is taken up again, by another process or in a later attempt, goes through the recorded rounds first; a model
that has answered is not asked again.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from headrace.contracts import rounds
from headrace.contracts.canonical import blake2b_hex
from headrace.contracts.envelope import Value
from headrace.contracts.errors import AttemptError
from headrace.pipeline import json_schemas
from headrace.pipeline.pricing import REPAIRS, ROUNDS
from headrace.runtime.clock import Clock
from headrace.runtime.crashpoints import crashpoint
from headrace.runtime.values import encode_checked
from headrace_step_executor.answers import NotFittingError, repair_request, value_of
from headrace_step_executor.decide import Received
from headrace_step_executor.model_tools import ModelTools
from headrace_step_executor.providers.messages import ChatMessage, Part, ToolResultPart
from headrace_step_executor.providers.protocol import GenerateRequest, GenerateResponse
from headrace_step_executor.round_log import RoundLog
from headrace_step_executor.tools.beneath import Workspace

REFUSED_MAX: Final = 3
"""Refused calls in a row that fail the step: the model does not listen."""
Ask = Callable[[GenerateRequest], Awaitable[GenerateResponse]]


class LoopSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What an `llm` step says about its loop."""

    tools: tuple[str, ...] = ()
    max_rounds: int = ROUNDS
    output_schema: dict[str, Any] | bool | None = None
    repair: int = REPAIRS

    @property
    def loops(self) -> bool:
        """Anything but one question and one answer."""
        return bool(self.tools) or self.output_schema is not None


def split(spec: Any) -> tuple[LoopSpec, Any]:
    """The loop's part of the rendered fields of an `llm` step, and the rest. Raises AttemptError `invalid_request`."""
    own = LoopSpec.__struct_fields__
    try:
        loop = msgspec.convert({key: value for key, value in spec.items() if key in own}, LoopSpec)
    except msgspec.ValidationError as error:
        code = "invalid_request"
        raise AttemptError(code, f"llm: {error}", retryable=False) from error
    return loop, {key: value for key, value in spec.items() if key not in own}


def start_hash(data: bytes) -> str:
    """Identity of a loop's beginning: the rendered fields of its step."""
    return blake2b_hex(data)


class Surrounding(msgspec.Struct, frozen=True, kw_only=True):
    """What a loop needs of its attempt."""

    ask: Ask
    """One model call, paid for."""
    recalled: Callable[[GenerateResponse, int], None]
    """Told of each answer that was recorded before, and in which attempt."""
    store: Callable[[bytes], Awaitable[Value]]
    keep: Callable[[bytes], Awaitable[str]]
    """Store bytes for people to look at; gives the reference."""
    load: Callable[[Value], Awaitable[bytes]]
    left_s: Callable[[], float]
    workspace: Workspace


class ModelLoop:
    """One loop of one attempt. Make it, `run` it once."""

    def __init__(
        self, spec: LoopSpec, received: Received, around: Surrounding, *, log: RoundLog, tools: ModelTools, clock: Clock
    ) -> None:
        self._spec, self._received, self._around = spec, received, around
        self._log, self._tools, self._clock = log, tools, clock
        schema = spec.output_schema
        self._checker = None if schema is None else json_schemas.validator(schema)
        self._refused = 0

    async def run(self, request: GenerateRequest) -> bytes:
        """The JSON bytes of the step's result: `{text, model, finish_reason}`, or the value that fits the schema.

        Raises:
            AttemptError: the provider's; `tool_refused` after three refused calls in a row; `limit_exceeded` when the
            rounds are used up; `output_invalid` when the answer fits in no repair; `outcome_unknown`.
        """
        schema = self._spec.output_schema
        request = msgspec.structs.replace(
            request, tools=self._tools.offers, output_schema=schema if isinstance(schema, dict) else None
        )
        conversation = list(request.messages)
        await self._log.load()
        number = repairs = 0
        while True:
            number += 1
            if number > self._spec.max_rounds + repairs:
                code = "limit_exceeded"
                text = f"{self._received.order.path}: max_rounds: {self._spec.max_rounds} turns, and no answer"
                raise AttemptError(code, text, retryable=False)
            response = await self._turn(number, msgspec.structs.replace(request, messages=tuple(conversation)))
            conversation.append(ChatMessage(role="assistant", content=response.parts))
            if response.tool_calls:
                conversation.append(ChatMessage(role="tool", content=await self._results(number, response)))
                continue
            if self._checker is None:
                said = {"text": response.text, "model": response.model, "finish_reason": response.finish_reason}
                return encode_checked(said)
            try:
                return value_of(response.text, self._checker)
            except NotFittingError as error:
                if repairs >= self._spec.repair:
                    raise await self._invalid(response.text, error) from error
                repairs += 1
                conversation.append(ChatMessage(role="user", content=repair_request(str(error))))

    async def _turn(self, number: int, request: GenerateRequest) -> GenerateResponse:
        known = self._log.turns.get(number)
        if known is None:
            order, began_s = self._received.order, self._clock.monotonic_s()
            crashpoint("turn_running")
            response = await self._around.ask(request)
            value = await self._around.store(encode_checked(msgspec.to_builtins(response)))
            crashpoint("turn_answered")
            is_ours = await self._log.turned(
                rounds.Turned(
                    decision=order.decision,
                    offer=order.offer,
                    start=self._log.start,
                    round=number,
                    response=value,
                    duration_ms=int((self._clock.monotonic_s() - began_s) * 1000),
                )
            )
            if is_ours:
                return response
            known = self._log.turns[number]
        data = await self._around.load(known.data.response)
        response = msgspec.json.decode(data, type=GenerateResponse)
        self._around.recalled(response, known.attempt)
        return response

    async def _results(self, number: int, response: GenerateResponse) -> tuple[Part, ...]:
        results = []
        for index, call in enumerate(response.tool_calls):
            called = await self._tools.answer(
                call, (number, index), self._log, self._around.workspace, left_s=self._around.left_s()
            )
            self._refused = self._refused + 1 if called.refused else 0
            if self._refused >= REFUSED_MAX:
                code = "tool_refused"
                text = f"{self._received.order.path}: {REFUSED_MAX} calls in a row were refused; the last: "
                raise AttemptError(code, f"{text}{called.tool}: {called.content}"[:2000], retryable=False)
            results.append(
                ToolResultPart(id=call.id, name=call.name, content=called.content, is_error=bool(called.code))
            )
        return tuple(results)

    async def _invalid(self, text: str, error: NotFittingError) -> AttemptError:
        """The failure; what the model said is kept by reference and not in it."""
        ref = await self._around.keep(encode_checked(text))
        tried = f"after {self._spec.repair} repairs" if self._spec.repair else "at the first try"
        code = "output_invalid"
        return AttemptError(
            code, f"{self._received.order.path}: {tried} {error}; the answer is kept as {ref}"[:2000], retryable=False
        )
