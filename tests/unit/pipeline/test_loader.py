"""Rows 1 to 14 of the bad inputs: documents that are refused, each with its exact text, and at what cost."""

import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.contracts import names
from headrace.contracts.errors import InputFileError
from headrace.pipeline.loader import DOCUMENT_BYTES_MAX, SCALAR_BYTES_MAX, load_bytes, load_file
from headrace.pipeline.problems import PROBLEMS_MAX, RefusedDefinitionError

PLAIN = "write the plain value"
ANCHOR = "write the value out; constants belong in `vars`"
ALIAS_BOMB = "\n".join(
    ["a: &a [" + ",".join(['"lol"'] * 9) + "]"]
    + [f"{after}: &{after} [{','.join([f'*{before}'] * 9)}]" for before, after in pairwise("abcdefghi")]
)
"""341 bytes that would become 3.4 GB."""
MERGE_BOMB = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 26))


def refused(data: bytes | str) -> list[str]:
    """The problems of a document, without the file's name."""
    raw = data.encode() if isinstance(data, str) else data
    with pytest.raises(RefusedDefinitionError) as caught:
        load_bytes(raw, "p.yaml")
    assert caught.value.exit_code == names.EXIT_DATA
    assert all(line.startswith("p.yaml:") for line in caught.value.problems)
    return [line.removeprefix("p.yaml:") for line in caught.value.problems]


BAD: list[tuple[str, str, bytes | str, list[str]]] = [
    ("01", "nothing", "", ["1:1: E1001 empty definition"]),
    ("01", "comments", "# a\n# b\n", ["1:1: E1001 empty definition"]),
    ("01", "an empty document", "---\n...\n", ["1:1: E1001 empty definition"]),
    ("03", "a tab", "a:\n\tb: 1\n", ["2:1: E1005 a tab cannot indent; indent with spaces"]),
    ("03", "a tab after spaces", "a:\n  b: 1\n  \tc: 2\n", ["3:3: E1005 a tab cannot indent; indent with spaces"]),
    (
        "04",
        "a key twice",
        "steps: {}\nname: x\nsteps: {}\n",
        ["3:1: E1010 `steps` is here for the second time; the first is at 1:1"],
    ),
    (
        "05",
        "a tag that runs code",
        'a: !!python/object/apply:os.system ["touch hacked"]\n',
        [
            "1:4: E1009 tags are not allowed (tag:yaml.org,2002:python/object/apply:os.system); " + PLAIN,
        ],
    ),
    (
        "05",
        "a harmless tag",
        "a: !!str x\n",
        ["1:4: E1009 tags are not allowed (tag:yaml.org,2002:str); " + PLAIN],
    ),
    ("05", "an unknown tag", "- !foo bar\n", ["1:3: E1009 tags are not allowed (!foo); write the plain value"]),
    (
        "08",
        "an alias to itself",
        "a: &a [*a]\n",
        [
            f"1:4: E1007 anchors are not allowed (`&a`); {ANCHOR}",
            f"1:8: E1007 aliases are not allowed (`*a`); {ANCHOR}",
        ],
    ),
    ("07", "a merge key", "a: {<<: {b: 1}}\n", ["1:5: E1008 merge keys are not allowed; write the keys out"]),
    ("09", "brackets", "[" * 100_000, ["1:51: E1013 nesting deeper than 50"]),
    ("09", "braces", "{" * 100_000, ["1:51: E1013 nesting deeper than 50"]),
    ("09", "brackets below maps", "a:\n  b: " + "[" * 100_000, ["2:54: E1013 nesting deeper than 50"]),
    ("09", "dashes", "- " * 100_000, ["1:101: E1013 nesting deeper than 50"]),
    (
        "10",
        "30 MB",
        b"a: " + b"x" * 30_000_000,
        ["1:1: E1002 the file has more than 1048576 bytes; move long text to files and read them with `file()`"],
    ),
    (
        "10",
        "2 MB of keys",
        "".join(f"k{i}: 1\n" for i in range(200_000)),
        ["1:1: E1002 the file has more than 1048576 bytes; move long text to files and read them with `file()`"],
    ),
    ("10", "too many nodes", "- 1\n" * 50_000, ["50000:3: E1014 more than 50000 nodes"]),
    (
        "10",
        "a long scalar",
        "a: " + "x" * (SCALAR_BYTES_MAX + 1),
        ["1:4: E1015 a scalar of more than 262144 bytes; read it with `file()`"],
    ),
    (
        "11",
        "NUL",
        b"a: 1\nb: x\x00",
        ['2:5: E1004 the character U+0000 at byte 9 is not allowed; write it as an escape in "…"'],
    ),
    (
        "11",
        "ESC",
        "ä: \x1b[0m",
        ['1:4: E1004 the character U+001B at byte 4 is not allowed; write it as an escape in "…"'],
    ),
    ("11", "NUL as an escape", 'a: "\\0"', ["1:4: E1004 an escape gives NUL or half of a surrogate pair"]),
    ("11", "a lone surrogate", b"a: 1\nb: \xed\xa0\x80", ["2:4: E1003 not UTF-8 at byte 8 (0xed); save it as UTF-8"]),
    (
        "11",
        "a lone surrogate as an escape",
        'a: "\\ud800"',
        ["1:7: E1006 not YAML: found invalid Unicode character escape code, while parsing a quoted scalar"],
    ),
    ("11", "invalid UTF-8", b"a: \xff", ["1:4: E1003 not UTF-8 at byte 3 (0xff); save it as UTF-8"]),
    ("11", "invalid after a mark", b"\xef\xbb\xbfa: \xff", ["1:4: E1003 not UTF-8 at byte 6 (0xff); save it as UTF-8"]),
    (
        "11",
        "UTF-16",
        "a: 1".encode("utf-16"),
        ["1:1: E1003 not UTF-8 at byte 0: this is UTF-16 or UTF-32; save it as UTF-8"],
    ),
    ("13", "not a number", "a: .nan", ["1:4: E1017 .nan is not a finite number; quote it if it is text"]),
    ("13", "infinity", "a: [-.inf]", ["1:5: E1017 -.inf is not a finite number; quote it if it is text"]),
    ("13", "1e999", "a: 1e999", ["1:4: E1017 1e999 is not a finite number; quote it if it is text"]),
    ("13", "2**63", f"a: {2**63}", [f"1:4: E1016 {2**63} is outside the 64-bit range; quote it if it is text"]),
    (
        "13",
        "5,000 digits",
        "a: " + "9" * 5000,
        [f"1:4: E1016 {'9' * 60}… is outside the 64-bit range; quote it if it is text"],
    ),
    (
        "14",
        "a second document",
        "a: 1\n---\nb: 2\n",
        ["2:1: E1012 one document expected; remove what follows this `---`"],
    ),
    ("11", "a number as a key", "1: x", ["1:1: E1011 a key is text, this is 1; quote it"]),
    ("11", "a list as a key", "? [a]\n: b", ["1:3: E1011 a key is text, this is a list; write a plain word"]),
    ("11", "null as a key", "~: b", ["1:1: E1011 a key is text, this is null; quote it"]),
]


@pytest.mark.parametrize(("row", "what", "data", "expected"), BAD, ids=[f"{row} {what}" for row, what, _, _ in BAD])
def test_input_01_to_14_are_refused(row: str, what: str, data: bytes | str, expected: list[str]) -> None:
    """Each at its place, with its number and what to do; and nothing is run."""
    assert refused(data) == expected
    assert not Path("hacked").exists()


@pytest.mark.parametrize(("row", "bomb", "first"), [("06", ALIAS_BOMB, "1:4 a"), ("07", MERGE_BOMB, "1:5 a0")])
def test_input_06_07_bombs_are_refused_at_their_first_anchor(row: str, bomb: str, first: str) -> None:
    """What they would expand to is never built; problems stop at 50."""
    place, _, name = first.partition(" ")
    problems = refused(bomb)
    assert problems[0] == f"{place}: E1007 anchors are not allowed (`&{name}`); {ANCHOR}"
    assert len(problems) <= PROBLEMS_MAX


def test_input_06_07_the_bombs_are_those_of_the_table() -> None:
    """341 bytes, and 26 lines."""
    assert len(ALIAS_BOMB) == 341
    assert len(MERGE_BOMB.splitlines()) == 26


def test_input_06_to_10_cost_little_time_and_memory() -> None:
    """In a process of its own: 50 ms of CPU and 5 MB each, and it is alive after all of them."""
    code = f"""
import resource, time
from headrace.pipeline.loader import load_bytes
from headrace.pipeline.problems import RefusedDefinitionError
def grown(bomb):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    best = 9.0
    for _ in range(3):  # the least of three: caches of a machine that others use, too
        began = time.process_time()
        try:
            load_bytes(bomb.encode(), "bomb.yaml")
        except RefusedDefinitionError:
            best = min(best, time.process_time() - began)
        else:
            raise SystemExit("accepted")
    return best, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
grown("a: &a 1")
bombs = ({ALIAS_BOMB!r}, {MERGE_BOMB!r}, "a: &a [*a]", "[" * 100_000, "{{" * 100_000, "- " * 100_000)
for bomb in bombs:
    print(*grown(bomb))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    costs = [line.split() for line in done.stdout.splitlines()]
    assert len(costs) == 6
    assert all(float(spent_s) < 0.05 and int(grown_kb) <= 5 * 1024 for spent_s, grown_kb in costs), done.stdout


def test_input_10_a_large_file_is_refused_by_its_size() -> None:
    """Thirty megabytes are not read: one byte more than allowed is, and nothing is parsed."""
    began = time.perf_counter()
    refused(b"[" * (DOCUMENT_BYTES_MAX + 1))
    assert time.perf_counter() - began < 0.5


@pytest.mark.parametrize("lead", [b"", b"\xef\xbb\xbf"])
def test_input_11_utf8_is_fine_with_and_without_a_mark(lead: bytes) -> None:
    """The mark is no part of the first key."""
    assert load_bytes(lead + "ä: ü\n".encode(), "p.yaml").document == {"ä": "ü"}


def test_input_12_scalars_are_read_by_yaml_1_2() -> None:
    """`no` and `on` are text, `012` is twelve, and nothing is a date or a sexagesimal number."""
    text = """
    no: no
    on: on
    twelve: 012
    time: 1:30
    date: 2024-01-01
    float: 1e3
    hex: 0x1F
    octal: 0o17
    grouped: 1_000
    dotted: .5
    tilde: ~
    empty:
    yes: TRUE
    quoted: "12"
    """
    expected: dict[str, Any] = {
        "no": "no",
        "on": "on",
        "twelve": 12,
        "time": "1:30",
        "date": "2024-01-01",
        "float": 1000.0,
        "hex": 31,
        "octal": 15,
        "grouped": "1_000",
        "dotted": 0.5,
        "tilde": None,
        "empty": None,
        "yes": True,
        "quoted": "12",
    }
    loaded = load_bytes(text.encode(), "p.yaml").document
    assert loaded == expected
    assert [type(value) for value in loaded.values()] == [type(value) for value in expected.values()]


def test_every_problem_of_a_document_is_reported_at_once() -> None:
    """In order of place."""
    problems = refused("a: &x 1\nb: !t 2\na: .inf\n1: 2\n")
    assert [line.split(" ")[1] for line in problems] == ["E1007", "E1009", "E1010", "E1017", "E1011"]


def test_an_expression_that_is_no_plain_scalar_gets_a_hint() -> None:
    """The commonest mistake: `: ` inside an unquoted expression."""
    (problem,) = refused('a: ${{ x ? "b: c" : d }}')
    assert problem.startswith("1:14: E1006 not YAML: mapping values are not allowed in this context; quote the value")


# --- files ---


def test_input_02_what_is_no_readable_file_is_named_with_the_reason(tmp_path: Path) -> None:
    """Missing, a directory, a FIFO (without waiting for a writer), something that is no path at all."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    cases = {
        tmp_path / "none.yaml": "No such file or directory",
        tmp_path: "is a directory",
        fifo: "is not a regular file",
        Path("/dev/null"): "is not a regular file",
    }
    for path, reason in cases.items():
        with pytest.raises(InputFileError) as caught:
            load_file(path)
        assert str(caught.value) == f"{path}: {reason}"
        assert caught.value.exit_code == names.EXIT_NO_INPUT
    with pytest.raises(InputFileError, match="null byte"):
        load_file("a\0b")


# --- positions ---


def test_positions_point_at_keys_values_and_characters_inside_scalars() -> None:
    """Through quoting, escapes, folding and indentation."""
    text = (
        'a: "x\\n \\"q\\" ${{ nope }}"\n'
        "b: |\n    first\n    ${{ inputs.x\n       + nope }}\n"
        "c: >\n  folded text\n  goes ${{ nope }}\n"
        "d: 'it''s ${{ nope }}'\n"
        "e: plain\n  multi ${{ nope }}\n"
        'f: [1, "${{ nope }}"]\n'
    )
    loaded = load_bytes(text.encode(), "p.yaml")
    lines = text.split("\n")
    for path in (("a",), ("b",), ("c",), ("d",), ("e",), ("f", 1)):
        value: Any = loaded.document
        for step in path:
            value = value[step]
        place = loaded.positions.inside(path, value, value.index("nope"))
        assert lines[place.line - 1][place.column - 1 :].startswith("nope"), (path, place)
    assert loaded.positions.key(("d",))[:2] == (9, 1)
    assert loaded.positions.value(("f", 1))[:2] == (12, 8)
    assert loaded.positions.value(("f", 7, "x"))[:2] == (12, 4)


# --- properties ---


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_random_bytes_load_or_are_refused(data: bytes) -> None:
    """Never another exception, whatever the bytes."""
    try:
        load_bytes(data, "p.yaml")
    except RefusedDefinitionError as error:
        problems = error.problems
    else:
        return
    assert 1 <= len(problems) <= PROBLEMS_MAX


CHARACTERS = st.characters(exclude_categories=["Cs", "Cc"])
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(CHARACTERS, max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(CHARACTERS, min_size=1, max_size=8), inner, max_size=4)
    ),
    max_leaves=25,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=5, alphabet="abcdefg"), JSON, min_size=1, max_size=5))
def test_json_written_as_yaml_is_read_as_it_was(value: dict[str, Any]) -> None:
    """JSON is YAML: quoted keys and text, numbers by the core schema."""
    text = json.dumps(value, ensure_ascii=False)
    if any(0xFFFE <= ord(char) <= 0xFFFF for char in text):
        return  # YAML has no way to hold these unescaped
    assert load_bytes(text.encode(), "p.yaml").document == value


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="ab:-?[]{}&*!|>'\"#%@`,\n \t<~1.", max_size=60))
def test_yaml_noise_loads_or_is_refused(text: str) -> None:
    """Every indicator of the syntax in any order; what loads is what a slow, trusted reading gives."""
    try:
        loaded = load_bytes(text.encode(), "p.yaml").document
    except RefusedDefinitionError:
        return
    trusted = yaml.load(text, Loader=yaml.CBaseLoader)
    assert type(trusted) is type(loaded) or isinstance(trusted, str)
