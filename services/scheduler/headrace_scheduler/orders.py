"""Work orders, derived from state: deriving one again, in another process, gives the same bytes.

Pure. What an attempt is given is rendered here when everything it reads is small and inline; otherwise the
order carries the template and the bindings, and the executor renders it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from headrace.contracts import events as ev
from headrace.contracts import names, subjects
from headrace.contracts.canonical import blake2b_hex, sha256_hex
from headrace.contracts.codec import encode, encode_value
from headrace.contracts.envelope import Value
from headrace.pipeline.expressions import Expression, Template, render
from headrace.pipeline.plan import Node, Plan, node_of
from headrace_scheduler.deadlines import timeout_ms
from headrace_scheduler.paths import OUTPUTS, owner_of
from headrace_scheduler.records import SKIPPED, Inst, Run
from headrace_scheduler.values import Bindings, bind, find_step, has_long_list, is_small, materialise

BINDINGS_BYTES_MAX: Final = names.ORDER_BYTES_MAX // 2
"""Half an order: the template and the envelope need room too."""


@dataclass(slots=True)
class Content:
    """What one attempt is given."""

    kind: str
    queue: str
    input: bytes | None = None
    template: bytes | None = None
    bindings: Bindings = field(default_factory=dict)
    blobs: list[tuple[str, bytes]] = field(default_factory=list)
    """(reference, bytes) that must be stored before the order goes out."""

    @property
    def sha(self) -> str:
        """Recorded with the decision."""
        return blake2b_hex((self.input or b"") + (self.template or b"") + encode(self.bindings))


def evaluation(expression: Expression) -> Template:
    """An expression as the template of an `evaluate` order."""
    return Template(
        source="${{ " + expression.source + " }}",
        reads=expression.reads,
        optional=expression.optional,
        uses_files=expression.uses_files,
        tree=None,
    )


def template_of(run: Run, plan: Plan, path: str) -> Template:
    """The template that an instance renders: a step's own, or that of one of its evaluations."""
    asker, _, word = path.rpartition("?")
    if word == "outputs" and path.endswith(OUTPUTS) and (not asker or asker[-1] == "/"):
        return outputs_template(run, asker, outputs_of(run, plan, asker))
    node = node_of(plan, path)
    if not asker or word == "spec":
        return node.spec
    if word == "fallback":
        assert node.fallback is not None and node.fallback.value is not None, path
        return node.fallback.value
    if word == "cache":
        assert node.cache is not None, path
        return node.cache.key
    if word == "start":
        assert node.loop is not None and node.loop.start is not None, path
        return node.loop.start
    return evaluation(expression_of(plan, node, word))


def expression_of(plan: Plan, node: Node, word: str) -> Expression:
    """The expression that an evaluation of a node asks."""
    found: Expression | None = None
    match word:
        case "when":
            found = node.when
        case "items" if node.foreach is not None:
            found = node.foreach.items
        case "while" | "until" if node.loop is not None:
            found = node.loop.condition
        case _ if word.startswith("case"):
            found = plan.blocks[node.blocks[int(word.removeprefix("case"))]].when
    assert found is not None, (node.path, word)
    return found


def content_for(run: Run, plan: Plan, path: str, *, now_ms: int) -> Content:
    """Render, or prepare for rendering, what an attempt of an instance is given.

    Args:
        now_ms: The instant of the decision that schedules, or scheduled, the attempt.

    Raises:
        ExpressionError: a value is missing or an expression has none.
    """
    template = template_of(run, plan, path)
    bindings = bind(run, plan, path, template.reads, template.optional, now_ms=now_ms)
    if "?" in path:
        queue = "transform-ws" if template.uses_files else "transform"
        return _deferred(run, template, bindings, kind="evaluate", queue=queue)
    node = node_of(plan, path)
    if node.kind == "transform" or node.secrets or not evaluable_here(bindings, template):
        return _deferred(run, template, bindings, kind=node.kind, queue=node.queue)
    value = encode_value(render(template, materialise(bindings)))
    if len(value) > names.INLINE_BYTES_MAX:
        return _deferred(run, template, bindings, kind=node.kind, queue=node.queue)
    return Content(kind=node.kind, queue=node.queue, input=value)


def evaluable_here(bindings: Bindings, template: Template | Expression) -> bool:
    """True when the scheduler may evaluate this itself."""
    if template.uses_files or not is_small(bindings):
        return False
    return (isinstance(template, Expression) and template.is_path) or not has_long_list(bindings)


def _deferred(run: Run, template: Template, bindings: Bindings, *, kind: str, queue: str) -> Content:
    content = Content(kind=kind, queue=queue, template=encode_value(template.source), bindings=dict(bindings))
    sizes = {name: len(value.json) for name, value in bindings.items() if isinstance(value.json, msgspec.Raw)}
    while sum(sizes.values()) > BINDINGS_BYTES_MAX:
        # The largest travel by reference; ties by name, so that every process moves the same ones.
        name = max(sizes, key=lambda key: (sizes[key], key))
        del sizes[name]
        value = bindings[name]
        assert isinstance(value.json, msgspec.Raw)
        data = bytes(value.json)
        ref = subjects.blob_ref(run.run, sha256_hex(data))
        content.blobs.append((ref, data))
        content.bindings[name] = Value(ref=ref, size=len(data), form=value.form)
    return content


def make_order(run: Run, plan: Plan, inst: Inst, content: Content) -> ev.Order:
    """The order for an instance's current attempt, at its newest wanted offer."""
    node = None if "?" in inst.path else node_of(plan, inst.path)
    return ev.Order(
        path=inst.path,
        attempt=inst.attempt,
        offer=max(1, inst.want_offer),
        decision=inst.decision,
        version=inst.version,
        queue=content.queue,
        kind=content.kind,
        timeout_ms=max(1, min(timeout_ms(plan, inst.path), inst.due_ms - inst.scheduled_ms)),
        not_after_ms=inst.not_after_ms,
        due_ms=inst.due_ms,
        scheduled_ms=inst.scheduled_ms,
        tool="" if node is None else node.tool,
        input=msgspec.UNSET if content.input is None else msgspec.Raw(content.input),
        template=msgspec.UNSET if content.template is None else msgspec.Raw(content.template),
        bindings=content.bindings,
        effect="pure" if node is None else node.effect,
        on_unknown="fail" if node is None else node.on_unknown,
        claim_seq=inst.claim_base,
        workspace=content.queue.split("-")[1:2] == ["ws"],
        artifacts=() if node is None else node.artifacts,
        reserved=inst.reserved,
        secrets=() if node is None else node.secrets,
        tool_version="" if node is None else node.version or run.tools.get(node.tool, ""),
    )


# --- outputs -----------------------------------------------------------------------------------


def outputs_of(run: Run, plan: Plan, scope: str) -> Mapping[str, Template]:
    """What the block of a living scope gives."""
    if not scope:
        return plan.outputs
    owner = run.get(owner_of(scope))
    assert owner is not None and owner.scope is not None, scope
    return plan.blocks[owner.scope.block].outputs


def outputs_template(run: Run, scope: str, outputs: Mapping[str, Template]) -> Template:
    """The outputs that have a value; those that read skipped steps are null."""
    source: dict[str, Any] = {}
    reads: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    uses_files = False
    for key, template in outputs.items():
        if _reads_skipped(run, scope, template):
            source[key] = None
            continue
        source[key] = template.source
        reads |= template.reads
        optional |= template.optional
        uses_files |= template.uses_files
    return Template(source=source, reads=reads, optional=optional, uses_files=uses_files, tree=None)


def _reads_skipped(run: Run, scope: str, template: Template) -> bool:
    for name in template.reads - template.optional:
        if name.startswith("steps.") and name.endswith(".output"):
            inst = find_step(run, scope, name.removeprefix("steps.").removesuffix(".output"))
            if inst is not None and inst.status == SKIPPED:
                return True
    return False


def render_outputs(run: Run, scope: str, outputs: Mapping[str, Template], bindings: Bindings) -> dict[str, Any]:
    """The outputs, when the scheduler may evaluate them."""
    values = materialise(bindings)
    return {
        key: None if _reads_skipped(run, scope, template) else render(template, values)
        for key, template in outputs.items()
    }
