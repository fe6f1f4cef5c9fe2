"""What one attempt spends on models: bounded before each call, counted after it. Pure.

A call whose end nobody told may have been billed, and is counted as the most it can have cost. Where the order carries
a reservation no call is begun that could cost more than is left of it.
"""

from typing import Any, Final

import msgspec

from headrace.contracts.errors import AttemptError
from headrace.contracts.events import Usage
from headrace.contracts.money import NOTHING, Amount, Cost, UnitPrices
from headrace.pipeline.prices import ModelPrice, PriceTable, cost_of
from headrace.pipeline.pricing import MESSAGE_BYTES, UNPRICED_HINT, output_tokens_of
from headrace_step_executor.providers.failures import ProviderError
from headrace_step_executor.providers.protocol import GenerateRequest

UNBILLED: Final = frozenset(
    {"auth", "context_too_long", "invalid_request", "overloaded", "provider_missing", "rate_limited", "unavailable"}
)
"""Errors by which a provider says that it has done nothing."""
NEVER_CONNECTED: Final = frozenset({"ConnectError", "ConnectTimeout", "ConnectionRefusedError", "gaierror"})
"""Below our own error, exceptions that say that nothing was sent, by their names: each SDK has its own."""


class Meter:
    """Of one attempt. `admit` each call, make it, then say `paid` or `failed`.

    Args:
        spec: The rendered fields of the `llm` step.
        reserved: What the attempt may cost; None where nothing bounds it.
    """

    def __init__(self, table: PriceTable, spec: Any, reserved: Amount | None) -> None:
        self._table, self._spec = table, spec if isinstance(spec, dict) else {}
        self._reserved = reserved
        self._spent = NOTHING
        self._prices: dict[str, UnitPrices] = {}
        self._open: tuple[str, Amount] | None = None
        self._estimated = False

    @property
    def cost(self) -> Cost | None:
        """Of all calls so far; None when none was begun. One that is still under way counts as lost."""
        amount = self._spent + (NOTHING if self._open is None else self._open[1])
        if not self._prices and amount == NOTHING and not self._estimated:
            return None
        return Cost(
            usd_nanos=amount.usd_nanos,
            tokens=amount.tokens,
            table=self._table.version,
            prices=self._prices,
            estimated=self._estimated or self._open is not None,
        )

    def admit(self, model: str, request: GenerateRequest) -> GenerateRequest:
        """The call as it may be made: under a reservation it always says how long its answer may be.

        Args:
            model: `provider/model`.

        Raises:
            AttemptError: `price_unknown`, or `budget_exceeded`: it could cost more than is left.
        """
        price = self._table.find(model)
        if price is None and not self._spec.get("allow_unpriced", False):
            code = "price_unknown"
            raise AttemptError(code, f"no price is known for model `{model[:100]}`; {UNPRICED_HINT}", retryable=False)
        output = request.max_tokens or output_tokens_of(self._spec)
        bound = _most(price, bytes_of(request), output)
        left = None if self._reserved is None else self._reserved - self._spent
        if left is not None:
            if bound.usd_nanos > left.usd_nanos or bound.tokens > left.tokens:
                code = "budget_exceeded"
                text = (
                    f"a call of `{model[:100]}` may cost {bound.usd_nanos} billionths of a dollar and {bound.tokens} "
                    f"tokens; {max(0, left.usd_nanos)} and {max(0, left.tokens)} are left of the attempt's reservation"
                )
                raise AttemptError(code, text, retryable=False)
            request = msgspec.structs.replace(request, max_tokens=output)
        self._open = (model, bound)
        return request

    @property
    def calling(self) -> bool:
        """A call was admitted, and nobody has said how it ended."""
        return self._open is not None

    def withdrawn(self) -> None:
        """The call that was admitted is not made."""
        self._open = None

    def paid(self, usage: Usage) -> None:
        """The call has ended, and used so much."""
        assert self._open is not None
        (model, _), self._open = self._open, None
        self.recalled(model, usage)

    def recalled(self, model: str, usage: Usage) -> None:
        """An earlier holder of this attempt made a call, and recorded what it used."""
        price = self._table.find(model)
        if price is None:
            self._spent += Amount(tokens=usage.input_tokens + usage.output_tokens)
            return
        unit = price.at(usage.input_tokens)
        self._prices[model] = unit
        self._spent += cost_of(unit, usage)

    def failed(self, error: BaseException) -> Usage | None:
        """The call has ended without an answer; gives what it used, where the provider said so all the same."""
        assert self._open is not None
        usage = error.usage if isinstance(error, ProviderError) else None
        if usage is not None:
            self.paid(usage)
            return usage
        (_, bound), self._open = self._open, None
        if not _is_unbilled(error):
            self._spent += bound
            self._estimated = True
        return None


def bytes_of(request: GenerateRequest) -> int:
    """Bytes of all that the model reads, which are at least as many as its tokens.

    As they stand in the step's fields, so that a call is never found longer here than where it was reserved.
    """
    said = sum(len(msgspec.json.encode(message.content)) + MESSAGE_BYTES for message in request.messages)
    return said + len(msgspec.json.encode((request.options, request.tools, request.output_schema)))


def _most(price: ModelPrice | None, given: int, output: int) -> Amount:
    return Amount(tokens=given + output) if price is None else price.most(given, output)


def _is_unbilled(error: BaseException) -> bool:
    if isinstance(error, AttemptError) and error.attempt_code in UNBILLED:
        return True
    cause: BaseException | None = error
    while cause is not None:
        if type(cause).__name__ in NEVER_CONNECTED:
            return True
        cause = cause.__cause__ or cause.__context__
    return False
