"""What models cost: the price table that ships with this release (`prices.json`), and an operator's own on top of it.

The shipped one is taken from genai-prices (see docs/dependencies.md). `echo` and `script` cost nothing, and say so. No
floating point number holds money here: prices are decimal text until they are whole unit prices.
"""

import functools
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from importlib.resources import files
from typing import Any, Final

import msgspec

from headrace.contracts.events import Usage
from headrace.contracts.money import PICOS_PER_NANO, Amount, UnitPrices

FREE: Final = UnitPrices(input=0, output=0, cached=0, reasoning=0)
PICOS_PER_USD_A_MILLION: Final = 1_000_000
PRICE_MAX: Final = 1_000_000
"""US dollars a million tokens; the dearest model is three orders below."""
CONTEXT_MAX: Final = 1_000_000_000
ANY: Final = "*"
"""Stands for every model of a provider that has no entry of its own."""
_DATE: Final = re.compile(r"-\d{4}-?\d{2}-?\d{2}$", re.ASCII)
"""Vendors name a fixed state of a model by its date."""
UNITS: Final = ("input", "output", "cached", "reasoning")


class Tier(msgspec.Struct, frozen=True, kw_only=True):
    """Prices of calls whose input is longer than `above` tokens. They hold for the whole call."""

    above: int
    unit: UnitPrices


class ModelPrice(msgspec.Struct, frozen=True, kw_only=True):
    """What one model costs. `context`: tokens that one call can be given; 0 where that is not known."""

    unit: UnitPrices
    tiers: tuple[Tier, ...] = ()
    context: int = 0

    def at(self, input_tokens: int) -> UnitPrices:
        """The prices of a call with so much input."""
        return next((tier.unit for tier in reversed(self.tiers) if input_tokens > tier.above), self.unit)

    def most(self, input_tokens: int, output_tokens: int) -> Amount:
        """The most that a call can cost whose input and output are at most so long."""
        usd_picos = max(
            input_tokens * max(unit.input, unit.cached) + output_tokens * max(unit.output, unit.reasoning)
            for unit in (self.unit, *(tier.unit for tier in self.tiers if input_tokens > tier.above))
        )
        return Amount(usd_nanos=-(-usd_picos // PICOS_PER_NANO), tokens=input_tokens + output_tokens)


def cost_of(unit: UnitPrices, usage: Usage) -> Amount:
    """What a call cost, rounded up to a whole billionth of a dollar."""
    cached = min(usage.cached_tokens, usage.input_tokens)
    reasoning = min(usage.reasoning_tokens, usage.output_tokens)
    usd_picos = (
        (usage.input_tokens - cached) * unit.input
        + cached * unit.cached
        + (usage.output_tokens - reasoning) * unit.output
        + reasoning * unit.reasoning
    )
    return Amount(usd_nanos=-(-usd_picos // PICOS_PER_NANO), tokens=usage.input_tokens + usage.output_tokens)


class PriceTable:
    """Prices by `provider/model`, under one version."""

    def __init__(
        self, version: str, exact: Mapping[str, ModelPrice], begins: Mapping[str, ModelPrice] | None = None
    ) -> None:
        self.version = version
        self._exact = dict(exact)
        self._begins = dict(sorted((begins or {}).items(), key=lambda entry: -len(entry[0])))

    def find(self, model: str) -> ModelPrice | None:
        """The price of `provider/model`, or None when it is not known.

        Its own entry comes first, then that of the name without a date, then the longest beginning that ends where a
        word does, then that of the whole provider.
        """
        name = model.lower()
        found = self._exact.get(name) or self._exact.get(_DATE.sub("", name))
        if found is not None:
            return found
        for beginning, price in self._begins.items():
            if name.startswith(beginning) and name[len(beginning) : len(beginning) + 1] in ("", "-", "@", ":"):
                return price
        return self._exact.get(f"{name.partition('/')[0]}/{ANY}")

    def with_own(self, version: str, own: Mapping[str, ModelPrice]) -> "PriceTable":
        """This table with some entries of an operator's before it."""
        exact = {**self._exact, **own}
        begins = {beginning: price for beginning, price in self._begins.items() if not _is_replaced(beginning, own)}
        return PriceTable(version, exact, begins)


def _is_replaced(beginning: str, own: Mapping[str, ModelPrice]) -> bool:
    """An operator's price for a provider as a whole stands in for all that is known of it."""
    return f"{beginning.partition('/')[0]}/{ANY}" in own


@functools.cache
def shipped() -> PriceTable:
    """The table of this release."""
    text = files("headrace.pipeline").joinpath("prices.json").read_bytes()
    whole = msgspec.json.decode(text)
    exact = {f"{provider}/{ANY}": ModelPrice(unit=FREE) for provider in ("echo", "script")}
    begins: dict[str, ModelPrice] = {}
    for provider, rows in whole["models"].items():
        for row in rows:
            price = price_of(row, f"{provider}/{row['names'][0]}")
            exact |= {f"{provider}/{name.lower()}": price for name in row["names"]}
            begins |= {f"{provider}/{name.lower()}": price for name in row.get("begins", ())}
    return PriceTable(whole["version"], exact, begins)


def price_of(row: Mapping[str, Any], model: str) -> ModelPrice:
    """The price that a row of a table says. Raises ValueError with what does not fit."""
    context = row.get("context", 0)
    if not isinstance(context, int) or isinstance(context, bool) or not 0 <= context <= CONTEXT_MAX:
        msg = f"`context` is a whole number of tokens, not {str(context)[:60]}"
        raise ValueError(msg)
    tiers = tuple(Tier(above=tier["above"], unit=_unit(tier, model)) for tier in row.get("tiers", ()))
    return ModelPrice(unit=_unit(row, model), tiers=tiers, context=context)


def _unit(row: Mapping[str, Any], model: str) -> UnitPrices:
    given = {unit: _unit_price(row[unit], unit, model) for unit in UNITS if unit in row}
    return UnitPrices(
        input=given["input"],
        output=given["output"],
        cached=given.get("cached", given["input"]),
        reasoning=given.get("reasoning", given["output"]),
    )


def _unit_price(value: Any, unit: str, model: str) -> int:
    """US dollars a million tokens, as text or as a number, as a unit price."""
    try:
        usd = Decimal(str(value)) if not isinstance(value, bool) else Decimal("NaN")
    except InvalidOperation:
        usd = Decimal("NaN")
    if not usd.is_finite() or not 0 <= usd <= PRICE_MAX:
        msg = f"`{unit}` is {str(value)[:60]}; US dollars a million tokens, 0 to {PRICE_MAX}, are allowed"
        raise ValueError(msg)
    picos = usd * PICOS_PER_USD_A_MILLION
    if picos != int(picos):
        msg = f"`{unit}` of {model} is {usd}; at most six decimals are allowed"
        raise ValueError(msg)
    return int(picos)
