"""Make libs/headrace/pipeline/prices.json from the genai-prices that is installed: `write_prices.py 2026-11-25`.

Install it into an environment of its own for this; the product does not depend on the package. What is taken:
text prices of the three vendors that have an adapter, as they stand on the day given, without discounts for batches or
times of day. Names that a rule of the package describes by an ending or by two conditions are left out.
"""

import datetime
import importlib
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parents[3] / "libs/headrace/pipeline/prices.json"
PROVIDERS = ("anthropic", "google", "openai")
UNITS = {"input": "input_mtok", "output": "output_mtok", "cached": "cache_read_mtok"}


def main(taken: str) -> None:
    """Write the table as of an ISO date."""
    on = datetime.date.fromisoformat(taken)
    providers = importlib.import_module("genai_prices.data").providers
    models = {
        provider.id: [row for model in provider.models if (row := _row(model, on)) is not None]
        for provider in sorted(providers, key=lambda provider: provider.id)
        if provider.id in PROVIDERS
    }
    lines = [
        f'  "{provider}": [\n' + ",\n".join(f"    {json.dumps(row)}" for row in rows) + "\n  ]"
        for provider, rows in models.items()
    ]
    head = f'{{"version": "genai-prices {version("genai-prices")} {taken}", "models": {{\n'
    TARGET.write_text(head + ",\n".join(lines) + "\n}}\n", encoding="utf-8")


def _row(model: Any, on: datetime.date) -> dict[str, Any] | None:
    prices = model.prices
    if isinstance(prices, list):
        prices = [
            one.prices
            for one in prices
            if one.constraint is None or getattr(one.constraint, "start_date", datetime.date.max) <= on
        ][-1]
    found = {ours: getattr(prices, theirs, None) for ours, theirs in UNITS.items()}
    if found["input"] is None or found["output"] is None:
        return None  # not sold by tokens of text
    names, begins = _names(model.match)
    row: dict[str, Any] = {"names": sorted({model.id, *names}), "begins": sorted(begins)}
    if not row["begins"]:
        del row["begins"]
    if model.context_window:
        row["context"] = model.context_window
    row |= {unit: str(getattr(price, "base", price)) for unit, price in found.items() if price is not None}
    starts = sorted({tier.start for price in found.values() for tier in getattr(price, "tiers", ())})
    if starts:
        row["tiers"] = [{"above": start, **_at(found, start)} for start in starts]
    return row


def _at(found: dict[str, Any], start: int) -> dict[str, str]:
    """The prices of a prompt longer than `start`."""
    prices: dict[str, str] = {}
    for unit, price in found.items():
        if price is not None:
            tiers = [tier.price for tier in getattr(price, "tiers", ()) if tier.start <= start]
            prices[unit] = str(tiers[-1] if tiers else getattr(price, "base", price))
    return prices


def _names(clause: Any) -> tuple[set[str], set[str]]:
    """(whole names, beginnings). A date at the end of a name is left to whoever looks it up."""
    names: set[str] = set()
    begins: set[str] = set()
    if hasattr(clause, "equals"):
        names.add(clause.equals)
    elif hasattr(clause, "starts_with"):
        begins.add(clause.starts_with)
    elif hasattr(clause, "contains"):
        begins.add(clause.contains.rstrip("@"))
    for inner in getattr(clause, "or_", ()):
        more_names, more_begins = _names(inner)
        names |= more_names
        begins |= more_begins
    return names, begins


if __name__ == "__main__":
    main(sys.argv[1])
