"""Whether an attempt may begin under the budgets that bound it, and what it may cost. Pure."""

from typing import NamedTuple

import msgspec

from headrace.contracts.errors import ExpressionError
from headrace.contracts.money import Amount, usd_text
from headrace.pipeline.plan import Budget
from headrace.pipeline.pricing import is_dynamic, most
from headrace_scheduler.draft import Writer
from headrace_scheduler.ledger import OF_RUN, budgets_of, is_waited_for, shortage
from headrace_scheduler.orders import Content


class Hold(NamedTuple):
    """What an attempt sets aside; None where nothing bounds it. It waits while others may give back what it needs."""

    waits: bool
    amount: Amount | None = None


FREE = Hold(waits=False)
WAITING = Hold(waits=True)


def hold(writer: Writer, path: str, content: Content) -> Hold:
    """What the attempt is to set aside.

    Raises:
        ExpressionError: `budget_exceeded`, too little is left and nothing comes back; `price_unknown`, only the
        executor will know which model is called.
    """
    budgets = budgets_of(writer.plan, path)
    if not budgets:
        return FREE
    amount = _most(writer, path, content)
    for account, budget in budgets.items():
        lacking = shortage(writer.run, account, budget, amount)
        if lacking is None:
            continue
        if is_waited_for(writer.run, account):
            return WAITING
        raise ExpressionError(_text(writer, path, account, budget, amount), code="budget_exceeded")
    return Hold(waits=False, amount=amount)


def _most(writer: Writer, path: str, content: Content) -> Amount:
    rendered = content.input is not None
    data = content.input if content.input is not None else content.template
    assert data is not None, path
    spec = msgspec.json.decode(data)
    if is_dynamic(spec):
        message = f"{path}: which model is called is known to the executor alone, and the budget has to know it before"
        raise ExpressionError(message, code="price_unknown")
    return most(spec, writer.prices, input_bytes=len(data) if rendered else None)


def _text(writer: Writer, path: str, account: str, budget: Budget, amount: Amount) -> str:
    held = writer.run.ledger.get(account)
    spent = Amount() if held is None else held.spent
    whose = "the run" if account == OF_RUN else f"step `{account}`"
    limits = [usd_text(budget.usd_micros * 1_000)] if budget.usd_micros is not None else []
    limits += [f"{budget.tokens} tokens"] if budget.tokens is not None else []
    return (
        f"{path}: an attempt may cost {usd_text(amount.usd_nanos)} and {amount.tokens} tokens; of the "
        f"{' and '.join(limits)} that {whose} may cost, {usd_text(spent.usd_nanos)} and {spent.tokens} tokens are spent"
    )
