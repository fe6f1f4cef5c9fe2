"""Order, conditions, names, and the keys that every step has."""

import pytest
from tests.unit.pipeline.importer.conversion import document, imported, old, refusals, said, steps_of

from headrace.pipeline.importer.files import import_text


def test_steps_keep_their_order() -> None:
    """Each needs the one before, the file it wrote included."""
    made = steps_of(
        "- {name: a, type: gemini, prompt: x, output_to_file: a.md}\n- {name: b, type: test_echo, value: 1}\n"
        "- {name: c, type: test_echo, value: 2}\n"
    )
    assert list(made) == ["a", "a_file", "b", "c"]
    assert [made[step].get("needs") for step in made] == [None, None, ["a_file"], ["b"]]


def test_what_follows_a_step_with_a_condition_is_not_skipped_with_it() -> None:
    """An optional reference only orders; what reads the skipped step is skipped, and the report says so."""
    steps = (
        "- {name: a, type: test_echo, value: {ok: true}}\n- {name: my-b, type: gemini, prompt: x, condition: a.ok}\n"
        "- {name: c, type: test_echo, value: 1}\n- {name: d, type: test_echo, value: 2, condition: 'a.ok == true'}\n"
        "- name: e\n  type: gemini\n  prompt:\n  - {type: previous_response, step: my-b}\n"
    )
    made = steps_of(steps)
    assert made["c"]["needs"] == ["a"]
    assert made["c"]["when"] == 'steps[?"my-b"].?status.orValue("") != "failed"'
    assert made["d"]["needs"] == ["c"]
    assert made["e"]["when"] == 'steps.?d.?status.orValue("") != "failed"'
    assert said(imported(steps), "N1541") == ["skipped when `my-b` is, because it reads it"]


def test_names_become_ids_and_references_follow() -> None:
    """Any text was a name."""
    made = document(
        "- {name: First Step!, type: test_echo, value: {n: 1}}\n"
        "- {name: 2, type: test_echo, value: '{{steps.First Step!.n}}'}\n"
    )
    assert list(made["steps"]) == ["first_step", "step_2"]
    assert made["steps"]["step_2"]["transform"] == "${{ steps.first_step.output.n }}"
    assert made["outputs"] == {"first_step": "${{ steps.first_step.output }}", "step_2": "${{ steps.step_2.output }}"}


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ("- {name: a, type: test_echo}\n- {name: a, type: test_echo}", ["5:8: E1505 two steps are called `a`"]),
        ("- {type: test_echo}", ["4:7: E1502 `name` is missing"]),
        ("- {name: a}", ["4:7: E1502 `type` is missing"]),
        ("- {name: a, type: claud, prompt: x}", ["4:17: E1504 `claud` is no type of step; did you mean `claude`?"]),
        ("- {name: a, type: gemini}", ["4:7: E1502 step `a` has no `prompt`"]),
        ("- 7", ["4:7: E1503 a map is expected in `steps`, this is 7"]),
        (
            "- {name: a, type: nope}\n- {name: b, type: test_echo, value: '{{steps.a.x}}'}\n- {name: c, type: nope}",
            [
                "4:17: E1504 `nope` is no type of step; see docs/import.md for those there are",
                "6:17: E1504 `nope` is no type of step; see docs/import.md for those there are",
            ],
        ),
        (
            "- {name: a, type: codebase_query, queries: {}}",
            ["4:17: E1510 `codebase_query` has no counterpart; write `fs.glob` and `fs.grep` steps for what it asks"],
        ),
    ],
)
def test_what_cannot_be_converted_is_refused_with_every_error(steps: str, expected: list[str]) -> None:
    """At its line and column; a step that reads a refused one is not an error of its own."""
    assert refusals(steps) == expected


def test_keys_that_did_nothing_have_their_effect_or_are_reported() -> None:
    """No key is dropped in silence."""
    steps = (
        "- name: a\n  type: claude\n  prompt: x\n  timeout_seconds: 90\n  retry: {max_attempts: 3, backoff: linear}\n"
        "  continue_on_error: true\n  cache: {enabled: true}\n  role: brain\n  colour: red\n"
    )
    made = steps_of(steps)["a"]
    assert (made["timeout"], made["retry"], made["on_error"]) == ("90s", {"attempts": 3}, "continue")
    assert made["description"] == "brain"
    result = imported(steps)
    assert said(result, "W1520") == [
        "`cache` is dropped: `cache: {key, ttl}` needs a key that says what the result depends on"
    ]
    assert said(result, "W1521") == ["`colour` is no key of a `claude` step; it is dropped"]


def test_an_error_policy_becomes_a_fallback() -> None:
    """The default value is a degraded result, not a success."""
    steps = "- {name: a, type: gemini, prompt: x, on_error: {action: continue, default_value: {text: none}}}"
    assert steps_of(steps)["a"]["fallback"] == {"value": {"text": "none"}}


def test_a_long_timeout_gets_a_deadline_that_lets_it_end() -> None:
    """An hour over all attempts is the default."""
    made = steps_of("- {name: a, type: claude, prompt: x, claude_options: {timeout_ms: 1800000}}")["a"]
    assert (made["timeout"], made["deadline"]) == ("30m", "130m")


def test_more_steps_than_ever_ran_are_refused() -> None:
    """A thousand were the old limit of one run."""
    many = "\n".join(f"- {{name: s{index}, type: test_echo, value: 1}}" for index in range(1001))
    result = import_text(old(many))
    assert [found.code for found in result.differences] == ["E1514"]
