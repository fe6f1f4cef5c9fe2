"""Definition → plan: names become integers, defaults are applied, expressions are compiled.

The scheduler compiles what it stored; a definition is checked again here, because another release may have stored it.
"""

from collections.abc import Mapping
from typing import Any

from headrace.contracts import names
from headrace.contracts.errors import NotFoundError
from headrace.contracts.events import ToolSpec, TriggerSpec
from headrace.pipeline import collector
from headrace.pipeline.checked import Checked
from headrace.pipeline.definitions import Definition, child_files, decode_definition
from headrace.pipeline.graph import check_graph
from headrace.pipeline.numbering import Numbering, budget_of, duration_ms
from headrace.pipeline.pending import PENDING
from headrace.pipeline.plan import Block, Child, ConcurrencyKey, CronTrigger, Node, Plan
from headrace.pipeline.positions import Positions
from headrace.pipeline.pricing import every_step
from headrace.pipeline.problems import RefusedDefinitionError
from headrace.pipeline.schedules import UTC
from headrace.pipeline.validate import Report, check_shapes


def compile_plan(
    definition: bytes | Definition,
    *,
    catalogue: Mapping[str, ToolSpec] | None = None,
    pending: Mapping[str, str] = PENDING,
) -> Plan:
    """The plan of a definition's main document.

    Args:
        definition: Stored bytes, or what `load_bundle` gives as `definition`.
        catalogue: The tools that exist; without it only built-in names are checked.
        pending: What is refused because this release cannot execute it.

    Raises:
        DefinitionError: this release refuses the document.
        DataError: the bytes are no definition.
    """
    with collector.paused():
        whole = decode_definition(definition) if isinstance(definition, bytes) else definition
        report = Report("definition", Positions())
        checked = check_document(whole.main, report, catalogue, pending=pending)
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
    return {name: definition.child(name) for name in child_files(definition.main)}


def check_document(
    document: Any,
    report: Report,
    catalogue: Mapping[str, ToolSpec] | None = None,
    *,
    pending: Mapping[str, str] = PENDING,
) -> Checked | None:
    """Everything wrong with one document goes to the report; None when not even its outline holds."""
    if not check_shapes(document, report, pending=pending):
        return None
    checked = check_graph(document, report, catalogue, pending=pending)
    if "name:children" in pending and checked is not None and "budget" in document.get("limits", {}):
        for step in every_step(checked.root):
            if step.kind == "pipeline":
                text = "a child run under the run's budget cannot be executed by this release yet"
                report.key((*step.at, "pipeline"), "E1401", text, f"it waits for: {pending['name:children']}")
    return checked


def plan_of(definition: Definition, checked: Checked) -> Plan:
    """The plan of a document that was checked without finding."""
    document = definition.main
    children = {reference: _child_of(child) for reference, child in children_of(definition).items()}
    blocks, nodes = Numbering(checked).compile(document.get("defaults", {}), children)
    limits = document.get("limits", {})
    triggers = list(zip(document.get("triggers", ()), checked.triggers, strict=True))
    return Plan(
        digest=definition.digest(),
        pipeline=document["pipeline"],
        nodes=nodes,
        by_id={node.path: node for node in nodes},
        inputs_schema=inputs_schema(document.get("inputs", {})),
        outputs=checked.root.outputs,
        vars=document.get("vars", {}),
        deadline_ms=duration_ms(limits, "deadline", names.RUN_DEADLINE_MS),
        max_parallel=limits.get("max_parallel", names.RUN_MAX_PARALLEL),
        workspace=document.get("workspace", any(node.workspace for node in nodes)),
        labels=document.get("labels", {}),
        triggers=tuple(
            TriggerSpec(event=given["event"], when=condition, inputs=given.get("inputs", {}))
            for given, condition in triggers
            if "event" in given
        ),
        blocks=blocks,
        kept=_kept(blocks, nodes),
        budget=budget_of(limits.get("budget")),
        concurrency=_concurrency(limits.get("concurrency", {}), checked),
        crons=tuple(_cron(given, condition) for given, condition in triggers if "cron" in given),
        retain_ms=duration_ms(document, "retain", 0) if "retain" in document else None,
    )


def _kept(blocks: tuple[Block, ...], nodes: tuple[Node, ...]) -> frozenset[int]:
    found: set[int] = set()
    for node in nodes:
        block = node.block if node.compensate is not None else -1
        while block >= 0 and block not in found:
            found.add(block)
            owner = blocks[block].owner
            block = nodes[owner].block if owner >= 0 else -1
    return frozenset(found)


def _concurrency(given: Mapping[str, Any], checked: Checked) -> ConcurrencyKey | None:
    if checked.concurrency_key is None:
        return None
    return ConcurrencyKey(
        key=checked.concurrency_key, max=given.get("max", 1), on_excess=given.get("on_excess", "queue")
    )


def _cron(given: Mapping[str, Any], condition: str) -> CronTrigger:
    return CronTrigger(
        cron=given["cron"],
        timezone=given.get("timezone", UTC),
        catch_up=given.get("catch_up", "once"),
        when=condition,
        inputs=given.get("inputs", {}),
    )


def _child_of(definition: Definition) -> Child:
    return Child(pipeline=definition.main["pipeline"], digest=definition.digest())


def inputs_schema(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON Schema of the inputs object: closed, everything without a default required."""
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": dict(inputs),
        "required": [name for name, schema in inputs.items() if "default" not in schema],
    }
