"""Whether an attempt may begin under the budgets that bound it, and what it may cost. Pure."""

from typing import NamedTuple

import msgspec

from headrace.contracts import events as ev
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

    Where too little is left and nothing comes back, the run is blocked until somebody allows more, or the step fails.

    Raises:
        ExpressionError: `budget_exceeded`, nobody is to be asked; `price_unknown`, only the
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
        text = _text(writer, path, account, budget, amount)
        if not budget.pause or writer.run.status != "running":
            raise ExpressionError(text, code="budget_exceeded")
        reason = f"{text}; allow more with `headrace approve {writer.run.run} --budget +{_more(lacking)}`"
        writer.emit(ev.RunBlocked(reason=reason, path=path, budget=account))
        return WAITING
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


def raise_budgets(writer: Writer) -> None:
    """What somebody has allowed: the budget that the run waits for grows, else the run's own."""
    run = writer.run
    while run.raises and run.status in ("running", "paused", "blocked"):
        more = run.raises[0]
        account = run.blocked_on if run.status == "blocked" and run.blocked_on is not None else OF_RUN
        writer.emit(ev.BudgetRaised(budget=account, usd_nanos=more.usd_nanos, tokens=more.tokens, reason=more.reason))
        if run.status == "blocked" and run.blocked_on is not None:
            writer.emit(ev.RunResumed())


def _more(lacking: Amount) -> str:
    """What has to be added at least, as the command line takes it."""
    if lacking.usd_nanos:
        return f"{usd_text(lacking.usd_nanos)[1:]}usd"
    return f"{lacking.tokens}tokens"


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
