"""What a plan means, as data and before anything runs: the steps with their defaults applied, in what order they may
start, and how many calls they make. `headrace plan` shows it.

Calls are counted without retries, `repeated` with all of them. A number that only a run can tell is null, and the step
is listed under `unknown`; one that may be zero, because of a condition, is `optional`.
"""

from collections.abc import Mapping
from typing import Any, Final

from headrace.contracts.codec import encode_value
from headrace.contracts.errors import ExpressionError
from headrace.pipeline.expressions import Expression, evaluate
from headrace.pipeline.plan import ROOT, Node, Plan, RetryPolicy
from headrace.pipeline.prices import PriceTable, shipped
from headrace.pipeline.pricing import ROUNDS, is_dynamic, models_of, most

CALLED: Final = ("llm", "tool", "pipeline")
"""Kinds whose attempts leave the engine."""


def overview(
    plan: Plan, inputs: Mapping[str, Any] | None = None, *, prices: PriceTable | None = None
) -> dict[str, Any]:
    """A JSON value; equal for equal plans and inputs.

    Args:
        inputs: With defaults applied, as far as they are known: what reads nothing else is evaluated.
        prices: Of models; the shipped table unless given.
    """
    table = shipped() if prices is None else prices
    values = {"inputs": dict(inputs or {}), "vars": dict(plan.vars)}
    levels = levels_of(plan)
    steps = [_step(plan, node, levels[node.index], values, table) for node in plan.nodes]
    return {
        "pipeline": plan.pipeline,
        "digest": plan.digest,
        "inputs": plan.inputs_schema["properties"],
        "limits": _without_nothing(
            {
                "deadline_ms": plan.deadline_ms,
                "max_parallel": plan.max_parallel,
                "budget": _budget(plan.budget),
                "concurrency": None
                if plan.concurrency is None
                else {
                    "key": plan.concurrency.key.source,
                    "max": plan.concurrency.max,
                    "on_excess": plan.concurrency.on_excess,
                },
            }
        ),
        "workspace": plan.workspace,
        "triggers": [{"event": trigger.event, "when": trigger.when} for trigger in plan.triggers]
        + [{"cron": cron.cron, "timezone": cron.timezone, "catch_up": cron.catch_up} for cron in plan.crons],
        "steps": steps,
        "outputs": {name: template.source for name, template in plan.outputs.items()},
        "calls": _totals(plan, steps),
        **_cost(steps, table),
    }


def levels_of(plan: Plan) -> list[int]:
    """For each node how many must have ended before it, one after the other, in its block: 0 may start at once."""
    levels = [0] * len(plan.nodes)
    for block in plan.blocks:
        waiting = {number: len(plan.nodes[number].needs) for number in block.nodes}
        ready = [number for number in block.nodes if waiting[number] == 0]
        while ready:
            number = ready.pop()
            for dependent in plan.nodes[number].dependents:
                levels[dependent] = max(levels[dependent], levels[number] + 1)
                waiting[dependent] -= 1
                if waiting[dependent] == 0:
                    ready.append(dependent)
    return levels


def _step(plan: Plan, node: Node, level: int, values: Mapping[str, Any], table: PriceTable) -> dict[str, Any]:
    names = plan.nodes
    foreach = node.foreach
    calls = _calls(plan, node, values)
    return _without_nothing(
        {
            "path": node.path,
            "kind": node.kind,
            "level": level,
            "needs": [names[other].id for other in node.needs if other not in node.optional],
            "after": [names[other].id for other in node.needs if other in node.optional],
            "does": what(node),
            "when": _shown(node.when),
            "foreach": None
            if foreach is None
            else _without_nothing(
                {
                    "items": _shown(foreach.items),
                    "as": foreach.alias,
                    "max_parallel": foreach.max_parallel,
                    "on_item_error": "continue" if foreach.continue_on_error else "fail",
                    "count": items_of(node, values),
                }
            ),
            "loop": _loop(node),
            "queue": node.queue if node.kind in ("llm", "tool", "transform") else None,
            "timeout_ms": node.timeout_ms,
            "deadline_ms": node.deadline_ms,
            "retry": _retry(node.retry),
            "effect": node.effect if node.kind in ("llm", "tool") else None,
            "on_error": "continue" if node.on_error_continue else None,
            "standby_for": None if node.standby_for is None else names[node.standby_for].id,
            "fallback": _fallback(plan, node),
            "compensate": None if node.compensate is None else names[node.compensate].id,
            "priority": node.priority or None,
            "labels": dict(node.labels) or None,
            "artifacts": list(node.artifacts) or None,
            "secrets": list(node.secrets) or None,
            "budget": _budget(node.budget),
            "calls": calls,
            "cost": None if calls is None else _cost_of_step(node, calls, table),
        }
    )


def what(node: Node) -> str:
    """What a step does, in a few words: its tool, model, child or name."""
    match node.kind:
        case "tool":
            return node.tool
        case "llm":
            model = node.spec.source.get("model", "") if isinstance(node.spec.source, dict) else ""
            return ", ".join(model) if isinstance(model, list) else str(model)
        case "pipeline":
            assert node.child is not None
            return node.child.pipeline + (f"@{node.child.digest[:12]}" if node.child.digest else "")
        case "signal":
            return "" if node.signal is None else node.signal.name
        case "emit":
            return node.emit
        case "approval":
            return "" if node.approval is None else ", ".join(node.approval.by)
        case "wait":
            return " ".join(map(str, next(iter(node.spec.source.items()))))
    return ""


def items_of(node: Node, values: Mapping[str, Any]) -> int | None:
    """How many items a `foreach` has, when its list reads nothing but what is known; None when only a run tells."""
    if node.foreach is None or not node.foreach.items.reads <= {"inputs", "vars"} or node.foreach.items.uses_files:
        return None
    try:
        found = evaluate(node.foreach.items, values)
    except ExpressionError:
        return None  # an input is not given: the run will say so
    return len(found) if isinstance(found, list) else None


def _calls(plan: Plan, node: Node, values: Mapping[str, Any]) -> dict[str, Any] | None:
    """How often it is called in one run, and how often with every retry."""
    if node.kind not in CALLED:
        return None
    count: int | None = 1
    repeated: int | None = node.retry.attempts
    optional = False
    here: Node | None = node
    while here is not None:
        times = _times(here, values)
        count = None if count is None or times is None else count * times
        again = here.retry.attempts if here is not node else 1
        repeated = None if repeated is None or times is None else repeated * times * again
        optional = optional or here.when is not None or here.standby_for is not None or here.kind == "switch"
        owner = plan.blocks[here.block].owner
        here = None if here.block == ROOT else plan.nodes[owner]
    rounds = _rounds(node)
    return {
        "count": None if count is None else count * rounds,
        "repeated": None if repeated is None else repeated * rounds,
        "optional": optional,
    }


def _rounds(node: Node) -> int:
    source = node.spec.source
    has_tools = node.kind == "llm" and isinstance(source, dict) and bool(source.get("tools"))
    return int(source.get("max_rounds", ROUNDS)) if has_tools else 1


def _cost_of_step(node: Node, calls: dict[str, Any], table: PriceTable) -> dict[str, Any] | None:
    """The most that one attempt of a model step costs, and all of them; what expressions bring is not in it."""
    if node.kind != "llm":
        return None
    source = node.spec.source
    if is_dynamic(source) or any(table.find(model) is None for model in models_of(source)):
        return {"attempt_usd_nanos": None}
    attempt = most(source, table, input_bytes=len(encode_value(source)))
    rounds = _rounds(node)
    attempts, repeated = calls["count"], calls["repeated"]
    return {
        "attempt_usd_nanos": attempt.usd_nanos,
        "attempt_tokens": attempt.tokens,
        "usual_usd_nanos": None if attempts is None else attempts // rounds * attempt.usd_nanos,
        "repeated_usd_nanos": None if repeated is None else repeated // rounds * attempt.usd_nanos,
    }


def _cost(steps: list[dict[str, Any]], table: PriceTable) -> dict[str, Any]:
    """What the models of a run cost at most; nothing when it calls none."""
    costs = {step["path"]: step["cost"] for step in steps if "cost" in step}
    if not costs:
        return {}
    known = [cost for cost in costs.values() if cost.get("usual_usd_nanos") is not None]
    return {
        "cost": {
            "table": table.version,
            "usual_usd_nanos": sum(cost["usual_usd_nanos"] for cost in known),
            "repeated_usd_nanos": sum(cost["repeated_usd_nanos"] for cost in known),
            "unknown": [path for path, cost in costs.items() if cost.get("usual_usd_nanos") is None],
        }
    }


def _times(node: Node, values: Mapping[str, Any]) -> int | None:
    if node.foreach is not None:
        return items_of(node, values)
    return 1 if node.loop is None else node.loop.max_iterations


def _totals(plan: Plan, steps: list[dict[str, Any]]) -> dict[str, Any]:
    totals: dict[str, Any] = {}
    for kind in CALLED:
        found = [step for step in steps if step["kind"] == kind]
        if not found:
            continue
        known = [step["calls"] for step in found if step["calls"]["count"] is not None]
        totals[kind] = {
            "least": sum(calls["count"] for calls in known if not calls["optional"]),
            "usual": sum(calls["count"] for calls in known),
            "repeated": sum(calls["repeated"] for calls in known),
            "unknown": [step["path"] for step in found if step["calls"]["count"] is None],
        }
    return totals


def _loop(node: Node) -> dict[str, Any] | None:
    if node.loop is None:
        return None
    return _without_nothing(
        {
            "until" if node.loop.is_until else "while": _shown(node.loop.condition),
            "max_iterations": node.loop.max_iterations,
            "on_limit": "ok" if node.loop.ok_on_limit else "fail",
            "carry": None if node.loop.start is None else node.loop.start.source,
        }
    )


def _retry(policy: RetryPolicy) -> dict[str, Any]:
    return {
        "attempts": policy.attempts,
        "initial_ms": policy.initial_ms,
        "max_ms": policy.max_ms,
        "on": list(policy.on),
    }


def _fallback(plan: Plan, node: Node) -> Any:
    if node.fallback is None:
        return None
    if node.fallback.node is not None:
        return plan.nodes[node.fallback.node].id
    assert node.fallback.value is not None
    return {"value": node.fallback.value.source}


def _budget(budget: Any) -> dict[str, Any] | None:
    if budget is None:
        return None
    usd = None if budget.usd_micros is None else budget.usd_micros / 1_000_000
    on_exceed = "pause" if budget.pause else "fail"
    return _without_nothing({"usd": usd, "tokens": budget.tokens, "on_exceed": on_exceed})


def _shown(part: Expression | None) -> str | None:
    return None if part is None else part.shown


def _without_nothing(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if value is not None and value != ""}
