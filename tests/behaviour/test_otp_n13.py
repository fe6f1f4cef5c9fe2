"""N13: the language is closed. Every key of the published schema, and every value of its choices, is named by a test
that shows what it does to a run; or the engine refuses it, and says so. A key without either fails here."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from headrace.pipeline.pending import PENDING
from headrace.pipeline.published_schema import json_schema
from headrace.pipeline.schema import KINDS, PLACES, rows
from tests.behaviour import test_keys, test_pairs
from tests.behaviour.cases import CASES

ROOT: Final = Path(__file__).parents[2]
PAIR: Final = "tests/behaviour/test_pairs.py::test_otp_n13_a_pair_of_kind_and_modifier_does_what_the_table_says"
KEY: Final = "tests/behaviour/test_keys.py::test_otp_n13_a_key_does_what_it_says"
FOR_PEOPLE: Final = frozenset({"pipeline.description"})
"""It changes nothing, and says so."""
ALSO: Final[dict[str, str]] = {
    "pipeline.triggers": "trigger.event",
    "pipeline.defaults": "defaults.timeout",
    "pipeline.limits": "limits.deadline",
    "limits.concurrency": "concurrency.key",
    "concurrency.on_excess": "concurrency.on_excess=reject",
    "case.steps": "case.when",
    "case.outputs": "case.when",
    "case.default": "case.when",
    "default.steps": "case.when",
    "default.outputs": "case.when",
    "signal.schema": "signal.name",
    "signal.on_timeout": "signal.timeout",
    "signal.on_timeout=fail": "signal.timeout",
    "signal.on_timeout=skip": "signal.timeout",
    "join.kind=left": "join.kind",
    "join.kind=inner": "operations.join",
    "message.role": "llm.messages",
    "message.role=system": "llm.messages",
    "message.role=user": "llm.messages",
    "message.role=assistant": "llm.messages",
    "message.content": "llm.messages",
}
"""Shown by the case of another key: a part of it, or what holds it."""
BY_PAIRS: Final[dict[str, str]] = {
    "retry.attempts": "retry",
    "step.on_item_error=fail": "on_item_error",
    "step.on_item_error=continue": "on_item_error",
    "step.on_limit=ok": "on_limit",
    "step.on_limit=fail": "max_iterations",
    "step.on_error=fail": "on_error",
    "step.on_error=continue": "on_error",
    "step.effect=at_most_once": "effect",
    "step.effect=idempotent": "effect",
    "step.effect=pure": "effect",
    "step.on_unknown=fail": "effect",
    "step.on_unknown=retry": "on_unknown",
    "step.on_unknown=ask": "on_unknown",
}
"""Shown by the pairs of a modifier."""
SCHEDULES: Final = "tests/integration/scheduler/test_schedules.py"
CRON: Final = "tests/unit/scheduler/test_cron.py"
APPROVALS: Final = "tests/unit/scheduler/test_approvals.py"
MODELS: Final = "tests/integration/executor/test_model_loop.py"
BUDGETS: Final = "tests/unit/scheduler/test_budgets.py"
METERING: Final = "tests/unit/step_executor/test_metering.py"
KEEPING: Final = "tests/integration/executor/test_keeping.py"
EMIT: Final = "tests/integration/scheduler/test_emit.py"
ELSEWHERE: Final[dict[str, str]] = {
    "pipeline.retain": f"{KEEPING}::test_a_workspace_is_kept_for_as_long_as_the_pipeline_says",
    "emit.name": f"{EMIT}::test_an_event_starts_what_listens_once_and_is_seen_by_its_run",
    "emit.data": f"{EMIT}::test_an_event_starts_what_listens_once_and_is_seen_by_its_run",
    "trigger.timezone": f"{CRON}::test_an_instant_is_fired_once_of_its_own_accord_and_never_early",
    "trigger.catch_up": f"{SCHEDULES}::test_with_catch_up_all_every_missed_instant_has_its_run",
    "trigger.catch_up=once": f"{SCHEDULES}::test_a_missed_cron_fires_once_after_an_outage_whoever_comes_first",
    "trigger.catch_up=all": f"{SCHEDULES}::test_with_catch_up_all_every_missed_instant_has_its_run",
    "trigger.catch_up=none": f"{CRON}::test_an_outage_of_an_hour_fires_as_catch_up_says",
    "approval.message": f"{APPROVALS}::test_an_approval_shows_its_message_and_gives_who_when_and_what",
    "approval.by": f"{APPROVALS}::test_input_48_what_a_command_is_told",
    "approval.timeout": f"{APPROVALS}::test_an_approval_that_nobody_gives_in_time_fails_or_skips_its_step",
    "approval.on_timeout": f"{APPROVALS}::test_an_approval_that_nobody_gives_in_time_fails_or_skips_its_step",
    "approval.on_timeout=fail": f"{APPROVALS}::test_an_approval_that_nobody_gives_in_time_fails_or_skips_its_step",
    "approval.on_timeout=skip": f"{APPROVALS}::test_an_approval_that_nobody_gives_in_time_fails_or_skips_its_step",
    "step.budget": f"{BUDGETS}::test_a_steps_budget_holds_for_all_items_and_for_every_attempt_of_its_group",
    "limits.budget": f"{BUDGETS}::test_what_does_not_fit_beside_others_waits_for_them_and_takes_what_they_leave",
    "budget.usd": f"{BUDGETS}::test_a_step_for_which_too_little_is_left_fails",
    "budget.tokens": f"{BUDGETS}::test_a_step_for_which_too_little_is_left_fails",
    "budget.on_exceed": f"{BUDGETS}::test_a_step_for_which_too_little_is_left_fails",
    "budget.on_exceed=pause": f"{BUDGETS}::test_a_run_that_has_used_up_its_budget_asks_and_goes_on_when_it_is_raised",
    "budget.on_exceed=fail": f"{BUDGETS}::test_a_step_for_which_too_little_is_left_fails",
    "llm.allow_unpriced": f"{METERING}::test_a_model_without_a_price_is_called_only_where_that_is_allowed",
    "llm.tools": f"{MODELS}::test_a_model_is_told_what_its_calls_gave_and_every_round_is_recorded",
    "llm.max_rounds": f"{MODELS}::test_input_38_what_is_not_allowed_is_refused_and_three_in_a_row_fail_the_step",
    "llm.output_schema": f"{MODELS}::test_input_39_an_answer_that_does_not_fit_is_repaired_or_fails_with_its_text_kept",
    "llm.repair": f"{MODELS}::test_input_39_an_answer_that_does_not_fit_is_repaired_or_fails_with_its_text_kept",
}
"""Shown by tests of their own: those that need an outage, a zone, a person, a model that answers as written."""
ISSUES: Final[dict[str, int]] = {
    "steps that wait for somebody": 3,
    "events out of runs": 3,
    "prices and budgets": 4,
    "the layer of models: tool loops, schemas, sessions": 4,
    "the event of a run": 3,
}
"""What an entry of `pending` waits for → the issue that brings it."""


def published() -> Iterator[str]:
    """`record.key` of every property of the published schema, and `record.key=value` of every choice."""
    whole = json_schema()
    for place, record in {"pipeline": whole, **whole["$defs"]}.items():
        for key, shape in record["properties"].items():
            yield f"{place}.{key}"
            for value in [*shape.get("enum", ()), *shape.get("items", {}).get("enum", ())]:
                yield f"{place}.{key}={value}"


@functools.cache
def due() -> frozenset[str]:
    """Keys that the engine refuses: named in `pending`, only below such a one, or only beside such a one."""
    refused = {entry for entry in PENDING if not entry.startswith("name:")}
    reached, looked = {"pipeline"}, set()
    while reached - looked:
        place = min(reached - looked)
        looked.add(place)
        for row in rows(place).values():
            name = f"{place}.{row.key}"
            if name not in refused and not _only_beside(place, row.needs, refused):
                inner = row.shape.item or row.shape
                reached |= {one for one in (row.shape.record, inner.record) if one}
                reached |= {"operations"} if row.shape.kind == "transform" else set()
    return frozenset(
        name
        for name in published()
        for key in (name.partition("=")[0],)
        for place, _, last in (key.partition("."),)
        if place not in reached
        or {name, key} & refused
        or _only_beside(place, rows(place)[last].needs, refused)
    )  # fmt: skip


def _only_beside(place: str, needs: tuple[str, ...], refused: set[str]) -> bool:
    return bool(needs) and all(f"{place}.{other}" in refused for other in needs)


def shown_by(key: str) -> tuple[str, ...]:
    """The ids of the tests that show what a key does; none: nothing does."""
    place, _, last = key.partition(".")
    if key in ELSEWHERE:
        return (ELSEWHERE[key],)
    if key in CASES:
        return (f"{KEY}[{key}]",)
    if key in ALSO:
        return (f"{KEY}[{ALSO[key]}]",)
    modifier = BY_PAIRS.get(key, last if place == "step" else "")
    if place == "step" and last in KINDS:
        return tuple(f"{PAIR}[{last}-{other}]" for kind, other in test_pairs.allowed() if kind == last)
    return tuple(f"{PAIR}[{kind}-{other}]" for kind, other in test_pairs.allowed() if other == modifier)


@pytest.mark.parametrize("key", sorted(published()))
def test_otp_n13_every_key_of_the_published_schema_has_a_test_of_its_behaviour(key: str) -> None:
    """By name, and the test exists; or the engine refuses the key, with the issue that brings it."""
    if key in FOR_PEOPLE or key in due():
        return
    tests = shown_by(key)
    assert tests, f"{key}: no test shows what it does; add one to tests/behaviour/cases.py or to test_pairs.py"
    for test in tests:
        assert exists(test), f"{key}: there is no test {test}"


def test_otp_n13_what_is_due_names_its_issue() -> None:
    """An entry of `pending` is somebody's work; and no table here is about keys that are gone."""
    assert set(PENDING.values()) <= set(ISSUES)
    names = set(published())
    assert set(ELSEWHERE) | set(ALSO) | set(BY_PAIRS) | FOR_PEOPLE | set(CASES) <= names
    assert set(ALSO.values()) <= set(CASES)
    assert {place for place in PLACES if place != "pipeline"} == set(json_schema()["$defs"])


def exists(test: str) -> bool:
    """Whether a test of this id would be collected; ids of parameters are looked up where the tables are ours."""
    path, _, rest = test.partition("::")
    function, _, parameter = rest.partition("[")
    if parameter:
        ids: dict[str, Any] = {
            PAIR: {"-".join(pair) for pair in test_pairs.allowed()},
            KEY: set(test_keys.CASES),
        }
        if parameter.rstrip("]") not in ids[f"{path}::{function}"]:
            return False
    return function in _functions(path)


@functools.cache
def _functions(path: str) -> frozenset[str]:
    if not (ROOT / path).is_file():
        return frozenset()
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(one.name for one in tree.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))


def test_otp_n13_a_test_that_is_not_there_is_noticed() -> None:
    """Otherwise the table could say anything."""
    assert exists(f"{KEY}[wait.for]")
    assert not exists(f"{KEY}[wait.for_ever]")
    assert not exists("tests/behaviour/test_keys.py::test_nothing")
    assert not exists("tests/behaviour/test_nothing.py::test_nothing")
