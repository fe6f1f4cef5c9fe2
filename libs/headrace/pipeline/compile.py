"""Definition → plan: names become integers, defaults are applied, expressions are compiled.

The scheduler compiles what it stored; a definition is checked again here, because another release may have stored it.
"""

from collections.abc import Mapping
from typing import Any, Final

from headrace.contracts import names
from headrace.contracts.errors import NotFoundError
from headrace.contracts.events import ToolSpec, TriggerSpec
from headrace.pipeline.definitions import Definition, decode_definition, is_file
from headrace.pipeline.durations import parse_duration_ms
from headrace.pipeline.graph import Checked, CheckedStep, check_graph
from headrace.pipeline.plan import Child, Foreach, Node, Plan, RetryPolicy
from headrace.pipeline.positions import Positions
from headrace.pipeline.problems import RefusedDefinitionError
from headrace.pipeline.validate import Report, check_shapes

_QUEUES: Final = {"llm": "llm", "tool": "tool", "transform": "transform", "pipeline": "transform", "wait": "transform"}
"""A child or a timer is no order itself; what has to be evaluated for it is."""


def compile_plan(definition: bytes | Definition, *, catalogue: Mapping[str, ToolSpec] | None = None) -> Plan:
    """The plan of a definition's main document.

    Args:
        definition: Stored bytes, or what `load_bundle` gives as `definition`.
        catalogue: The tools that exist; without it only built-in names are checked.

    Raises:
        DefinitionError: this release refuses the document.
        DataError: the bytes are no definition.
    """
    whole = decode_definition(definition) if isinstance(definition, bytes) else definition
    report = Report("definition", Positions())
    checked = check_document(whole.main, report, catalogue)
    if checked is None or report.found:
        raise RefusedDefinitionError(report.found)
    return plan_of(whole, checked)


def plan_for(definition: bytes | Definition, digest: str) -> Plan:
    """The plan of the document in a definition that has this digest: the main one, or a child at any depth.

    Raises:
        NotFoundError: no document of the definition has it.
    """
    pending = [decode_definition(definition) if isinstance(definition, bytes) else definition]
    seen: set[str] = set()
    while pending:
        candidate = pending.pop()
        own = candidate.digest()
        if own == digest:
            return compile_plan(candidate)
        if own not in seen:
            seen.add(own)
            pending += children_of(candidate).values()
    msg = f"the definition holds no document with digest {digest}"
    raise NotFoundError(msg)


def children_of(definition: Definition) -> dict[str, Definition]:
    """The definitions of the files that the main document names, by name as written."""
    steps = definition.main.get("steps", {})
    found = (body.get("pipeline") for body in steps.values() if isinstance(body, dict))
    return {name: definition.child(name) for name in found if isinstance(name, str) and is_file(name)}


def check_document(document: Any, report: Report, catalogue: Mapping[str, ToolSpec] | None = None) -> Checked | None:
    """Everything wrong with one document goes to the report; None when not even its outline holds."""
    sound = check_shapes(document, report)
    return None if sound is None else check_graph(document, sound, report, catalogue)


def plan_of(definition: Definition, checked: Checked) -> Plan:
    """The plan of a document that was checked without finding."""
    document = definition.main
    index = {step.id: number for number, step in enumerate(checked.steps)}
    dependents: dict[str, list[int]] = {step.id: [] for step in checked.steps}
    for step in checked.steps:
        for other in step.after:
            dependents[other].append(index[step.id])
    named = {reference: _child_of(child) for reference, child in children_of(definition).items()}
    nodes = tuple(
        _node(step, document.get("defaults", {}), index=index, dependents=tuple(dependents[step.id]), children=named)
        for step in checked.steps
    )
    limits = document.get("limits", {})
    return Plan(
        digest=definition.digest(),
        pipeline=document["pipeline"],
        nodes=nodes,
        by_id={node.id: node for node in nodes},
        inputs_schema=inputs_schema(document.get("inputs", {})),
        outputs=checked.outputs,
        vars=document.get("vars", {}),
        deadline_ms=_duration(limits, "deadline", names.RUN_DEADLINE_MS),
        max_parallel=limits.get("max_parallel", names.RUN_MAX_PARALLEL),
        workspace=document.get("workspace", any(node.workspace for node in nodes)),
        labels=document.get("labels", {}),
        triggers=tuple(
            TriggerSpec(event=given["event"], when=condition, inputs=given.get("inputs", {}))
            for given, condition in zip(document.get("triggers", ()), checked.triggers, strict=True)
        ),
    )


def _duration(record: Mapping[str, Any], key: str, default_ms: int) -> int:
    return parse_duration_ms(record[key]) if key in record else default_ms


def _node(
    step: CheckedStep,
    defaults: Mapping[str, Any],
    *,
    index: Mapping[str, int],
    dependents: tuple[int, ...],
    children: Mapping[str, Child],
) -> Node:
    body = step.body
    workspace = _touches_workspace(step)
    tool_effect = step.tool.effect if step.tool is not None else "pure" if step.kind == "transform" else "idempotent"
    attempt_ms = names.STEP_DEADLINE_MS if step.kind == "pipeline" else names.ATTEMPT_TIMEOUT_MS
    is_child = step.kind == "pipeline"
    deadline_ms = _duration(body, "deadline", _duration(defaults, "deadline", names.STEP_DEADLINE_MS))
    if step.kind == "wait":
        deadline_ms = _duration(body, "deadline", names.DURATION_MS_MAX)  # the usual hour is for work, not for waiting
    timeout_ms = _duration(body, "timeout", attempt_ms if is_child else _duration(defaults, "timeout", attempt_ms))
    return Node(
        index=index[step.id],
        id=step.id,
        kind=step.kind,
        needs=tuple(sorted(index[other] for other in step.after)),
        optional=frozenset(index[other] for other in step.optional),
        dependents=dependents,
        spec=step.spec,
        queue=_QUEUES[step.kind] + ("-ws" if workspace else ""),
        when=step.when,
        foreach=_foreach(step),
        tool=body.get("tool", ""),
        child=children.get(body["pipeline"]) or _registered(body["pipeline"]) if is_child else None,
        retry=_retry({**defaults.get("retry", {}), **body.get("retry", {})}),
        timeout_ms=timeout_ms,
        deadline_ms=max(deadline_ms, timeout_ms) if "deadline" not in body else deadline_ms,
        effect=body.get("effect", tool_effect),
        on_unknown=body.get("on_unknown", "fail"),
        on_error_continue=body.get("on_error", "fail") == "continue",
        workspace=workspace,
        artifacts=tuple(body.get("artifacts", ())),
        priority=body.get("priority", 0),
        labels=body.get("labels", {}),
    )


def _touches_workspace(step: CheckedStep) -> bool:
    """Whether its attempts run only where the run's files are."""
    if step.body.get("artifacts") or step.spec.uses_files:
        return True
    return step.tool is not None and step.tool.workspace


def _foreach(step: CheckedStep) -> Foreach | None:
    if step.items is None:
        return None
    return Foreach(
        items=step.items,
        max_parallel=step.body.get("max_parallel", names.FOREACH_MAX_PARALLEL),
        continue_on_error=step.body.get("on_item_error", "fail") == "continue",
        alias=step.body.get("as", "item"),
    )


def _retry(given: Mapping[str, Any]) -> RetryPolicy:
    initial_ms = _duration(given, "initial", names.RETRY_INITIAL_MS)
    return RetryPolicy(
        attempts=given.get("attempts", names.RETRY_ATTEMPTS),
        initial_ms=initial_ms,
        max_ms=_duration(given, "max", max(names.RETRY_MAX_MS, initial_ms)),
        on=tuple(given.get("on", ())),
    )


def _child_of(definition: Definition) -> Child:
    return Child(pipeline=definition.main["pipeline"], digest=definition.digest())


def _registered(reference: str) -> Child:
    name, _, digest = reference.partition("@")
    return Child(pipeline=name, digest=digest)


def inputs_schema(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON Schema of the inputs object: closed, everything without a default required."""
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": dict(inputs),
        "required": [name for name, schema in inputs.items() if "default" not in schema],
    }
