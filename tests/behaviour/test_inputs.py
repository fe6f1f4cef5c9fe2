"""Rows 15 to 33, 41, 46 and 47 of the bad inputs, by their numbers: what a file says is refused when it is loaded, and
nothing is written; what only a run can meet fails that run as the row says. Row 48 is with the approvals."""

import functools
import json
from pathlib import Path
from typing import Any, Final

import pytest

from headrace.contracts import events as ev
from headrace.contracts import names
from headrace.pipeline.bundle import load_bundle, load_text
from headrace.pipeline.problems import RefusedDefinitionError
from tests.behaviour.bodies import pipeline
from tests.behaviour.cases import do
from tests.behaviour.world import Act, Script, Seen, played

HEAD: Final = "pipeline: p\nsteps:\n"
WAIT: Final = "{wait: {for: 1s}}"
NESTED: Final = "inputs.l.all(a, inputs.l.all(b, inputs.l.all(c, a + b + c > -1)))"
REFUSED: Final[list[tuple[str, str, list[str]]]] = [
    ("15 promt", HEAD + "  a: {llm: {promt: x}}\n", ["3:13: E1101 unknown key `promt`; did you mean `prompt`?"]),
    ("16 unknown kind", HEAD + "  a: {shell: ls}\n", ["3:3: E1109", "one of llm, tool, transform, pipeline, steps"]),
    ("16 two kinds", HEAD + "  a: {tool: x, wait: {for: 1s}}\n", ["3:3: E1109 step `a` has 2 kinds: tool, wait"]),
    ("16 missing field", HEAD + "  a: {signal: {}}\n", ["3:7: E1103 `name` is missing"]),
    ("17 duplicated", HEAD + f"  a: {WAIT}\n  a: {WAIT}\n", ["4:3: E1010", "the first is at 3:3"]),
    ("17 reserved", HEAD + f"  in: {WAIT}\n", ["3:3: E1107 `in` is reserved"]),
    ("17 long", HEAD + f"  {'a' * 300}: {WAIT}\n", ["3:3: E1106", "[a-z][a-z0-9_-]{0,62}"]),
    ("17 path", HEAD + f'  "../x": {WAIT}\n', ["3:3: E1106", "[a-z][a-z0-9_-]{0,62}"]),
    ("17 emoji", HEAD + f'  "😀": {WAIT}\n', ["3:3: E1106", "[a-z][a-z0-9_-]{0,62}"]),
    ("18 undefined", HEAD + '  a: {transform: "${{ steps.b.output }}"}\n', ["3:29: E1201 no step `b`"]),
    (
        "18 cannot have run",
        HEAD + '  g: {steps: {x: {transform: "${{ steps.g.output }}"}}}\n',
        ["3:41: E1215 step `g` cannot have run: this is a part of it"],
    ),
    ("18 itself", HEAD + '  a: {transform: "${{ steps.a.output }}"}\n', ["3:29: E1202 step `a` reads itself"]),
    (
        "19 cycle",
        HEAD + "".join(f"  {a}: {{needs: {b}, wait: {{for: 1s}}}}\n" for a, b in ("ab", "bc", "ca")),
        ["E1203", "a → b → c → a"],
    ),
    ("20 none", "pipeline: p\nsteps: {}\n", ["2:8: E1104 0 steps; 1 to 10000 are allowed"]),
    ("20 many", HEAD + "".join(f"  s{n}: x\n" for n in range(10_001)), ["E1104 10001 steps; 1 to 10000 are allowed"]),
    (
        "20 literal",
        HEAD + f"  a: {{foreach: [{','.join('1' * 60_000)}], wait: {{for: 1s}}}}\n",
        ["E1014 more than 50000 nodes"],
    ),
    (
        "20 literal of a million",
        HEAD + f"  a: {{foreach: [{','.join('1' * 1_000_000)}], wait: {{for: 1s}}}}\n",
        ["E1002", str(1024 * 1024)],
    ),
    ("21 while", HEAD + "  a: {tool: x, while: 'true'}\n", ["E1111 `while` needs `max_iterations` beside it"]),
    ("23 syntax", HEAD + '  a: {transform: "${{ 1 + }}"}\n', ["3:27: E1301 Syntax error"]),
    ("23 unknown", HEAD + '  a: {transform: "${{ 1 + nope }}"}\n', ["3:27: E1301 unknown name `nope`"]),
    ("23 overload", HEAD + '  a: {transform: "${{ size(1) }}"}\n', ["3:27: E1301 found no matching overload"]),
    ("24 division", HEAD + '  a: {transform: "${{ 1/0 }}"}\n', ["3:23: E1301 this never has a value", "zero"]),
    (
        "24 overflow",
        HEAD + '  a: {transform: "${{ 9223372036854775807 + 1 }}"}\n',
        ["3:23: E1301 this never has a value", "overflow"],
    ),
    ("25 class", HEAD + '  a: {transform: "${{ ().__class__ }}"}\n', ["E1301"]),
    ("25 unclosed", HEAD + '  a: {transform: "${{ 1"}\n', ["3:19: E1301 `${{` is never closed by `}}`"]),
    *(
        (f"28 {text}", HEAD + f"  a: {{tool: x, timeout: {text}}}\n", ["3:25: E1108", "1ms", "30d", *more])
        for text, more in (
            ("0", ()), ("-1", ()), ("inf", ("infinite is not available",)), ("1d400y", ()), ('"5 minuts"', ()),
        )
    ),
    ("29 attempts", HEAD + "  a: {tool: x, retry: {attempts: -1}}\n", ["3:34: E1104 -1", "1 to 100 are allowed"]),
    ("29 initial", HEAD + "  a: {tool: x, retry: {initial: 0s}}\n", ["3:33: E1108", "1ms"]),
    ("29 many", HEAD + "  a: {tool: x, retry: {attempts: 1000000000}}\n", ["3:34: E1104", "1 to 100 are allowed"]),
    *(
        (f"30 {what}", f"pipeline: p\nlimits: {{budget: {{{what}}}}}\nsteps: {{a: {WAIT}}}\n", found)
        for what, found in (
            ("usd: -5", ["2:24: E1104 -5 is outside the bounds"]),
            ("usd: .nan", ["2:24: E1017 .nan is not a finite number"]),
            ("eur: 5", ["2:19: E1101 unknown key `eur`"]),
            ("tokens: 5X", ["2:27: E1102 expected a count"]),
        )
    ),
    (
        "32 literal",
        HEAD + "  a: {tool: x, with: {key: sk-" + "A1b2" * 8 + "}}\n",
        ["3:28: E1115 this looks like a credential; use `secrets.<NAME>`"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("row", "text", "says"), REFUSED, ids=[row for row, _, _ in REFUSED])
def test_input_15_to_32_a_file_is_refused_as_its_row_says(row: str, text: str, says: list[str]) -> None:
    """With the code, the place and what to do in one line; 65; and nothing that looks like a key is repeated."""
    with pytest.raises(RefusedDefinitionError) as caught:
        load_text(text, pending={})
    assert caught.value.exit_code == names.EXIT_DATA
    lines = caught.value.problems
    assert any(all(part in line for part in says) for line in lines), lines
    assert "A1b2A1b2" not in "".join(lines)


def test_input_22_a_pipeline_that_calls_itself_is_refused_with_the_way_round(tmp_path: Path) -> None:
    """Where the file can tell."""
    (tmp_path / "a.yaml").write_text("pipeline: a\nsteps: {s: {pipeline: ./b.yaml}}\n")
    (tmp_path / "b.yaml").write_text("pipeline: b\nsteps: {s: {pipeline: ./a.yaml}}\n")
    with pytest.raises(RefusedDefinitionError, match=r"E1210 the pipeline calls itself: .*a\.yaml.*b\.yaml.*a\.yaml"):
        load_bundle(tmp_path / "a.yaml")


# --- what only a run can meet ----------------------------------------------------------------------------------------


def _deep() -> list[str]:
    """Eleven pipelines, each of which starts the next one by its name; the last one is registered first."""
    texts = [json.dumps({"pipeline": "d11", "steps": {"s": do()}})]
    for number in range(10, 0, -1):
        step = {"pipeline": f"d{number + 1}"}
        texts.append(json.dumps({"pipeline": f"d{number}", "steps": {"s": step}}))
    return texts


def _on(source: str, **more: Any) -> Script:
    """A step with this expression, whose failure the pipeline puts up with, and one after it."""
    inputs = {"l": {"default": list(range(200))}, "n": {"default": 7}, "zero": {"default": 0}}
    steps = {"s": {"transform": f"${{{{ {source} }}}}", "on_error": "continue", **more}, "t": do(give=1)}
    return Script(json.dumps({"pipeline": "p", "inputs": inputs, "steps": steps}))


SAID: Final = "${{ secrets.X }} and {{ x }}"
GATE: Final = pipeline({"s": {"signal": {"name": "go"}}}, name="gate")
BODY: Final = {"pipeline": "gate", "inputs": {}}


@functools.cache
def world() -> dict[str, Seen]:
    """Every row that needs a run, side by side."""
    *before, deep = _deep()
    each = {"foreach": "split(inputs.t, '')", "transform": "${{ item }}", "on_error": "continue"}
    long = json.dumps({"pipeline": "p", "inputs": {"t": {"type": "string"}}, "steps": {"s": each, "t": do()}})
    literal = pipeline(
        {"a": do(give="$" + SAID), "b": do(give="${{ steps.a.output + '!' }}")}, outputs={"v": "${{ steps.b.output }}"}
    )
    again = [
        Act(0.5, "run-start", BODY | {"runid": "row46"}),
        Act(0.6, "run-start", BODY | {"inputs": {"x": 8}, "runid": "row46"}),
        Act(1.0, "run-signal", {"name": "go", "payload": 1}),
    ]
    gone = [
        Act(2.0, "run-pause"),
        Act(2.0, "run-cancel"),
        Act(2.0, "run-signal", {"name": "go", "runid": "never"}),
        Act(2.0, "run-cancel", {"runid": "never"}),
        Act(2.0, "run-approve", {"runid": "never", "step": "s", "hash": "0" * 64, "by": "ann"}),
        Act(2.0, "run-approve", {"step": "s", "hash": "0" * 64, "by": "ann"}),
    ]
    return played(
        {
            "row20": Script(long, {"t": "x" * (names.FOREACH_ITEMS_MAX + 1)}),
            "row22": Script(deep, beside=tuple(before)),
            "row24-cost": _on(NESTED),
            "row24-eval": _on("1 / inputs.zero"),
            "row24-over": _on("9223372036854775807 + inputs.n"),
            "row26": Script(literal),
            "row27": _on("1", when="inputs.n"),
            "row41": Script(pipeline({"s": do(bits=70) | {"on_error": "continue"}, "t": do(bits=62)})),
            "row46": Script(GATE, acts=tuple(again)),
            "row47": Script(pipeline({"s": do()}, name="done"), acts=tuple(gone)),
        }
    )


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("row20", "limit_exceeded"),
        ("row24-cost", "expr_cost"),
        ("row24-eval", "expr_eval"),
        ("row24-over", "expr_eval"),
        ("row27", "type_mismatch"),
        ("row41", "out_of_range"),
    ],
)
def test_input_20_to_41_a_step_fails_with_its_code_and_the_run_goes_on_as_declared(row: str, code: str) -> None:
    """Never false, 0 or an empty list in its place."""
    seen = world()[row]
    assert seen.error("s") == code
    assert seen.step("t") == "succeeded"
    assert seen.status == "completed" and seen.end.degraded


def test_input_22_the_eleventh_level_fails_and_all_above_it_settle() -> None:
    """With `nesting_limit` where it was asked for; no eleventh run exists."""
    runs = [seen for seen in world().values() if seen.messages and seen.messages[0].pipeline in
            {f"d{number}" for number in range(1, 12)}]  # fmt: skip
    by_name = {seen.messages[0].pipeline: seen for seen in runs}
    assert set(by_name) == {f"d{number}" for number in range(1, 11)}
    assert by_name["d10"].error("s") == "nesting_limit"
    assert {seen.status for seen in runs} == {"failed"}


def test_input_26_what_came_from_data_stays_literal() -> None:
    """It is passed on, added to, and never evaluated."""
    assert world()["row26"].outputs == {"v": SAID + "!"}


def test_input_46_the_same_start_is_the_same_run_and_another_body_is_refused() -> None:
    """409 `key_reused`; the run is not disturbed."""
    seen = world()["row46"]
    same, other, _ = seen.outcomes
    assert isinstance(other, ev.CommandRefused) and other.data.reasons[0].code == "key_reused"
    assert isinstance(same, ev.CommandRefused | ev.CommandAccepted)
    assert len(seen.of(ev.RunCreated)) == 1
    assert seen.status == "completed"


def test_input_47_what_is_over_or_unknown_is_told_so() -> None:
    """409 with its state for a run that has ended, 404 for one that there never was."""
    codes = [one.data.reasons[0].code for one in world()["row47"].outcomes]
    assert codes == ["conflict", "conflict", "not_found", "not_found", "not_found", "conflict"]
    assert "completed" in world()["row47"].outcomes[1].data.reasons[0].message
