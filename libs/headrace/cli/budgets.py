"""`approve RUN --budget +2usd`: a run may cost more."""

import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Final

from headrace.cli.connection import connected
from headrace.cli.interrupt import run_interruptible
from headrace.cli.output import UsageError, emit, note, say
from headrace.contracts import names
from headrace.contracts.money import USD_NANOS, Amount
from headrace.pipeline.quantities import parse_count

_USD: Final = re.compile(r"\+(\d{1,6}(?:\.\d{1,9})?)usd", re.ASCII)
_TOKENS: Final = re.compile(r"\+(\d{1,9}[kMG]?)tokens", re.ASCII)


def budget_command(run: str, more: Sequence[str], *, reason: str, data_dir: Path | None, as_json: bool) -> int:
    """Raise the budget that the run waits for, else its own; returns once that is stored."""
    amount = parse_raise(more)

    async def work() -> int:
        async with connected(data_dir) as link:
            await link.client.raise_budget(run, usd_nanos=amount.usd_nanos, tokens=amount.tokens, reason=reason)
            if as_json:
                emit({"event": "budget.accepted", "run": run, "usd_nanos": amount.usd_nanos, "tokens": amount.tokens})
            else:
                say(f"more for run {run} is accepted")
            return names.EXIT_OK

    return run_interruptible(work(), detached=lambda: note("it may be stored; look at the run's events"))


def parse_raise(more: Sequence[str]) -> Amount:
    """The sum of what is given, such as `+2usd` or `+500ktokens`. Raises UsageError."""
    usd_nanos = tokens = 0
    for text in more:
        if (usd := _USD.fullmatch(text)) is not None:
            usd_nanos += int(Decimal(usd[1]) * USD_NANOS)
        elif (counted := _TOKENS.fullmatch(text)) is not None:
            tokens += parse_count(counted[1] if counted[1][-1] in "kMG" else int(counted[1]))
        else:
            msg = f"--budget {text[:60]}: expected such as +2usd, +0.50usd or +500ktokens"
            raise UsageError(msg)
    return Amount(usd_nanos=usd_nanos, tokens=tokens)
