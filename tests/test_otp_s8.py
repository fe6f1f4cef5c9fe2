"""S8, the static part: nothing is awaited without a deadline, and no schema can say "infinite"."""

import ast
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import annotated_types
import pytest
from pydantic import BaseModel

import headrace.runtime.config
import headrace_monitor.config
import headrace_scheduler.config
import headrace_session_store.config
import headrace_step_executor.config
import headrace_tool_registry.config
from headrace.contracts import names
from headrace.pipeline import json_schemas
from headrace.pipeline.durations import DurationError, parse_duration_ms
from headrace.pipeline.published_schema import json_schema
from tests.test_tidy import PRODUCT, ROOT

UNBOUNDED = frozenset(
    [
        "wait",
        "join",
        "get",
        "drain",
        "wait_closed",
        "communicate",
        "gather",
        "acquire",
        "read",
        "readline",
        "readexactly",
        "readuntil",
        "serve_forever",
        "wait_for",
        "flush",
        "request",
        "connect",
    ]
)
"""Calls of the standard library and of nats-py that wait for as long as it takes, unless they are given a bound."""
BOUNDS = frozenset(("timeout", "timeout_s", "within_s", "deadline_s", "wait_s"))
RECEIVERS = ("blobs", "plans", "_plans", "_blobs", "_log", "log", "eventlog", "_broker", "broker")
"""Ours: what they await has a deadline of its own, which this test sees where it is defined."""
WITH_REASON = {
    "libs/headrace/local/embedded.py: self._stopping.wait()": "until it is stopped: that is what it is for",
    "libs/headrace/runtime/lease.py: hold.over.wait()": "a child that is stopped by its supervisor, STOP_CHILD_S",
    "services/scheduler/headrace_scheduler/cache_store.py: asyncio.gather": "reads, each LOOK_WITHIN_S",
    "libs/headrace/runtime/blobs.py: asyncio.gather(*puts)": "appends, each PUBLISH_DEADLINE_S",
    "libs/headrace/runtime/jetstream.py: await self._publisher.publish": "resolved or failed after PUBLISH_DEADLINE_S",
    "libs/headrace/runtime/jetstream_link.py: self._transport.wait_closed()": "of an aborted transport",
    "libs/headrace/runtime/jetstream_queue.py: self._waiter": "a timer of the same call wakes it",
    "libs/headrace/runtime/jetstream_tail.py: self._waiter": "a timer of the same call wakes it",
    "libs/headrace/runtime/memory.py: await self.publish": "the in-memory broker; resolved by a timer",
    "libs/headrace/runtime/memory_readers.py: self._future": "the in-memory broker; a timer of the same call wakes it",
    "libs/headrace/runtime/memory_readers.py: self._inbox.get()": "a subscription's own task, cancelled with it",
    "libs/headrace/runtime/memory_readers.py: self._waiter.wait(wait_s)": "its argument bounds it",
    "libs/headrace/cli/interrupt.py: work": "the command itself, which a person ends",
}
"""Awaits that look unbounded and are not, each with what bounds it."""


def awaits(path: Path) -> Iterator[tuple[int, str]]:
    """(line, expression) of awaits that nothing in sight bounds: no argument, and no `asyncio.timeout` around."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    around = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Await) and _waits_for_ever(node.value) and not _in_timeout(node, around):
            yield node.lineno, ast.unparse(node.value)


def _waits_for_ever(awaited: ast.expr) -> bool:
    if not isinstance(awaited, ast.Call):
        return not isinstance(awaited, ast.IfExp)
    if not isinstance(awaited.func, ast.Attribute) or awaited.func.attr not in UNBOUNDED:
        return False
    for word in awaited.keywords:
        if word.arg in BOUNDS:
            return isinstance(word.value, ast.Constant) and word.value.value is None
    receiver = ast.unparse(awaited.func.value).rpartition(".")[2]
    return receiver not in RECEIVERS


def _in_timeout(node: ast.AST, around: dict[ast.AST, ast.AST]) -> bool:
    while node in around and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        node = around[node]
        if isinstance(node, ast.AsyncWith) and any(
            ast.unparse(item.context_expr).startswith("asyncio.timeout(") for item in node.items
        ):
            return True
    return False


ATTEMPT = "services/step-executor/"
"""Whatever an attempt awaits is inside `Attempts.run`, which has a deadline; the next test looks at that."""


def test_otp_s8_every_await_has_a_deadline() -> None:
    """In sight, or with a reason that is written down; a reason that is needed no more must go."""
    found, used = [], set()
    for path in PRODUCT:
        name = str(path.relative_to(ROOT))
        for line, text in awaits(path):
            reasons = [key for key in WITH_REASON if f"{name}: {text}".startswith(key)]
            used.update(reasons)
            if not reasons and not name.startswith(ATTEMPT):
                found.append(f"{name}:{line}: {text}")
    assert not found, "give it a deadline, or say in WITH_REASON what bounds it"
    assert used == set(WITH_REASON)


def test_otp_s8_an_attempt_is_run_within_its_deadline() -> None:
    """`_run`, which is all that `Attempts.run` awaits, works inside `asyncio.timeout`; its limit is never None."""
    tree = ast.parse((ROOT / "services/step-executor/headrace_step_executor/attempt.py").read_text(encoding="utf-8"))
    (run,) = [node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef) and node.name == "_run"]
    around = {child: node for node in ast.walk(run) for child in ast.iter_child_nodes(node)}
    inside = [node for node in ast.walk(run) if isinstance(node, ast.Await)]
    assert inside and all(_in_timeout(node, around) for node in inside)


@pytest.mark.parametrize(
    ("code", "seen"),
    [
        ("await event.wait()", True),
        ("await asyncio.wait(tasks)", True),
        ("await asyncio.wait(tasks, timeout=None)", True),
        ("await asyncio.wait(tasks, timeout=5)", False),
        ("await queue.get()", True),
        ("await nc.request('x')", True),
        ("await future", True),
        ("await writer.drain()", True),
        ("async with asyncio.timeout(5):\n        await queue.get()", False),
        ("await self._broker.last('x', 'y')", False),
    ],
)
def test_otp_s8_the_check_of_awaits_sees_what_it_should(tmp_path: Path, code: str, seen: bool) -> None:
    """A check that cannot fail is none."""
    path = tmp_path / "module.py"
    path.write_text(f"async def work():\n    {code}\n")
    assert bool(list(awaits(path))) is seen


# --- schemas ---------------------------------------------------------------------------------------------------------

ENDLESS = ("inf", "infinite", "infinity", "never", "none", "forever", "unlimited", ".inf", "-1s", "", "0", "9" * 400)


def numbers_and_durations(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every place of a JSON Schema that takes a number, or text in the form of a duration."""
    if isinstance(schema, dict):
        if schema.get("type") in ("integer", "number") or "(ms|s|m|h|d)" in str(schema.get("pattern", "")):
            yield path, schema
        for key, inner in schema.items():
            yield from numbers_and_durations(inner, f"{path}/{key}")
    elif isinstance(schema, list):
        for index, inner in enumerate(schema):
            yield from numbers_and_durations(inner, f"{path}/{index}")


def test_otp_s8_no_number_or_duration_of_the_language_can_be_infinite() -> None:
    """Every number has both bounds; every duration refuses what means "endless" in the schema, and more than 30 days
    when it is read. Whatever is called a timeout or a deadline is one of the two."""
    places = list(numbers_and_durations(json_schema()))
    durations = [(path, schema) for path, schema in places if schema["type"] == "string"]
    assert len(places) > 20 and len(durations) > 8
    for path, schema in places:
        if schema["type"] != "string":
            assert {"minimum", "maximum"} <= set(schema), path
    for path, schema in durations:
        check = json_schemas.validator(schema)
        assert not [text for text in ENDLESS if not json_schemas.errors(check, text)], path
        assert json_schemas.errors(check, float(10**300)), path
    for text in (*ENDLESS, "31d", "1d400y", f"{10**11}d"):
        with pytest.raises(DurationError):
            parse_duration_ms(text)
    assert parse_duration_ms("30d") == names.DURATION_MS_MAX
    known = {path for path, _ in places}
    for place, schema in json_schema()["$defs"].items():
        for key, inner in schema["properties"].items():
            if key in ("timeout", "deadline", "initial", "max_age", "ttl"):
                assert any(path.startswith(f"/$defs/{place}/properties/{key}") for path in known), (place, key, inner)


CONFIGS = (
    headrace.runtime.config,
    headrace_monitor.config,
    headrace_scheduler.config,
    headrace_session_store.config,
    headrace_step_executor.config,
    headrace_tool_registry.config,
)


@pytest.mark.parametrize("module", CONFIGS, ids=lambda module: module.__name__)
def test_otp_s8_no_number_of_the_configuration_can_be_infinite(module: ModuleType) -> None:
    """Every one has an upper and a lower bound, and none of the words for "endless" is a number."""
    models = [one for one in vars(module).values() if isinstance(one, type) and issubclass(one, BaseModel)]
    assert models
    for model in models:
        for name, field in model.model_fields.items():
            if not {int, float} & {field.annotation, *get_args(field.annotation)}:
                continue
            kinds = {type(bound) for bound in field.metadata}
            assert kinds & {annotated_types.Le, annotated_types.Lt}, f"{model.__name__}.{name} has no upper bound"
            assert kinds & {annotated_types.Ge, annotated_types.Gt}, f"{model.__name__}.{name} has no lower bound"
