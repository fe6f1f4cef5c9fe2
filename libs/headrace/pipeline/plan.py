"""A definition, compiled once per digest: immutable, shared by all runs of that digest.

`headrace.pipeline.compile.compile_plan(definition)` makes it. Names become integers: a step of a `steps:` map is a
*node*, a `steps:` map is a *block*. Block 0 is the pipeline's own; groups and cases of a `switch` have theirs. Nodes
are numbered block by block, in a block by id, so that files that differ only in order have one plan; the nodes of
block 0 come first.

Static paths name nodes: `review` in block 0, `review/fix` in the group `review`, `route:0/fix` in the first case of
the switch `route` (cases count from 0, `default` included). Instances add what was chosen at run time to each step on
the way: `[3]` for an item of `foreach`, `(2)` for an iteration of `while` or `until` (from 0), `#2` for a later attempt
of a group; so `review[3](1)/fix` is an instance of `review/fix`. `?when` and the like after the last step are
evaluations for it.

Names of loops in compiled expressions are absolute, whatever `as:` says: `item` and `index` of the outermost `foreach`,
`item_1` and `index_1` of the next one inside it, and so on; likewise `carry`, `carry_1` and `iteration`, `iteration_1`
of `while` and `until`. The k-th `[…]` of an instance's path, from the left and counted from 0, is therefore `index_k`
(`index` for 0), and the k-th `(…)` is `iteration_k`. `loop_name` spells them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from headrace.contracts import names
from headrace.contracts.canonical import canonical_json, sha256_hex
from headrace.contracts.events import TriggerSpec
from headrace.pipeline.expressions import Expression, Template

ROOT: Final = 0
"""The block of the pipeline's own steps."""


def loop_name(name: str, depth: int) -> str:
    """`item`, `index`, `carry` or `iteration` of the loop that has `depth` loops of its sort around it."""
    return f"{name}_{depth}" if depth else name


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
    """The modifier that makes a step a bounded map over a list. Its output: `{items, failed, counts}`.

    A node's `when` that reads this loop's own names (`item_name`, `index_name`) is asked once per item, any other once,
    before the list. `spec`, `cache` and the blocks of a group are evaluated per item; `fallback`, `compensate`,
    `on_error` and the deadline belong to the whole.
    """

    items: Expression
    """Evaluated outside of the loop: its own item is not in scope."""
    item_name: str = "item"
    """What the item is called in compiled expressions."""
    max_parallel: int = names.FOREACH_MAX_PARALLEL
    continue_on_error: bool = False
    """A failed item leaves the others alone, and the step succeeds with `failed` saying which."""
    alias: str = "item"
    """What the author calls the item, for people."""
    index_name: str = "index"


@dataclass(slots=True, frozen=True)
class Loop:
    """The modifier that repeats a step. One iteration lives at a time; only `carry` goes from one to the next.

    `carry` of iteration 0 is the value of `start` (null without one); of every later one it is the output of the
    iteration before. The step's output is the last iteration's, or the value of `start` when there was none.
    `while` is asked before each iteration and goes on when true; `until` after each and stops when true: it sees the
    output of the iteration that has just ended as `carry`, and that iteration's number. A failed iteration fails the
    step. Retry and timeout are those of one iteration, the deadline is that of the whole.
    """

    condition: Expression
    is_until: bool
    max_iterations: int
    """When this many have ended and the condition wants more: `limit_exceeded`, or a success when `ok_on_limit`."""
    ok_on_limit: bool = False
    start: Template | None = None
    """Evaluated once, outside of the loop."""
    carry_name: str = "carry"
    iteration_name: str = "iteration"


@dataclass(slots=True, frozen=True)
class Child:
    """The pipeline that a `pipeline` step starts: a document of the same bundle, or a registered definition."""

    pipeline: str
    digest: str


@dataclass(slots=True, frozen=True)
class Signal:
    """What a `signal` step waits for. Its output is the payload.

    A payload that does not fit `schema` is refused when it is sent; the step goes on waiting. A signal that came before
    the step waits for it.
    """

    name: str
    schema: Mapping[str, Any] | bool = True
    timeout_ms: int = names.DURATION_MS_MAX
    skip_on_timeout: bool = False
    """The step is then skipped, with its reason; else it fails with `timeout`."""


@dataclass(slots=True, frozen=True)
class Approval:
    """Whom an `approval` step asks. `spec` renders to `{message}`: what is shown, and what the answer is bound to.

    The answer names the content hash (`approval_hash` of the rendered spec); another hash is refused. A rejection fails
    the step with `rejected`. Its output is `{decision, by, at, comment}`: `approved`, who, when (RFC 3339), and why.
    """

    by: tuple[str, ...] = ()
    """Names that may answer; empty: whoever may send the command, which is what the role `approve` means. A name is
    what the sender says: who may send is the broker's business."""
    timeout_ms: int = names.DURATION_MS_MAX
    skip_on_timeout: bool = False


@dataclass(slots=True, frozen=True)
class Cache:
    """A result that may be used again. `key` renders to any JSON value; the tool or model and the step's digest of
    `spec` are not part of it, so the author says what the result depends on."""

    key: Template
    ttl_ms: int


@dataclass(slots=True, frozen=True)
class Fallback:
    """What stands in when a step has failed for good: another node, or a value. The result is degraded."""

    node: int | None = None
    value: Template | None = None


@dataclass(slots=True, frozen=True)
class Budget:
    """What a run, or one step over all its attempts, may cost. None: not bounded in that unit."""

    usd_micros: int | None = None
    tokens: int | None = None
    pause: bool = True
    """Exceeding it asks somebody; else it fails with `budget_exceeded`."""


@dataclass(slots=True, frozen=True)
class ConcurrencyKey:
    """How many runs with one key may be live in the whole cluster, and what happens to one more."""

    key: Template
    """Rendered from `inputs`, `vars` and `event` when the run starts; becomes text."""
    max: int = 1
    on_excess: Literal["queue", "reject", "cancel_oldest"] = "queue"


@dataclass(slots=True, frozen=True)
class CronTrigger:
    """A schedule that starts runs once the definition is armed. `event` in its expressions is `{due}`."""

    cron: str
    timezone: str
    catch_up: Literal["once", "all", "none"]
    """What becomes of instants missed while nothing could fire."""
    when: str = ""
    inputs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True, frozen=True)
class Block:
    """One `steps:` map: the pipeline's, a group's, or that of a case of a `switch`.

    A living instance of it is a scope. Its outputs are the owner's output, as a map by name; an output that reads a
    skipped step is null, and so is the whole where none are declared.
    """

    index: int
    owner: int
    """The node whose block this is; -1 for the root."""
    nodes: tuple[int, ...]
    visible: Mapping[str, int]
    """Step id → node, for everything an expression inside may read: its own nodes and those of the blocks around. An id
    inside never hides one outside."""
    outputs: Mapping[str, Template]
    when: Expression | None = None
    """Of a case: it is chosen when this holds; None for `default`, and for every other block."""


@dataclass(slots=True, frozen=True)
class Node:
    """A step."""

    index: int
    id: str
    kind: str
    """`tool`, `llm`, `transform`, `pipeline`, `wait`, `steps`, `switch`, `signal`, `approval`, `emit`."""
    needs: tuple[int, ...]
    """Nodes of the same block that must be terminal first, by `needs` and by data, also by data of steps inside."""
    optional: frozenset[int]
    """Those of `needs` that are only read optionally, or only inside: when they are skipped, this step is not."""
    dependents: tuple[int, ...]
    """Nodes of the same block that have this one in `needs`."""
    spec: Template
    """What the attempt is given: `with` of a tool, the fields of `llm`, the expressions of `transform`, `with` of a
    child, `{for}` or `{until}` of a wait, `{message}` of an approval, `{data}` of an emit; else an empty map."""
    queue: str
    """Of its orders: `<kind>`, with `-ws` when it touches the workspace, and `-<label>` when the step names one."""
    when: Expression | None = None
    foreach: Foreach | None = None
    tool: str = ""
    child: Child | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeout_ms: int = names.ATTEMPT_TIMEOUT_MS
    deadline_ms: int = names.STEP_DEADLINE_MS
    effect: str = "idempotent"
    on_unknown: str = "fail"
    """fail, retry, or ask: the step waits, past its own deadline, until somebody says what happened."""
    on_error_continue: bool = False
    workspace: bool = False
    artifacts: tuple[str, ...] = ()
    priority: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    path: str = ""
    """The static path, see above."""
    block: int = ROOT
    """The block it stands in."""
    blocks: tuple[int, ...] = ()
    """Its own blocks: one of a group, one a case of a switch, in the order of the cases."""
    outer: tuple[int, ...] = ()
    """Nodes of the blocks around that it needs: they ended before its scope began, and if one was skipped, so is it."""
    loop: Loop | None = None
    """Never together with `foreach`."""
    signal: Signal | None = None
    approval: Approval | None = None
    emit: str = ""
    """The name of the event that an `emit` publishes; `spec` renders to `{data}`."""
    fallback: Fallback | None = None
    compensate: int | None = None
    """The node that undoes this one when the run fails or is cancelled after this one succeeded."""
    standby_for: int | None = None
    """Set on a node that runs only as the fallback or the compensation of this one: it is never ready on its own, has
    no dependents, and does not hold up the end of its block."""
    cache: Cache | None = None
    secrets: tuple[str, ...] = ()
    """Names of secrets that `spec` reads: an executor renders it, never the scheduler."""
    version: str = ""
    """Of the tool, when the step pins one."""
    budget: Budget | None = None


@dataclass(slots=True, frozen=True)
class Plan:
    """A pipeline, ready to be decided about."""

    digest: str
    pipeline: str
    nodes: tuple[Node, ...]
    """All of them, at any depth."""
    by_id: Mapping[str, Node]
    """By static path, which in block 0 is the id."""
    inputs_schema: Mapping[str, Any]
    """JSON Schema of the inputs object; defaults are applied by `with_defaults`."""
    outputs: Mapping[str, Template]
    """One template an output: an output that reads a skipped step is null, the others are not. Those of block 0."""
    vars: Mapping[str, Any]
    deadline_ms: int = names.RUN_DEADLINE_MS
    max_parallel: int = names.RUN_MAX_PARALLEL
    workspace: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    triggers: tuple[TriggerSpec, ...] = ()
    """Events that start the pipeline once its definition is armed."""
    blocks: tuple[Block, ...] = ()
    kept: frozenset[int] = frozenset()
    """Blocks with a step, at any depth, that may have to be undone: what is known of their instances outlives them."""
    budget: Budget | None = None
    concurrency: ConcurrencyKey | None = None
    crons: tuple[CronTrigger, ...] = ()
    retain_ms: int | None = None
    """How long the workspace is kept after the run; None: as long as the operator says."""


_INSTANCE = re.compile(r"\[\d+\]|\(\d+\)|#\d+|\?.*")


def static_path(path: str) -> str:
    """The path of the node that a step instance belongs to: `review[3](1)/fix?when` belongs to `review/fix`."""
    return _INSTANCE.sub("", path)


def node_of(plan: Plan, path: str) -> Node:
    """The node that a step instance belongs to.

    Raises:
        KeyError: the plan has no such step.
    """
    found = plan.by_id.get(path)
    return plan.by_id[static_path(path)] if found is None else found


def approval_hash(shown: Any) -> str:
    """The content hash of an approval: sha256 over RFC 8785 JSON of its rendered `spec`, lower-case hex."""
    return sha256_hex(canonical_json(shown))
