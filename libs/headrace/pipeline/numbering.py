"""Checked steps → nodes and blocks: names become integers, and defaults are applied."""

from collections.abc import Mapping
from decimal import ROUND_DOWN, Decimal
from typing import Any, Final

from headrace.contracts import names
from headrace.pipeline.checked import Checked, CheckedBlock, CheckedStep
from headrace.pipeline.durations import parse_duration_ms
from headrace.pipeline.plan import (
    Approval,
    Block,
    Budget,
    Cache,
    Child,
    Fallback,
    Foreach,
    Loop,
    Node,
    RetryPolicy,
    Signal,
    loop_name,
)
from headrace.pipeline.quantities import parse_count

_QUEUES: Final = {"llm": "llm", "tool": "tool", "transform": "transform"}
"""Other kinds are no orders themselves; what has to be evaluated for them is a transform."""
_CALLED: Final = ("llm", "tool", "transform", "pipeline")
"""Kinds to which the defaults of the file apply; a group is as long as its steps."""
_WAITING: Final = ("wait", "signal", "approval", "emit")
_MICROS: Final = 1_000_000


def duration_ms(record: Mapping[str, Any], key: str, default_ms: int) -> int:
    """A checked duration of a record, or the default."""
    return parse_duration_ms(record[key]) if key in record else default_ms


def budget_of(given: Mapping[str, Any] | None) -> Budget | None:
    """A checked budget."""
    if given is None:
        return None
    return Budget(
        usd_micros=int((Decimal(str(given["usd"])) * _MICROS).to_integral_value(ROUND_DOWN))
        if "usd" in given
        else None,
        tokens=parse_count(given["tokens"]) if "tokens" in given else None,
        pause=given.get("on_exceed", "pause") == "pause",
    )


class Numbering:
    """Numbers the blocks of a checked document breadth first, and their steps by id."""

    def __init__(self, checked: Checked) -> None:
        self.blocks: list[CheckedBlock] = [checked.root]
        self.owners: list[int] = [-1]
        self.steps: list[tuple[CheckedStep, int]] = []
        """With the block that each stands in."""
        self.index: list[dict[str, int]] = []
        """For each block: id → node."""
        self.visible: list[dict[str, int]] = []
        """Likewise, with those of the blocks around."""
        self.inner: dict[int, tuple[int, ...]] = {}
        """Node → its blocks."""
        number = 0
        while number < len(self.blocks):
            self._number(number)
            number += 1

    def _number(self, number: int) -> None:
        block, owner = self.blocks[number], self.owners[number]
        ids = {step.id: len(self.steps) + place for place, step in enumerate(block.steps)}
        around = self.visible[self.steps[owner][1]] if owner >= 0 else {}
        self.index.append(ids)
        self.visible.append({**around, **ids})
        for step in block.steps:
            node = len(self.steps)
            self.steps.append((step, number))
            first = len(self.blocks)
            self.blocks += step.blocks
            self.owners += [node] * len(step.blocks)
            self.inner[node] = tuple(range(first, first + len(step.blocks)))

    def compile(
        self, defaults: Mapping[str, Any], children: Mapping[str, Child]
    ) -> tuple[tuple[Block, ...], tuple[Node, ...]]:
        """The blocks and the nodes of the plan."""
        dependents: list[list[int]] = [[] for _ in self.steps]
        for node, (step, block) in enumerate(self.steps):
            for other in step.after:
                dependents[self.index[block][other]].append(node)
        nodes = tuple(
            self._node(number, tuple(dependents[number]), defaults, children) for number in range(len(self.steps))
        )
        blocks = tuple(
            Block(
                index=number,
                owner=self.owners[number],
                nodes=tuple(self.index[number].values()),
                visible=self.visible[number],
                outputs=block.outputs,
                when=block.when,
            )
            for number, block in enumerate(self.blocks)
        )
        return blocks, nodes

    def _node(
        self, number: int, dependents: tuple[int, ...], defaults: Mapping[str, Any], children: Mapping[str, Child]
    ) -> Node:
        step, block = self.steps[number]
        ids, visible = self.index[block], self.visible[block]
        body = step.body
        workspace = _touches_workspace(step)
        timeout_ms, deadline_ms = _times(step, defaults)
        compensate = body.get("compensate")
        return Node(
            index=number,
            id=step.id,
            kind=step.kind,
            needs=tuple(sorted(ids[other] for other in step.after)),
            optional=frozenset(ids[other] for other in step.optional),
            dependents=dependents,
            spec=step.spec,
            queue=_queue(step, workspace=workspace),
            when=step.when,
            foreach=_foreach(step),
            tool=body.get("tool", ""),
            child=children.get(body["pipeline"]) or _registered(body["pipeline"]) if step.kind == "pipeline" else None,
            retry=_retry(step, defaults),
            timeout_ms=timeout_ms,
            deadline_ms=deadline_ms,
            effect=body.get("effect", _own_effect(step)),
            on_unknown=body.get("on_unknown", "fail"),
            on_error_continue=body.get("on_error", "fail") == "continue",
            workspace=workspace,
            artifacts=tuple(body.get("artifacts", ())),
            priority=body.get("priority", 0),
            labels=body.get("labels", {}),
            path=step.path,
            block=block,
            blocks=self.inner[number],
            outer=tuple(sorted(visible[other] for other in step.outer)),
            loop=_loop(step),
            signal=_signal(body["signal"]) if step.kind == "signal" else None,
            approval=_approval(body["approval"]) if step.kind == "approval" else None,
            emit=body["emit"]["name"] if step.kind == "emit" else "",
            fallback=_fallback(step, ids),
            compensate=None if compensate is None else ids[compensate],
            standby_for=ids[step.standby_for] if step.standby_for else None,
            cache=_cache(step),
            secrets=_secrets(step),
            version=body.get("version", ""),
            budget=budget_of(body.get("budget")),
        )


def _queue(step: CheckedStep, *, workspace: bool) -> str:
    label = f"-{step.body['queue']}" if "queue" in step.body else ""
    return _QUEUES.get(step.kind, "transform") + ("-ws" if workspace else "") + label


def _times(step: CheckedStep, defaults: Mapping[str, Any]) -> tuple[int, int]:
    """Timeout and deadline. The usual minutes and hour are for calls: not for groups, nor for waiting."""
    body = step.body
    if step.kind not in _CALLED:
        longest = names.DURATION_MS_MAX
        return duration_ms(body, "timeout", longest), duration_ms(body, "deadline", longest)
    if step.kind == "pipeline":
        timeout_ms = duration_ms(body, "timeout", names.STEP_DEADLINE_MS)
    else:
        timeout_ms = duration_ms(body, "timeout", duration_ms(defaults, "timeout", names.ATTEMPT_TIMEOUT_MS))
    if "deadline" in body:
        return timeout_ms, parse_duration_ms(body["deadline"])
    if "deadline" in defaults and "timeout" not in body:
        return timeout_ms, parse_duration_ms(defaults["deadline"])
    # One attempt may take as long as its own step says, whatever is usual for all of them.
    return timeout_ms, max(timeout_ms, duration_ms(defaults, "deadline", names.STEP_DEADLINE_MS))


def _touches_workspace(step: CheckedStep) -> bool:
    """Whether its attempts run only where the run's files are."""
    if step.body.get("artifacts") or step.spec.uses_files:
        return True
    return any(tool.workspace for tool in (step.tool, *step.tools) if tool is not None)


def _own_effect(step: CheckedStep) -> str:
    if step.tool is not None:
        return step.tool.effect
    return "pure" if step.kind == "transform" else "idempotent"


def _foreach(step: CheckedStep) -> Foreach | None:
    if step.items is None:
        return None
    depth = step.scope.foreach_depth - 1
    return Foreach(
        items=step.items,
        item_name=loop_name("item", depth),
        max_parallel=step.body.get("max_parallel", names.FOREACH_MAX_PARALLEL),
        continue_on_error=step.body.get("on_item_error", "fail") == "continue",
        alias=step.body.get("as", "item"),
        index_name=loop_name("index", depth),
    )


def _loop(step: CheckedStep) -> Loop | None:
    if step.condition is None:
        return None
    depth = step.scope.while_depth - 1
    return Loop(
        condition=step.condition,
        is_until="until" in step.body,
        max_iterations=step.body["max_iterations"],
        ok_on_limit=step.body.get("on_limit", "fail") == "ok",
        start=step.start,
        carry_name=loop_name("carry", depth),
        iteration_name=loop_name("iteration", depth),
    )


def _retry(step: CheckedStep, defaults: Mapping[str, Any]) -> RetryPolicy:
    """A group is tried once unless it says otherwise: its steps are tried again on their own."""
    given = step.body.get("retry", {})
    if step.kind in _CALLED:
        given = {**defaults.get("retry", {}), **given}
        attempts = names.RETRY_ATTEMPTS
    else:
        attempts = names.RETRY_ATTEMPTS if given else 1
    initial_ms = duration_ms(given, "initial", names.RETRY_INITIAL_MS)
    return RetryPolicy(
        attempts=given.get("attempts", attempts),
        initial_ms=initial_ms,
        max_ms=duration_ms(given, "max", max(names.RETRY_MAX_MS, initial_ms)),
        on=tuple(given.get("on", ())),
    )


def _signal(given: Mapping[str, Any]) -> Signal:
    return Signal(
        name=given["name"],
        schema=given.get("schema", True),
        timeout_ms=duration_ms(given, "timeout", names.DURATION_MS_MAX),
        skip_on_timeout=given.get("on_timeout", "fail") == "skip",
    )


def _approval(given: Mapping[str, Any]) -> Approval:
    return Approval(
        by=tuple(given.get("by", ())),
        timeout_ms=duration_ms(given, "timeout", names.DURATION_MS_MAX),
        skip_on_timeout=given.get("on_timeout", "fail") == "skip",
    )


def _fallback(step: CheckedStep, ids: Mapping[str, int]) -> Fallback | None:
    given = step.body.get("fallback")
    if isinstance(given, str):
        return Fallback(node=ids[given])
    return None if step.fallback_value is None else Fallback(value=step.fallback_value)


def _cache(step: CheckedStep) -> Cache | None:
    if step.cache_key is None:
        return None
    return Cache(key=step.cache_key, ttl_ms=parse_duration_ms(step.body["cache"]["ttl"]))


def _secrets(step: CheckedStep) -> tuple[str, ...]:
    """The secrets that the spec reads, sorted."""
    return tuple(
        sorted(
            {
                reference.path[0]
                for found in step.spec.found
                for reference in found.expression.references
                if reference.root == "secrets"
            }
        )
    )


def _registered(reference: str) -> Child:
    name, _, digest = reference.partition("@")
    return Child(pipeline=name, digest=digest)
