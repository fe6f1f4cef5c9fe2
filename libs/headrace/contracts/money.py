"""Money and tokens, in whole numbers: costs in billionths of a dollar, unit prices in trillionths a token.

A price of `p` dollars a million tokens is a unit price of `p` · 1,000,000.
"""

from typing import Final

import msgspec

USD_NANOS: Final = 1_000_000_000
PICOS_PER_NANO: Final = 1_000


class Amount(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What something costs or may cost. Tokens are those in and out."""

    usd_nanos: int = 0
    tokens: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(usd_nanos=self.usd_nanos + other.usd_nanos, tokens=self.tokens + other.tokens)

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(usd_nanos=self.usd_nanos - other.usd_nanos, tokens=self.tokens - other.tokens)

    def __mul__(self, times: int) -> "Amount":
        return Amount(usd_nanos=self.usd_nanos * times, tokens=self.tokens * times)


NOTHING: Final = Amount()


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a model call used, in tokens."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    """Of the input: what the provider had at hand."""
    reasoning_tokens: int = 0
    """Of the output: what was thought and not said."""
    model: str = ""


class UnitPrices(msgspec.Struct, frozen=True, kw_only=True):
    """Trillionths of a dollar (10⁻¹² USD) a token. `cached` is a token of input that the provider had at hand."""

    input: int
    output: int
    cached: int
    reasoning: int


class Cost(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an attempt cost, and by which prices."""

    usd_nanos: int = 0
    tokens: int = 0
    table: str = ""
    """Version of the price table."""
    prices: dict[str, UnitPrices] = {}
    """`provider/model` → the prices that were applied. A model that is missing was called without a known price."""
    estimated: bool = False
    """A call was begun whose usage nobody told: counted as the most it can have cost."""

    @property
    def amount(self) -> Amount:
        """As budgets count it."""
        return Amount(usd_nanos=self.usd_nanos, tokens=self.tokens)


def usd_text(usd_nanos: int) -> str:
    """Billionths of a dollar for people, exactly: `$0.0021`, `$12.50`."""
    whole, rest = divmod(abs(usd_nanos), USD_NANOS)
    decimals = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{'-' if usd_nanos < 0 else ''}${whole}.{decimals}"
