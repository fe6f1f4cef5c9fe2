"""What a run has spent and what it has set aside, by budget. Pure: the part of the fold that counts money.

An attempt under a budget reserves the most that it can cost. It settles when it is over: at what its report says, else
at what was reserved. A holder of its order that died may have made the call, so each is charged the reservation, too.
Nothing ever gives back what was spent: not a retry, not a crash, not another attempt of what is around the step.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from headrace.contracts import events as ev
from headrace.contracts.money import NOTHING, Amount
from headrace.pipeline.plan import Budget, Plan, node_of
from headrace_scheduler.records import RUNNING, Account, Inst, Run

OF_RUN: Final = ""
"""The account of the run's own budget. A step's has the step's static path: it holds for all that the step does in the
run, in every item, iteration and attempt."""
NANOS_PER_MICRO: Final = 1_000
_FRESH: Final = Account()


def budgets_of(plan: Plan, path: str) -> Mapping[str, Budget]:
    """Account → budget, for everything that bounds what an instance costs."""
    if "?" in path:
        return {}
    node = node_of(plan, path)
    if node.kind != "llm" or (plan.budget is None and node.budget is None):
        return {}
    found = {OF_RUN: plan.budget, node.path: node.budget}
    return {account: budget for account, budget in found.items() if budget is not None}


def reserve(run: Run, plan: Plan, inst: Inst, amount: Amount | None) -> None:
    """An attempt begins, and may cost so much."""
    inst.reserved = amount
    if amount is not None:
        inst.accounts = tuple(budgets_of(plan, inst.path))
        for account in inst.accounts:
            held = run.ledger.get(account, _FRESH)
            run.ledger[account] = msgspec.structs.replace(held, reserved=held.reserved + amount)


def settle(run: Run, inst: Inst) -> None:
    """The instance leaves its status: an attempt that is over by that has cost what its report says, or its most.

    One that an executor put off is not over: its reservation stands.
    """
    reserved = inst.reserved
    if reserved is None or (inst.report is not None and inst.report.deferred):
        return
    if inst.report is not None and inst.report.cost is not None:
        cost = inst.report.cost.amount
    else:
        cost = reserved if inst.status == RUNNING else NOTHING
    for account in inst.accounts:
        held = run.ledger[account]
        run.ledger[account] = msgspec.structs.replace(held, reserved=held.reserved - reserved, spent=held.spent + cost)
    inst.reserved, inst.accounts = None, ()


def charge_lost(run: Run, inst: Inst, holders: int) -> None:
    """So many holders of an attempt's order have died, and may have made its call."""
    if inst.reserved is not None:
        for account in inst.accounts:
            held = run.ledger[account]
            run.ledger[account] = msgspec.structs.replace(held, spent=held.spent + inst.reserved * holders)


def raise_limit(run: Run, event: ev.BudgetRaised) -> None:
    """The oldest of what was allowed counts from here on."""
    held = run.ledger.get(event.budget, _FRESH)
    more = Amount(usd_nanos=event.usd_nanos, tokens=event.tokens)
    run.ledger[event.budget] = msgspec.structs.replace(held, raised=held.raised + more)
    run.raises = run.raises[1:]


def affords_again(run: Run, plan: Plan, inst: Inst) -> bool:
    """True when one more holder of the attempt's order may die: what it reserved is left once more."""
    if inst.reserved is None:
        return True
    return all(
        shortage(run, account, budget, inst.reserved) is None for account, budget in budgets_of(plan, inst.path).items()
    )


def shortage(run: Run, account: str, budget: Budget, amount: Amount) -> Amount | None:
    """How much of an amount a budget lacks beside what is spent and set aside; None when it fits."""
    held = run.ledger.get(account, _FRESH)
    taken = held.spent + held.reserved + amount - held.raised
    usd_nanos = 0 if budget.usd_micros is None else taken.usd_nanos - budget.usd_micros * NANOS_PER_MICRO
    tokens = 0 if budget.tokens is None else taken.tokens - budget.tokens
    return Amount(usd_nanos=max(0, usd_nanos), tokens=max(0, tokens)) if usd_nanos > 0 or tokens > 0 else None


def is_waited_for(run: Run, account: str) -> bool:
    """True while something is set aside in it: what is not spent of that comes back."""
    return run.ledger.get(account, _FRESH).reserved != NOTHING
