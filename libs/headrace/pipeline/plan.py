"""A definition, compiled once per digest: immutable, shared by all runs of that digest.

`headrace.pipeline.compile.compile_plan(definition)` makes it. Names become integers: a step of `steps:` is a node.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace.contracts import names
from headrace.contracts.events import TriggerSpec
from headrace.pipeline.expressions import Expression, Template


@dataclass(slots=True, frozen=True)
class RetryPolicy:
    """How often and when a failed attempt is followed by another."""

    attempts: int = names.RETRY_ATTEMPTS
    """All attempts, the first included."""
    initial_ms: int = names.RETRY_INITIAL_MS
    max_ms: int = names.RETRY_MAX_MS
    on: tuple[str, ...] = ()
    """Error codes worth another attempt; empty: whatever its report calls retryable."""


@dataclass(slots=True, frozen=True)
class Foreach:
    """The modifier that makes a step a bounded map over a list."""

    items: Expression
    item_name: str = "item"
    """What the item is called in compiled expressions: always `item`, whatever `as:` says."""
    max_parallel: int = names.FOREACH_MAX_PARALLEL
    continue_on_error: bool = False
    alias: str = "item"
    """What `as:` calls the item, for people."""


@dataclass(slots=True, frozen=True)
class Child:
    """The pipeline that a `pipeline` step starts: a document of the same bundle, or a registered definition."""

    pipeline: str
    digest: str


@dataclass(slots=True, frozen=True)
class Node:
    """A step."""

    index: int
    id: str
    kind: str
    """`tool`, `llm`, `transform`, `pipeline`, `wait`."""
    needs: tuple[int, ...]
    """Nodes that must be terminal first, by `needs` and by data."""
    optional: frozenset[int]
    """Those of `needs` that are only read optionally: when they are skipped, this step is not."""
    dependents: tuple[int, ...]
    spec: Template
    """What the attempt is given: `with` of a tool, the fields of `llm`, the expressions of `transform`, `with` of a
    child, `{for}` or `{until}` of a wait."""
    queue: str
    when: Expression | None = None
    foreach: Foreach | None = None
    tool: str = ""
    child: Child | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeout_ms: int = names.ATTEMPT_TIMEOUT_MS
    deadline_ms: int = names.STEP_DEADLINE_MS
    effect: str = "idempotent"
    on_unknown: str = "fail"
    on_error_continue: bool = False
    workspace: bool = False
    artifacts: tuple[str, ...] = ()
    priority: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    triggers: tuple[TriggerSpec, ...] = ()
    """Events that start the pipeline once its definition is armed."""


@dataclass(slots=True, frozen=True)
class Plan:
    """A pipeline, ready to be decided about."""

    digest: str
    pipeline: str
    nodes: tuple[Node, ...]
    by_id: Mapping[str, Node]
    inputs_schema: Mapping[str, Any]
    """JSON Schema of the inputs object; defaults are applied by `with_defaults`."""
    outputs: Mapping[str, Template]
    """One template an output: an output that reads a skipped step is null, the others are not."""
    vars: Mapping[str, Any]
    deadline_ms: int = names.RUN_DEADLINE_MS
    max_parallel: int = names.RUN_MAX_PARALLEL
    workspace: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    triggers: tuple[TriggerSpec, ...] = ()
    """Events that start the pipeline once its definition is armed."""


def node_of(plan: Plan, path: str) -> Node:
    """The node that a step instance belongs to: `review[3]` and `review?when` belong to `review`.

    Raises:
        KeyError: the plan has no such step.
    """
    return plan.by_id[path.split("[", 1)[0].split("?", 1)[0]]
