"""Definitions that are refused by shape, reference or graph: each with its exact text, all of them at once."""

import time

import pytest
import yaml
from tests.benchmarks.definitions import definition

from headrace.contracts import names
from headrace.contracts.errors import DefinitionError
from headrace.pipeline.bundle import load_text
from headrace.pipeline.problems import CODES, RefusedDefinitionError, shown

HEAD = "pipeline: p\nsteps:\n"
DURATION = "write a number and ms, s, m, h or d, such as `10m` or `1h30m`, from 1ms to 30d"
KNOWN = "inputs, vars, steps, item, index, carry, iteration, run, event, secrets"
KINDS = "llm, tool, transform, pipeline, steps, switch, wait, signal, approval, emit"


def refused(text: str) -> list[str]:
    """The problems of a document, without the file's name."""
    with pytest.raises(RefusedDefinitionError) as caught:
        load_text(text, file="p.yaml")
    assert isinstance(caught.value, DefinitionError)
    assert caught.value.exit_code == names.EXIT_DATA
    assert all(problem.code in CODES for problem in caught.value.found)
    return [line.removeprefix("p.yaml:") for line in caught.value.problems]


BAD: list[tuple[str, str, list[str]]] = [
    (
        "15 unknown key",
        HEAD + "  a: {llm: {promt: hi, prompt: x}}\n",
        ["3:13: E1101 unknown key `promt`; did you mean `prompt`?"],
    ),
    (
        "15 unknown keys at the top",
        "pipelin: x\nstep: {}\n",
        [
            "1:1: E1101 unknown key `pipelin`; did you mean `pipeline`?",
            "1:1: E1103 `pipeline` is missing; The pipeline's name.",
            "1:1: E1103 `steps` is missing; The steps by id; order means nothing.",
            "2:1: E1101 unknown key `step`; did you mean `steps`?",
        ],
    ),
    (
        "15 a key of another kind",
        HEAD + "  a: {tool: x}\n  b: {wait: {for: 1s}, fallback: a}\n",
        [
            "4:24: E1110 `fallback` does not go with `wait`; "
            "it goes with llm, tool, transform, pipeline, steps, switch, signal and approval",
        ],
    ),
    (
        "16 no kind",
        HEAD + "  a: {needs: []}\n",
        [f"3:3: E1109 step `a` has no kind; a step has exactly one of {KINDS}"],
    ),
    (
        "16 unknown kind",
        HEAD + "  a: {shell: ls}\n",
        [f"3:3: E1109 step `a` has no kind; a step has exactly one of {KINDS}", "3:7: E1101 unknown key `shell`"],
    ),
    (
        "16 two kinds",
        HEAD + "  a: {tool: fs.stat, with: {path: x}, wait: {for: 1s}}\n",
        [f"3:3: E1109 step `a` has 2 kinds: tool, wait; a step has exactly one of {KINDS}"],
    ),
    (
        "16 missing field",
        HEAD + "  a: {llm: {}}\n  b: {wait: {}}\n  c: {wait: {for: 1s, until: x}}\n",
        [
            "3:7: E1103 exactly one of `prompt`, `messages` is needed; found none",
            "4:7: E1103 exactly one of `for`, `until` is needed; found none",
            "5:7: E1111 exactly one of `for`, `until` is needed; found for, until",
        ],
    ),
    (
        "17 ids",
        HEAD
        + "  A: &x\n".replace("&x", "{wait: {for: 1s}}")
        + '  in: {wait: {for: 1s}}\n  "../x": {wait: {for: 1s}}\n  "😀": {wait: {for: 1s}}\n'
        + f"  {'a' * 64}: {{wait: {{for: 1s}}}}\n",
        [
            f'3:3: E1106 "A" is not a name; names match {"[a-z][a-z0-9_-]{0,62}"}',
            "4:3: E1107 `in` is reserved; it is a word of the expression language",
            f'5:3: E1106 "../x" is not a name; names match {"[a-z][a-z0-9_-]{0,62}"}',
            f'6:3: E1106 "\\U0001f600" is not a name; names match {"[a-z][a-z0-9_-]{0,62}"}',
            f'7:3: E1106 "{"a" * 60}…" is not a name; names match {"[a-z][a-z0-9_-]{0,62}"}',
        ],
    ),
    (
        "18 references",
        HEAD
        + "  list: {wait: {for: 1s}, needs: [list, lost]}\n"
        + '  b: {transform: "${{ steps.lits.output }}"}\n'
        + '  c: {transform: {x: "${{ steps.c.output }}"}}\n'
        + "  d: {wait: {for: 1s}, needs: nobody}\n",
        [
            "3:35: E1202 step `list` needs itself",
            "3:41: E1201 no step `lost`; did you mean `list`?",
            "4:29: E1201 no step `lits`; did you mean `list`?",
            "5:33: E1202 step `c` reads itself",
            "6:31: E1201 no step `nobody`; known are list, b, c, d",
        ],
    ),
    (
        "19 a cycle of three",
        HEAD + "  a: {wait: {for: 1s}, needs: b}\n  b: {wait: {for: 1s}, needs: [c]}\n"
        '  c: {transform: "${{ steps.a.output }}"}\n  d: {wait: {for: 1s}, needs: a}\n',
        ["3:3: E1203 the steps wait for each other: a → b → c → a"],
    ),
    ("20 no steps", "pipeline: p\nsteps: {}\n", ["2:8: E1104 0 steps; 1 to 10000 are allowed"]),
    (
        "25 an unclosed expression",
        HEAD + '  a: {transform: "${{ 1 "}\n  b: {when: "x ${{ 1 }}", wait: {for: 1s}}\n',
        [
            "3:19: E1301 `${{` is never closed by `}}`",
            "4:13: E1303 one expression is expected, this is text with expressions; write it as one",
        ],
    ),
    (
        "27 a condition that is never a boolean",
        HEAD + "  a: {when: 1 + 1, wait: {for: 1s}}\n  b: {when: 7, wait: {for: 1s}}\n",
        [
            "3:13: E1304 a condition is true or false, this gives int; compare it with something",
            "4:13: E1102 expected a condition, got 7",
        ],
    ),
    (
        "28 durations",
        HEAD + "  a: {tool: x, timeout: 0s}\n  b: {tool: x, timeout: -1}\n  c: {tool: x, timeout: inf}\n"
        '  d: {tool: x, timeout: 1d400y}\n  e: {tool: x, timeout: "5 minuts"}\n  f: {tool: x, timeout: 31d}\n'
        "  g: {tool: x, timeout: 012}\n",
        [
            '3:25: E1108 a duration of "0s" is outside the bounds; write one from 1ms to 30d',
            f"4:25: E1108 expected a duration, got -1; {DURATION}",
            '5:25: E1108 "inf": infinite is not available; write a duration from 1ms to 30d',
            f'6:25: E1108 expected a duration, got "1d400y"; {DURATION}',
            f'7:25: E1108 expected a duration, got "5 minuts"; {DURATION}',
            '8:25: E1108 a duration of "31d" is outside the bounds; write one from 1ms to 30d',
            f"9:25: E1108 expected a duration, got 12; {DURATION}",
        ],
    ),
    (
        "29 retry",
        HEAD + "  a: {tool: x, retry: {attempts: -1, initial: 0s}}\n  b: {tool: x, retry: {attempts: 1000000000}}\n"
        "  c: {tool: x, retry: {initial: 5s, max: 1s}}\n",
        [
            "3:34: E1104 -1 is outside the bounds; 1 to 100 are allowed",
            '3:47: E1108 a duration of "0s" is outside the bounds; write one from 1ms to 30d',
            "4:34: E1104 1000000000 is outside the bounds; 1 to 100 are allowed",
            "5:42: E1104 `max` is shorter than `initial`; make it at least as long",
        ],
    ),
    (
        "34 artifacts",
        HEAD + "  a: {tool: x, artifacts: [../x, /etc/passwd, out/**]}\n",
        [
            '3:28: E1208 "../x" leaves the workspace; write a path below it, such as `out/*.md`',
            '3:34: E1208 "/etc/passwd" leaves the workspace; write a path below it, such as `out/*.md`',
        ],
    ),
    (
        "12 the value as read",
        "pipeline: 012\ndescription: 1e3\nworkspace: no\n"
        "steps: {a: {wait: {for: 1s}, priority: high, labels: {x: 1:30, y: 1}}}\n",
        [
            "1:11: E1102 expected a name, got 12; quote it",
            "2:14: E1102 expected text, got 1000.0; quote it",
            '3:12: E1102 expected true or false, got "no"',
            '4:40: E1102 expected a whole number, got "high"',
            "4:67: E1102 expected text, got 1; quote it",
        ],
    ),
    (
        "modifiers that do not fit",
        HEAD + "  a: {wait: {for: 1s}, timeout: 1s, as: x}\n  b: {tool: x, effect: maybe, on_item_error: continue}\n",
        [
            "3:24: E1110 `timeout` does not go with `wait`; "
            "it goes with llm, tool, transform, pipeline, steps and switch",
            "3:37: E1111 `as` needs `foreach` beside it",
            '4:24: E1105 "maybe" is not allowed; one of pure, idempotent, at_most_once',
            "4:31: E1111 `on_item_error` needs `foreach` beside it",
        ],
    ),
    (
        "tools",
        HEAD + "  a: {tool: fs.raed, with: {path: x}}\n  b: {tool: fs.read, with: {pth: x}}\n"
        '  c: {tool: fs.read, with: {path: x, max_bytes: "${{ 1 }}", format: xml}}\n'
        "  d: {tool: fs.write, with: {path: x, text: a, json: 1}}\n  e: {tool: mcp.x.y, with: {any: 1}}\n",
        [
            "3:13: E1204 no tool `fs.raed`; did you mean `fs.read`?",
            "4:7: E1207 `fs.read` needs the argument `path`",
            "4:29: E1207 `fs.read` has no argument `pth`; did you mean `path`?",
            '5:69: E1207 `format` does not fit `fs.read`: "xml" is not one of "text", "lines" or 3 other candidates',
            "6:7: E1207 `fs.write` needs exactly one of `text`, `json`, `base64`",
        ],
    ),
    (
        "names in expressions",
        "pipeline: p\ninputs: {size: {type: integer}}\nvars: {limit: 1}\nsteps:\n"
        '  a: {transform: {x: "${{ inputs.sise }}", y: "${{ vars.limt + item }}"}}\n'
        '  b: {foreach: inputs.size, as: one, transform: {x: "${{ one.x + two }}"}}\n'
        "  c: {foreach: item.x, wait: {for: 1s}}\n  d: {foreach: size(inputs), wait: {for: 1s}}\n",
        [
            "5:34: E1205 no input `sise`; did you mean `size`?",
            "5:57: E1205 no variable `limt`; did you mean `limit`?",
            "5:64: E1206 `item` is known only in a step with `foreach`",
            f"6:66: E1301 unknown name `two`; known are {KNOWN}",
            "7:16: E1206 `item` is known only in a step with `foreach`",
            "8:16: E1304 `foreach` takes a list, this gives int; for a map, take its `keys()`",
        ],
    ),
    (
        "expressions where none is evaluated",
        'pipeline: p\nvars: {x: ["${{ inputs.a }}"]}\ndescription: "${{ 1 }}"\nsteps:\n'
        '  a: {transform: hello}\n  b: {foreach: ["${{ 1 }}"], wait: {for: 1s}}\n',
        [
            "2:12: E1302 no expression is evaluated here; `vars` are constants",
            "3:14: E1302 no expression is evaluated here; this is fixed when the file is loaded; write a constant",
            "5:18: E1303 a transform is an expression, this is text; write `${{ … }}`",
            "6:16: E1302 a list of constants cannot hold expressions; write the whole list as one expression",
        ],
    ),
    (
        "inputs",
        "pipeline: p\ninputs:\n  a: {type: strin}\n  b: {type: integer, default: x}\n  c: {$ref: 'http://x.test/y'}\n"
        "  d: {type: string, pattern: '(?=x)'}\n  e: {type: string, pattern: '(a+)+$'}\n"
        "steps: {a: {wait: {for: 1s}}}\n",
        [
            '3:6: E1112 not a JSON Schema: "strin" is not valid under any of the schemas '
            "listed in the 'anyOf' keyword",
            '4:31: E1113 the default does not fit: "x" is not of type "integer"',
            "5:6: E1112 not a JSON Schema: Resource 'http://x.test/y' is not present in a registry and retrieving it "
            "failed: "
            "ValueError: `$ref` to http://x.test/y: schemas are not fetched",
            '6:6: E1112 not a JSON Schema: "(?=x)" is not a "regex"',
        ],
    ),
    (
        "triggers",
        "pipeline: p\ntriggers: [{event: pushed, when: inputs.a == 1, inputs: {b: 1}}, {when: 'true'}]\n"
        "steps: {a: {wait: {for: 1s}}}\n",
        ["2:66: E1103 exactly one of `event`, `cron` is needed; found none"],
    ),
    (
        "triggers see only the event",
        "pipeline: p\ntriggers: [{event: pushed, when: inputs.a == 1, inputs: {b: 1}}]\n"
        "steps: {a: {wait: {for: 1s}}}\n",
        ["2:34: E1206 `inputs` is not in scope here; in scope are event, vars", "2:58: E1205 no input `b`"],
    ),
    (
        "instants",
        HEAD + "  a: {wait: {until: tomorrow}}\n  b: {wait: {until: 2024-02-30T00:00:00Z}}\n",
        [
            '3:21: E1108 expected an instant with a time zone, got "tomorrow"; write it as `2026-01-31T06:00:00Z`',
            '4:21: E1108 "2024-02-30T00:00:00Z" is no instant (day is out of range for month); '
            "write it as `2026-01-31T06:00:00Z`",
        ],
    ),
    ("a list", "- a\n", ["1:1: E1102 a pipeline is a map, got a list; begin with `pipeline: <name>`"]),
]


@pytest.mark.parametrize(("what", "text", "expected"), BAD, ids=[what for what, _, _ in BAD])
def test_input_15_to_29_are_refused(what: str, text: str, expected: list[str]) -> None:
    """Every problem at its place, in the order of the file, with what to do."""
    assert refused(text) == expected, what


def test_input_15_a_key_of_a_later_release_is_refused_by_its_name() -> None:
    """Where the engine cannot yet what the language has, `pending` says so."""
    text = HEAD + "  a: {tool: x, priority: 1}\n"
    with pytest.raises(RefusedDefinitionError) as caught:
        load_text(text, pending={"step.priority": "those who can wait"})
    expected = "3:16: E1401 `priority` cannot be executed by this release yet; it waits for: those who can wait"
    assert [str(one).removeprefix("pipeline.yaml:") for one in caught.value.found] == [expected]


def test_input_23_a_problem_lies_inside_the_scalar() -> None:
    """In a block of text, on the line of the expression that is wrong."""
    text = HEAD + (
        "  a:\n    llm:\n      prompt: |\n        Fine ${{ 1 + 1 }}\n        not ${{ inputs.x +\n          nope }}\n"
        "  b:\n    when: >\n      inputs.x\n      == 1\n    wait: {for: 1s}\n"
    )
    assert refused(text) == [
        f"8:11: E1301 unknown name `nope`; known are {KNOWN}",
        "11:14: E1205 no input `x`",
    ]


def test_input_21_a_while_needs_its_bound() -> None:
    """There is no loop without an end."""
    (problem,) = refused(HEAD + "  a: {tool: x, until: 'false'}\n")[:1]
    assert problem == "3:16: E1111 `until` needs `max_iterations` beside it"


def test_input_22_steps_nest_ten_deep() -> None:
    """One more is refused, with the number."""

    def nested(depth: int) -> str:
        body = "{tool: x}"
        for level in range(depth - 1):
            body = f"{{steps: {{s{level}: {body}}}}}"
        return f"{HEAD}  top: {body}\n"

    assert load_text(nested(10), pending={}).plan.nodes[-1].path.count("/") == 9
    with pytest.raises(RefusedDefinitionError, match="E1211 steps nested deeper than 10"):
        load_text(nested(11), pending={})


def test_input_30_a_budget_is_a_number_with_a_known_unit() -> None:
    """Less than nothing, no number, and units that nobody knows."""
    budgets = ["{usd: -5}", "{usd: .nan}", "{tokens: 5X}", "{tokens: -1}", "{eur: 5}"]
    expected = [
        "1:33: E1104 -5 is outside the bounds; 0 to 1e+06 are allowed",
        "1:33: E1017 .nan is not a finite number; quote it if it is text",
        '1:36: E1102 expected a count, got "5X"; write a whole number, or one with k, M or G, such as `500k`',
        "1:36: E1104 -1 is outside the bounds; 1 to 1e+12 are allowed",
        "1:28: E1101 unknown key `eur`; known are usd, tokens, on_exceed",
    ]
    for budget, wanted in zip(budgets, expected, strict=True):
        with pytest.raises(RefusedDefinitionError) as caught:
            load_text(f"limits: {{         budget: {budget}}}\npipeline: p\nsteps: {{a: {{tool: x}}}}\n", pending={})
        found = [str(problem).removeprefix("pipeline.yaml:") for problem in caught.value.found]
        assert wanted in found


def test_input_32_a_credential_is_refused_and_never_shown() -> None:
    """Wherever it stands, also where something else is wrong with the value."""
    key = "sk-" + "A1b2" * 8
    places = [
        f"  a: {{tool: x, with: {{deep: [{{k: 'Bearer {key}'}}]}}}}\n",
        f"  a: {{llm: {{prompt: '${{{{ inputs.x }}}} {key}'}}}}\n",
        f"  a: {{tool: '{key}'}}\n",
        f"  a: {{tool: x, timeout: '{key}'}}\n",
        f"  a: {{tool: x, labels: {{a: '{key}'}}}}\n",
        f"  a: {{transform: {{from: x, select: '{key}'}}}}\n",
    ]
    for place in places:
        problems = refused(HEAD + place)
        assert any("E1115 this looks like a credential; use `secrets.<NAME>`" in problem for problem in problems)
        assert key not in "".join(problems)
    assert shown(key) == '"…"'


def test_input_20_steps_are_counted_with_those_inside() -> None:
    """A file of few groups may hold too many steps."""
    inner = ", ".join(f"s{index}: {{tool: x}}" for index in range(2600))
    groups = "".join(f"  g{number}: {{steps: {{{inner}}}}}\n" for number in range(4))
    with pytest.raises(RefusedDefinitionError, match="E1104 10404 steps, those inside of steps included"):
        load_text(HEAD + groups, pending={})


def test_input_20_too_many_steps() -> None:
    """The limit with its number; the file is below the limits of the loader."""
    steps = "".join(f"  s{index}: x\n" for index in range(10_001))
    assert refused(HEAD + steps)[0] == "3:3: E1104 10001 steps; 1 to 10000 are allowed"


def test_at_most_fifty_problems_are_shown() -> None:
    """More than that is one mistake shown many times."""
    assert len(refused(HEAD + "".join(f"  s{index}: {{}}\n" for index in range(200)))) == 50


def test_a_long_chain_is_no_recursion() -> None:
    """3,000 steps one after another are checked, and so is the cycle that they make."""
    chain = [f"  s{index}: {{wait: {{for: 1s}}, needs: s{index + 1}}}\n" for index in range(3000)]
    load_text(HEAD + "".join(chain) + "  s3000: {wait: {for: 1s}}\n")
    (problem,) = refused(HEAD + "".join(chain) + "  s3000: {wait: {for: 1s}, needs: s0}\n")
    assert problem.startswith("3:3: E1203 the steps wait for each other: s0 → s1 → s2")


def test_two_hundred_steps_are_checked_at_the_pace_of_the_parser() -> None:
    """Nine times what YAML alone takes in CPU time; `tests.benchmarks.definitions` has the milliseconds."""
    load_text(definition(salt=1))
    ratios = []
    for salt in range(12_345, 12_348):
        text = definition(salt)
        began = time.process_time()
        events = list(yaml.parse(text, Loader=yaml.CSafeLoader))
        parsed = time.process_time()
        load_text(text)
        ratios.append((time.process_time() - parsed) / (parsed - began))
        assert events
    assert min(ratios) < 20, ratios
