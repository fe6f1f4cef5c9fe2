"""The language as one table: which key stands where, what it holds, its bounds, what it is for.

Validation, "did you mean", the published JSON Schema and the reference in docs/language.md all come from here, so that
a key cannot be accepted without being checked, or checked without being documented. What is not in the table is an
error. What is in the table and cannot be executed yet is in `pending`, and an error too.
"""

from collections.abc import Mapping
from typing import Final

from headrace.contracts import names
from headrace.pipeline.shapes import Row, Shape, choice, free_map, list_of, map_of, record, text, whole

KINDS: Final = ("llm", "tool", "transform", "pipeline", "steps", "switch", "wait", "signal", "approval", "emit")
EFFECTS: Final = ("pure", "idempotent", "at_most_once")
MODEL_DEFAULT: Final = "echo/echo"
"""Answers without a key and without a network, so that a pipeline without a model runs anywhere."""
PARALLEL_MAX: Final = 10_000
ITERATIONS_MAX: Final = 10_000
"""Iterations of a `while`: what one run can log in a day at ten a second, with room."""
ROUNDS_MAX: Final = 100
"""Turns of a tool loop: beyond that a model goes in circles."""
REPAIRS_MAX: Final = 10
TURNS_MAX: Final = 100_000
USD_MAX: Final = 1_000_000
TOKENS_MAX: Final = 10**12

_NAME: Final = Shape("name")
_FLAG: Final = Shape("flag")
_DURATION: Final = Shape("duration")
_TEMPLATE: Final = Shape("template")
_CONDITION: Final = Shape("condition")
_SCHEMA: Final = Shape("json schema")
_LIST: Final = Shape("list expression")
_LABELS: Final = free_map(Shape("text", high=256), high=64)
_STEPS: Final = map_of(record("step"), 1, names.STEPS_MAX)
_OUTPUTS: Final = map_of(_TEMPLATE)
_ON_TIMEOUT: Final = choice("fail", "skip")
_PEOPLE: Final = list_of(text(1, 128), 100)

_CALLS: Final = ("llm", "tool", "transform")
"""Kinds whose attempts an executor runs."""
_TRIED: Final = (*_CALLS, "pipeline", "steps", "switch")
"""Kinds that can be tried again."""
_UNDONE: Final = ("llm", "tool", "pipeline", "steps", "switch", "emit")
"""Kinds that may leave something behind."""

_PIPELINE: Final = (
    Row("pipeline", "pipeline", _NAME, "The pipeline's name.", required=True),
    Row("pipeline", "description", text(), "What it is for."),
    Row("pipeline", "inputs", map_of(_SCHEMA), "JSON Schema of each input; required unless it has a default."),
    Row("pipeline", "outputs", _OUTPUTS, "What the run gives: a value, or a tree with expressions, for each name."),
    Row("pipeline", "triggers", list_of(record("trigger"), 100), "Events and schedules that start a run."),
    Row("pipeline", "defaults", record("defaults"), "Applied to every step of a matching kind that says nothing else."),
    Row("pipeline", "limits", record("limits"), "Bounds of one run."),
    Row("pipeline", "workspace", _FLAG, "Whether the run has a directory of its own."),
    Row(
        "pipeline",
        "retain",
        _DURATION,
        "How long it is kept after the run; 30d unless given.",
        needs=("workspace",),
    ),
    Row("pipeline", "vars", map_of(Shape("json")), "Constants, read as `vars.<name>`."),
    Row("pipeline", "steps", _STEPS, "The steps by id; order means nothing.", required=True),
    Row("pipeline", "labels", _LABELS, "For finding and grouping runs."),
    Row("trigger", "event", _NAME, "The event's name, the last token of `hr.trig.<tenant>.<name>`."),
    Row("trigger", "cron", Shape("cron"), "When: minute, hour, day of month, month, day of week."),
    Row("trigger", "timezone", Shape("timezone"), "Whose clock `cron` means; UTC unless given.", needs=("cron",)),
    Row(
        "trigger",
        "catch_up",
        choice("once", "all", "none"),
        "What becomes of starts missed while nothing could fire; once unless given.",
        needs=("cron",),
    ),
    Row("trigger", "when", _CONDITION, "Start only if this holds; it sees `event`."),
    Row("trigger", "inputs", _OUTPUTS, "The run's inputs, made from `event`."),
    Row("defaults", "timeout", _DURATION, "Of one attempt."),
    Row("defaults", "deadline", _DURATION, "Of all attempts of a step."),
    Row("defaults", "retry", record("retry"), "How failed attempts are repeated."),
    Row("defaults", "model", Shape("models"), "For `llm` steps, `provider/model`, or a list to try in order."),
    Row("limits", "deadline", _DURATION, "Of the run; 24h unless given."),
    Row("limits", "max_parallel", whole(1, PARALLEL_MAX), "Steps in flight in one run; 16 unless given."),
    Row("limits", "budget", record("budget"), "What the run may cost."),
    Row("limits", "concurrency", record("concurrency"), "How many runs with one key may live at a time."),
    Row("budget", "usd", Shape("number", 0, USD_MAX), "US dollars."),
    Row("budget", "tokens", Shape("count", 1, TOKENS_MAX), "Tokens in and out: a number, or such as `500k`, `2M`."),
    Row("budget", "on_exceed", choice("pause", "fail"), "Ask somebody, or fail; pause unless given."),
    Row("concurrency", "key", text(1, templated=True), "Runs with the same text are counted together.", required=True),
    Row("concurrency", "max", whole(1, PARALLEL_MAX), "Runs at a time; 1 unless given."),
    Row(
        "concurrency",
        "on_excess",
        choice("queue", "reject", "cancel_oldest"),
        "What one more run does; queue unless given.",
    ),
    Row("retry", "attempts", whole(1, names.RETRY_ATTEMPTS_MAX), "All attempts, the first included."),
    Row("retry", "initial", _DURATION, "Wait before the second attempt; it doubles from there, with jitter."),
    Row("retry", "max", _DURATION, "Longest wait between two attempts."),
    Row("retry", "on", list_of(_NAME, 50), "Error codes worth repeating; else what the error itself says."),
)

_KINDS_OF_STEP: Final = (
    Row("step", "llm", record("llm"), "A call of a language model, or a loop of calls when it has `tools`."),
    Row("step", "tool", text(1, 128), "One call of this tool."),
    Row(
        "step",
        "transform",
        Shape("transform"),
        "An expression, a map of expressions, or operations over the items of a list; no I/O.",
    ),
    Row("step", "pipeline", Shape("pipeline"), "A child run: `./file.yaml`, `name` or `name@digest`."),
    Row("step", "steps", _STEPS, "A group: steps with a graph of their own."),
    Row("step", "switch", list_of(record("case"), 100, 1), "The first case whose `when` holds; none: skipped."),
    Row("step", "wait", record("wait"), "A durable timer."),
    Row("step", "signal", record("signal"), "Waits for a signal; its payload is the output."),
    Row("step", "approval", record("approval"), "Waits for a person, who answers for exactly what was shown."),
    Row("step", "emit", record("emit"), "Publishes an event, which may start other pipelines."),
)

_MODIFIERS: Final = (
    Row(
        "step",
        "with",
        free_map(_TEMPLATE),
        "Arguments of the tool, or inputs of the child.",
        kinds=("tool", "pipeline"),
    ),
    Row("step", "version", text(1, 64), "The version of the tool; the newest unless given.", kinds=("tool",)),
    Row("step", "outputs", _OUTPUTS, "What the group gives, by name; nothing unless given.", kinds=("steps",)),
    Row("step", "description", text(), "What it is for."),
    Row(
        "step",
        "needs",
        Shape("steps or one"),
        "Steps that must have ended well first; reading their values implies it.",
    ),
    Row("step", "when", _CONDITION, "Skipped if this is false."),
    Row("step", "foreach", _LIST, "Run once for each item of this list; `item` and `index` are in scope."),
    Row("step", "as", _NAME, "What the item is called instead of `item`.", needs=("foreach",)),
    Row("step", "max_parallel", whole(1, PARALLEL_MAX), "Items in flight; 8 unless given.", needs=("foreach",)),
    Row(
        "step",
        "on_item_error",
        choice("fail", "continue"),
        "What a failed item does to the others.",
        needs=("foreach",),
    ),
    Row(
        "step",
        "while",
        _CONDITION,
        "Repeat as long as this holds, asked before each iteration; `carry` and `iteration` are in scope.",
        needs=("max_iterations",),
        excludes=("foreach", "until"),
    ),
    Row(
        "step",
        "until",
        _CONDITION,
        "Repeat until this holds, asked after each iteration, whose output is `carry` then.",
        needs=("max_iterations",),
        excludes=("foreach",),
    ),
    Row("step", "max_iterations", whole(1, ITERATIONS_MAX), "At most so many iterations.", needs=("while", "until")),
    Row(
        "step",
        "carry",
        _TEMPLATE,
        "`carry` of the first iteration; of every later one it is the output of the one before.",
        needs=("while", "until"),
    ),
    Row(
        "step",
        "on_limit",
        choice("fail", "ok"),
        "What reaching `max_iterations` is; fail unless given.",
        needs=("while", "until"),
    ),
    Row("step", "timeout", _DURATION, "Of one attempt; 2m unless given, 1h for a child run.", kinds=_TRIED),
    Row("step", "deadline", _DURATION, "Of all attempts; 1h unless given.", kinds=_TRIED),
    Row(
        "step", "retry", record("retry"), "How failed attempts are repeated; groups are not unless given.", kinds=_TRIED
    ),
    Row("step", "on_error", choice("fail", "continue"), "Whether the run goes on when this step fails."),
    Row(
        "step",
        "fallback",
        Shape("step or value"),
        "A step that stands in, or `{value: …}`; the result is degraded.",
        kinds=(*_TRIED, "signal", "approval"),
    ),
    Row(
        "step",
        "effect",
        choice(*EFFECTS),
        "What a second call would do; the tool says unless given.",
        kinds=("llm", "tool"),
    ),
    Row(
        "step",
        "on_unknown",
        choice("fail", "retry", "ask"),
        "When nobody knows whether it happened; fail unless given.",
        kinds=("llm", "tool"),
    ),
    Row("step", "cache", record("cache"), "Use an earlier result with the same key.", kinds=_CALLS),
    Row(
        "step",
        "compensate",
        _NAME,
        "The step that undoes this one when the run fails or is cancelled.",
        kinds=_UNDONE,
    ),
    Row("step", "queue", _NAME, "Only executors with this label, such as `gpu`.", kinds=_CALLS),
    Row("step", "budget", record("budget"), "What all attempts of the step may cost.", kinds=("llm",)),
    Row(
        "step", "artifacts", list_of(Shape("pattern"), 100), "Files of the workspace to keep afterwards.", kinds=_CALLS
    ),
    Row("step", "priority", whole(-100, 100), "Higher starts first; 0 unless given."),
    Row("step", "labels", _LABELS, "For finding and grouping."),
)

_PARTS: Final = (
    Row("case", "when", _CONDITION, "This case is chosen when no earlier one was and this holds."),
    Row("case", "steps", _STEPS, "The steps of the case.", needs=("when",)),
    Row("case", "outputs", _OUTPUTS, "What the switch gives when this case was chosen.", needs=("when",)),
    Row("case", "default", record("default"), "Chosen when no other case is; the last of the list."),
    Row("default", "steps", _STEPS, "The steps of the case.", required=True),
    Row("default", "outputs", _OUTPUTS, "What the switch gives when this case was chosen."),
    Row("wait", "for", Shape("duration", templated=True), "How long."),
    Row("wait", "until", text(templated=True), "An instant, `2026-01-31T06:00:00Z`."),
    Row("signal", "name", _NAME, "The signal's name, unique in the run.", required=True),
    Row("signal", "schema", _SCHEMA, "JSON Schema of the payload; one that does not fit is refused when it is sent."),
    Row("signal", "timeout", _DURATION, "How long to wait; as long as the run unless given."),
    Row("signal", "on_timeout", _ON_TIMEOUT, "What the step does then; fail unless given."),
    Row(
        "approval", "message", text(1, templated=True), "What is shown, and what the answer is bound to.", required=True
    ),
    Row("approval", "by", _PEOPLE, "Who may answer; everybody with the role `approve` unless given."),
    Row("approval", "timeout", _DURATION, "How long to wait; as long as the run unless given."),
    Row("approval", "on_timeout", _ON_TIMEOUT, "What the step does then; fail unless given."),
    Row("emit", "name", _NAME, "The event's name.", required=True),
    Row("emit", "data", _TEMPLATE, "What the event says; null unless given."),
    Row("cache", "key", _TEMPLATE, "Everything that the result depends on.", required=True),
    Row("cache", "ttl", _DURATION, "How long a result is used again.", required=True),
    Row("operations", "from", _LIST, "The list.", required=True),
    Row("operations", "join", record("join"), "Each item with those of another list that have the same key."),
    Row("operations", "where", _CONDITION, "Only items for which this holds; `item` and `index` are in scope."),
    Row("operations", "select", _TEMPLATE, "What becomes of each item; `item` and `index` are in scope."),
    Row("operations", "unique", text(), "The first of every group of items that are equal at this path."),
    Row("operations", "group_by", text(), "`{key, items}` for each value at this path, in order of appearance."),
    Row(
        "operations",
        "aggregate",
        map_of(record("aggregate")),
        "One map of numbers by name; with `group_by`, beside the `key` of each group.",
    ),
    Row("operations", "sort_by", text(), "Order by what lies at this path; a leading `-` turns it round."),
    Row("operations", "limit", whole(0, names.FOREACH_ITEMS_MAX, templated=True), "The first so many."),
    Row("join", "with", _LIST, "The other list.", required=True),
    Row("join", "on", text(1), "The path of the key in the items of both lists.", required=True),
    Row("join", "as", _NAME, "Under which name an item gets the list of its partners; `joined` unless given."),
    Row("join", "kind", choice("inner", "left"), "Whether items without a partner stay (`left`); inner unless given."),
    Row("aggregate", "count", text(), "How many items have something other than null at this path."),
    Row("aggregate", "sum", text(), "The sum of what lies at this path."),
    Row("aggregate", "avg", text(), "The average of it."),
    Row("aggregate", "min", text(), "The least of it."),
    Row("aggregate", "max", text(), "The greatest of it."),
)

_MODEL_CALLS: Final = (
    Row("llm", "model", Shape("models", templated=True), "`provider/model`, or a list; echo/echo unless given."),
    Row("llm", "prompt", text(templated=True), "What the user says."),
    Row("llm", "system", text(templated=True), "What the model is told about its part."),
    Row("llm", "messages", list_of(record("message")), "A whole conversation instead of a prompt."),
    Row("llm", "tools", list_of(text(1, 128), 200), "Tools that the model may call, in a bounded loop."),
    Row("llm", "max_rounds", whole(1, ROUNDS_MAX), "Turns of the loop; 8 unless given.", needs=("tools",)),
    Row(
        "llm",
        "approve",
        list_of(choice("read", "write", "exec", "outbound"), 4),
        "Risk classes of tools whose calls wait for a person.",
        needs=("tools",),
    ),
    Row("llm", "output_schema", _SCHEMA, "JSON Schema that the answer has to fit; it is then a value, not text."),
    Row("llm", "repair", whole(0, REPAIRS_MAX), "Turns in which the model sees its error; 2 unless given.",
        needs=("output_schema",)),
    Row("llm", "max_tokens", whole(1, 10_000_000, templated=True), "Longest answer."),
    Row("llm", "temperature", Shape("number", 0, 2, templated=True), "How much chance."),
    Row("llm", "session", record("session"), "A conversation that outlives the step."),
    Row("llm", "stream", _FLAG, "Whether parts of the answer are published as they come; true unless given."),
    Row("llm", "options", free_map(_TEMPLATE), "The provider's own options."),
    Row("llm", "allow_unpriced", _FLAG, "Whether a model without a known price may be called."),
    Row("message", "role", choice("system", "user", "assistant"), "Who speaks.", required=True),
    Row("message", "content", text(templated=True), "What is said.", required=True),
    Row("session", "id", text(1, 256, templated=True), "Which conversation.", required=True),
    Row("session", "create", _FLAG, "Whether it is opened when there is none."),
    Row("session", "max_turns", whole(1, TURNS_MAX), "How long it may become."),
    Row("session", "ttl", _DURATION, "How long it lives without a turn."),
    Row("session", "include", Shape("include"), "How much of it the model sees: `last 20` or `summary+last 10`."),
)  # fmt: skip

SCHEMA: Final[tuple[Row, ...]] = (*_PIPELINE, *_KINDS_OF_STEP, *_MODIFIERS, *_PARTS, *_MODEL_CALLS)

EXACTLY_ONE: Final[Mapping[str, tuple[str, ...]]] = {
    "step": KINDS,
    "trigger": ("event", "cron"),
    "case": ("when", "default"),
    "llm": ("prompt", "messages"),
    "wait": ("for", "until"),
    "aggregate": ("count", "sum", "avg", "min", "max"),
}
"""Records of which exactly one of these keys must be there."""

AT_LEAST_ONE: Final[Mapping[str, tuple[str, ...]]] = {"budget": ("usd", "tokens")}


def rows(where: str) -> dict[str, Row]:
    """The keys of a record, by name."""
    return _BY_PLACE[where]


_BY_PLACE: Final[Mapping[str, dict[str, Row]]] = {
    place: {row.key: row for row in SCHEMA if row.where == place}
    for place in dict.fromkeys(row.where for row in SCHEMA)
}
PLACES: Final = tuple(_BY_PLACE)
