"""Money on the command line: which prices count, and what a run, a step and each of its attempts cost."""

import os
from pathlib import Path
from typing import Any, Final

import msgspec

from headrace.client.history import RunView
from headrace.contracts.money import NOTHING, Amount, usd_text
from headrace.pipeline.price_files import table_of
from headrace.pipeline.prices import PriceTable

PRICES_FILE: Final = "HEADRACE_PRICES_FILE"


def price_table() -> PriceTable:
    """The table that services in this environment use. Raises ConfigError."""
    file = os.environ.get(PRICES_FILE, "")
    return table_of(Path(file) if file else None)


def step_costs(view: RunView) -> dict[str, str]:
    """By path, with all that is inside of a step, and each attempt on its own where there were several; empty when no
    model was called."""
    texts = {}
    for path, amount in view.spending.by_path.items():
        paid = [attempt for attempt in view.spending.attempts.get(path, ()) if attempt.amount != NOTHING]
        parts = " + ".join(
            f"{'~' if attempt.estimated else ''}{usd_text(attempt.amount.usd_nanos)}" for attempt in paid
        )
        texts[path] = (
            f"{usd_text(amount.usd_nanos)} = {parts}" if len(paid) > 1 else parts or usd_text(amount.usd_nanos)
        )
    return texts


def run_cost_lines(view: RunView) -> list[str]:
    """What the run cost; nothing when no model was called."""
    spending = view.spending
    if not spending.by_path and not spending.orphans:
        return []
    lines = ["", f"cost {_text(spending.total)}"]
    if spending.estimated != NOTHING:
        lines.append(f"of that estimated, because nobody told: {_text(spending.estimated)}")
    if spending.orphans:
        lines.append(f"beside that for work that counted no more: {_text(spending.orphaned)}")
    return lines


def run_cost_json(view: RunView) -> dict[str, Any]:
    """As `run_cost_lines`, for programs."""
    spending = view.spending
    return {
        **_json(spending.total),
        "estimated": _json(spending.estimated),
        "orphaned": _json(spending.orphaned),
        "orphans": [
            {"path": orphan.path, "attempt": orphan.attempt, **msgspec.to_builtins(orphan.cost)}
            for orphan in spending.orphans
        ],
    }


def attempt_costs_json(view: RunView, path: str) -> list[dict[str, Any]]:
    """What each attempt of a step cost, with the prices; attempts that called no model are left out."""
    return [
        {
            "attempt": attempt.number,
            **_json(attempt.amount),
            "estimated": attempt.estimated,
            "reserved": None if attempt.reserved is None else _json(attempt.reserved),
            "table": "" if attempt.cost is None else attempt.cost.table,
            "prices": {} if attempt.cost is None else msgspec.to_builtins(attempt.cost.prices),
            "usage": None if attempt.usage is None else msgspec.to_builtins(attempt.usage),
        }
        for attempt in view.spending.attempts.get(path, ())
        if attempt.cost is not None or attempt.reserved is not None
    ]


def _text(amount: Amount) -> str:
    return f"{usd_text(amount.usd_nanos)}, {amount.tokens} tokens"


def _json(amount: Amount) -> dict[str, Any]:
    return {"usd_nanos": amount.usd_nanos, "tokens": amount.tokens}
