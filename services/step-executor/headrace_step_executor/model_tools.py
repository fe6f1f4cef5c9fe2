"""Which tools a model may call in a step, and one such call. The model is not trusted: it asks, this decides.

What is refused, and what goes wrong in a tool, is told to the model as data. Nothing here ends the step but a call of
which nobody knows whether it happened.
"""

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec

from headrace.contracts import codec, rounds, subjects
from headrace.contracts.errors import AttemptError
from headrace.contracts.events import ToolSpec
from headrace.runtime.clock import Clock
from headrace_step_executor.decide import Received
from headrace_step_executor.providers.messages import ToolCallPart, ToolOffer
from headrace_step_executor.round_log import RoundLog
from headrace_step_executor.tool_calls import ToolCalls
from headrace_step_executor.tools.beneath import Workspace
from headrace_step_executor.tools.call import try_later

RESULT_CHARS_MAX: Final = 32_000
"""Of one result that the model is shown, about 8,000 tokens; what is cut is said. Larger ones belong into files."""
CALLS_PER_TURN_MAX: Final = 64
"""A turn that asks for more is answered for these, and told so for the rest."""
ARGUMENTS_CHARS_MAX: Final = 1_000_000
LOST_WHEN_TAINTED: Final = frozenset(("outbound", "write", "exec"))
NAME_CHARS_MAX: Final = 64
_UNNAMEABLE: Final = re.compile(r"[^A-Za-z0-9_-]")


class Allowed(NamedTuple):
    """A tool that the model may call."""

    spec: ToolSpec
    by_name: bool
    """The step names it; else a pattern such as `mcp.files.*` covers it."""


class ModelTools:
    """The tools of one loop.

    Args:
        names: As the step lists them; `<prefix>.*` stands for all tools of that prefix.

    Raises:
        AttemptError: `tool_unavailable`, retryable: one of the names is not known here (yet).
    """

    def __init__(self, tools: ToolCalls, received: Received, names: Sequence[str], *, clock: Clock) -> None:
        self._tools, self._received, self._clock = tools, received, clock
        self._allowed: dict[str, Allowed] = {}
        tenant = received.message.tenant
        found: dict[str, Allowed] = {}
        for name in names:
            if name.endswith(".*"):
                for spec in tools.specs(tenant):
                    if spec.tool.startswith(name[:-1]):
                        found.setdefault(spec.tool, Allowed(spec, by_name=False))
                continue
            named = tools.spec(tenant, name)
            if named is None:
                code = "tool_unavailable"
                raise try_later(code, f"no enabled version of the tool {name[:100]!r} is known here")
            found[name] = Allowed(named, by_name=True)
        for name in sorted(found):
            self._allowed[_offered_name(name, self._allowed)] = found[name]

    @property
    def offers(self) -> tuple[ToolOffer, ...]:
        """What the model is told that it may call, in an order that is the same in every process."""
        return tuple(
            ToolOffer(name=name, description=allowed.spec.description, parameters=allowed.spec.args)
            for name, allowed in self._allowed.items()
        )

    async def answer(
        self, call: ToolCallPart, place: tuple[int, int], log: RoundLog, workspace: Workspace, *, left_s: float
    ) -> rounds.Called:
        """What came of a call, stored. One that is stored already is not made again.

        Raises:
            AttemptError: `outcome_unknown`: it was begun, may not be made twice, and has no result.
        """
        known = log.calls.get(place)
        if known is not None:
            return known
        began_s = self._clock.monotonic_s()
        called = await self._made(call, place, log, workspace, left_s)
        duration_ms = int((self._clock.monotonic_s() - began_s) * 1000)
        await log.called(msgspec.structs.replace(called, duration_ms=duration_ms))
        return log.calls[place]

    async def _made(
        self, call: ToolCallPart, place: tuple[int, int], log: RoundLog, workspace: Workspace, left_s: float
    ) -> rounds.Called:
        order, (number, index) = self._received.order, place
        allowed = self._allowed.get(call.name)
        name = call.name[:100] if allowed is None else allowed.spec.tool
        fields: dict[str, Any] = {
            "decision": order.decision, "offer": order.offer, "start": log.start, "round": number, "call": index,
            "tool": name,
        }  # fmt: skip
        reason = self._refusal(call, index, log)
        if reason is not None or allowed is None:
            return rounds.Called(**fields, content=reason or "not allowed", code="tool_refused", refused=True)
        own_order = msgspec.structs.replace(order, path=f"{order.path}?call-{number}-{index}", tool=name)
        own = msgspec.structs.replace(self._received, order=own_order)
        try:
            prepared = self._tools.prepare(own, call.arguments.encode("utf-8", "replace"))
        except (AttemptError, msgspec.DecodeError, RecursionError) as error:
            return rounds.Called(**fields, content=f"{error}"[:2000], code="tool_args_invalid", refused=True)
        if allowed.spec.effect == "at_most_once":
            await self._begin(rounds.Begun(**fields), log)
        try:
            data = await self._tools.call(prepared, own, workspace, left_s=left_s)
        except AttemptError as error:
            return rounds.Called(
                **fields, content=str(error)[:2000], code=error.attempt_code, untrusted=_is_untrusted(allowed.spec)
            )
        content = _shown(data)
        return rounds.Called(**fields, content=content, untrusted=_is_untrusted(allowed.spec), bytes=len(data))

    async def _begin(self, begun: rounds.Begun, log: RoundLog) -> None:
        if (begun.round, begun.call) in log.begun or not await log.began(begun):
            code = "outcome_unknown"
            text = f"{begun.tool}: call {begun.call} of round {begun.round} was begun, and nobody knows how it ended"
            raise AttemptError(code, text, retryable=False)

    def _refusal(self, call: ToolCallPart, index: int, log: RoundLog) -> str | None:
        allowed = self._allowed.get(call.name)
        if allowed is None:
            return f"there is no tool {call.name[:100]!r} here; there are {', '.join(self._allowed)}"
        if index >= CALLS_PER_TURN_MAX:
            return f"at most {CALLS_PER_TURN_MAX} calls in one turn"
        if len(call.arguments) > ARGUMENTS_CHARS_MAX:
            return f"arguments of {len(call.arguments)} characters; at most {ARGUMENTS_CHARS_MAX}"
        is_tainted = any(called.untrusted for called in log.calls.values())
        if is_tainted and not allowed.by_name and allowed.spec.risk in LOST_WHEN_TAINTED:
            return f"{call.name}: not after content from outside was read; the step would have to allow it by its name"
        return None


def _is_untrusted(spec: ToolSpec) -> bool:
    """Its result was written by nobody we know: from the network, or from somebody's server or worker."""
    return spec.risk == "outbound" or spec.endpoint != subjects.BUILTIN


def _shown(data: bytes) -> str:
    """A result as the model sees it: text as it is, everything else as JSON, shortened."""
    value = msgspec.json.decode(data)
    text = value if isinstance(value, str) else codec.encode_value(value).decode()
    if len(text) <= RESULT_CHARS_MAX:
        return text
    return f"{text[:RESULT_CHARS_MAX]}\n[cut here: {len(text)} characters in all]"


def _offered_name(name: str, taken: dict[str, Allowed]) -> str:
    """A name that every provider takes; two tools never get the same."""
    plain = _UNNAMEABLE.sub("_", name)[:NAME_CHARS_MAX]
    offered, number = plain, 1
    while offered in taken:
        number += 1
        offered = f"{plain[: NAME_CHARS_MAX - 4]}_{number}"
    return offered
