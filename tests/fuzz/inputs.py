"""Inputs for the loader and the expressions, each a function of its number alone: the same number, the same input.

A third is built from words of the language, a third is something sound or a known bad input with a few changes, the
rest is noise. The bad inputs of rows 4 to 13, 24 and 36 of the acceptance table are among what is changed.
"""

import copy
import functools
import json
import random
import re
from pathlib import Path
from typing import Any, Final

import yaml

from headrace.pipeline.schema import SCHEMA
from tests.unit.pipeline.test_bad_files import FILES
from tests.unit.pipeline.test_loader import ALIAS_BOMB, BAD, MERGE_BOMB
from tests.unit.pipeline.test_mermaid import TEXT as DRAWN
from tests.unit.pipeline.test_numbering import NESTED
from tests.unit.pipeline.test_overview import TEXT as PLANNED

GOLDEN: Final = Path(__file__).parents[1] / "golden" / "expressions.json"
EXAMPLES: Final = Path(__file__).parents[2] / "examples"
SEED_BYTES_MAX: Final = 4_096
"""Of a seed that bytes are changed in; larger ones (30 MB, 100,000 brackets) have tests of their own."""
WORDS: Final = (
    *("inputs.a", "inputs.t", "inputs.l", "steps.s.output", "steps.?s.?output", "item", "index", "carry.n", "vars"),
    *("1", "-7", "0", "2.5", "9223372036854775807", "'x'", '"é😀"', "true", "null", "[1, 2]", "{'k': [1]}", "b'x'"),
    *("+", "-", "*", "/", "%", "==", "!=", "<", ">=", "&&", "||", "!", "? 1 :", "in", ".", ",", "(", ")", "[", "]"),
    *(".map(x, x", ".filter(x, x > 1)", ".all(x, x == 1)", ".exists(", "size(", "has(", "matches(", ".orValue("),
    *("json(", "text(", "join(", "split(", "sort_by(", "group_by(", "unique(", "flatten(", "keys(", "merge("),
    *("duration('1h')", "timestamp(", "int(", "string(", "double(", "${{", "}}", "$${{", "\n", "//", "\\", "optMap("),
    *("1/0", "9223372036854775807 + 1", "[1,2,3].all(a, [1,2,3].all(b, [1,2,3].all(c, a + b + c > 0)))"),
)
NOISE: Final = "ab:-[]{}&*!|>'\"#%@`, \n\t?0.é😀\x00\ud800$()<=+/\\"
KEYS: Final = (*sorted({row.key for row in SCHEMA}), "a", "b", "unknown", "${{ x }}")
SCALARS: Final = (
    *("1s", "5m", "a", "b", "fs.read", "x.y", "true", "false", "${{ inputs.x }}", "${{ item }}", "0 6 * * *", "last 3"),
    *(0, 1, -5, 10**19, 2.5, 1e300, None, True, False, "", "./c.yaml", "p@", "../x", "2026-01-31T06:00:00Z"),
)


TYPED: Final = {
    "number": (
        *("1", "-7", "0", "inputs.a", "index", "steps.s.output.n", "item.n", "9223372036854775807"),
        *("(number + number)", "(number - number)", "number * number", "(number / number)", "(number % number)"),
        *("size(list)", "size(text)", "sum(numbers)", "max(numbers)", "(test ? number : number)", "int(text)"),
    ),
    "text": (
        *("'x'", "inputs.t", '"é😀"', "''", "item.t", "lower(text)", "upper(text)", "trim(text)", "sha256(text)"),
        *(
            "(text + text)",
            "join(list)",
            "join(list, text)",
            "text(list)",
            "replace(text, text, text)",
            "string(number)",
        ),
        *("substring(text, number)", "text(any)", "coalesce(null, text)"),
    ),
    "test": (
        *("true", "false", "number == number", "number < number", "text == text", "!test", "(test && test)"),
        *("(test || test)", "list.all(e, e == e)", "list.exists(e, e == 1)", "text.matches('[a-z]+')", "has(inputs.a)"),
        *("text.contains(text)", "number in numbers", "any == any"),
    ),
    "numbers": (
        *("[1, 2]", "[]", "[number, number]", "numbers.map(e, e + 1)", "numbers.filter(e, e > 1)", "inputs.ns"),
        *("unique(numbers)", "sort_by(numbers, '')", "flatten([numbers, numbers])", "numbers.map(e, e > 0, e * 2)"),
    ),
    "list": (
        *("numbers", "inputs.l", "[any]", "split(text, text)", "keys(map)", "values(map)", "group_by(list, '')"),
        *("list.map(e, [e, e])", "unique(list)", "(list + list)", "map.map(k, k)"),
    ),
    "map": ("{'k': any}", "inputs.m", "merge(map, map)", "{}", "{text: number}", "steps.s.output"),
    "any": ("number", "text", "test", "list", "map", "null", "2.5", "inputs.j", "steps.?gone.?output.orValue(number)"),
}
"""Type → forms of it, in which the name of a type stands for any of its forms."""
TYPE: Final = re.compile(rf"\b(?:{'|'.join(TYPED)})\b(?!\()")


def expression(number: int) -> str:
    """The source of an expression, or what somebody might take for one."""
    draw = random.Random(f"expression/{number}")
    match draw.randrange(6):
        case 0:
            return " ".join(draw.choices(WORDS, k=draw.randrange(13)))
        case 1:
            return "".join(draw.choices(WORDS, k=draw.randrange(9)))
        case 2:
            return _changed_text(draw, draw.choice(golden()))
        case 3:
            return _typed(draw, draw.choice(tuple(TYPED)), 4)
        case 4:
            return _changed_text(draw, _typed(draw, draw.choice(tuple(TYPED)), 3))
    return "".join(draw.choices(NOISE, k=draw.randrange(41)))


def raw(number: int) -> bytes:
    """The bytes of a file."""
    draw = random.Random(f"raw/{number}")
    match draw.randrange(12):
        case 0:
            return draw.randbytes(draw.randrange(201))
        case 1 | 2:
            return "".join(draw.choices(NOISE, k=draw.randrange(121))).encode("utf-8", "surrogatepass")
    data = bytearray(draw.choice(seeds()))
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        _change_bytes(draw, data)
    return bytes(data)


def document(number: int) -> str:
    """A pipeline of keys and values that were thrown together. JSON, which is YAML and quicker to write."""
    draw = random.Random(f"document/{number}")
    top = {draw.choice(KEYS): _tree(draw, 3) for _ in range(draw.randrange(5))}
    steps = {draw.choice("abc"): _tree(draw, 4) for _ in range(draw.randrange(1, 4))}
    return json.dumps({**top, "pipeline": "p", "steps": steps}, ensure_ascii=False)


def changed(number: int) -> str:
    """A sound pipeline of every kind and modifier, three levels deep, with a few changes."""
    draw = random.Random(f"changed/{number}")
    whole = copy.deepcopy(draw.choice(sound()))
    for _ in range(draw.randrange(1, 4)):
        places = _places(whole)
        if not places:
            break
        (holder, at), (other, other_at) = draw.choice(places), draw.choice(places)
        match draw.randrange(5):
            case 0:
                del holder[at]
            case 1:
                holder[at] = _tree(draw, 3)
            case 2:
                holder[at] = copy.deepcopy(other[other_at])
            case 3 if isinstance(holder, dict):
                holder[draw.choice(KEYS)] = copy.deepcopy(other[other_at])
            case _ if isinstance(holder, dict):
                holder[draw.choice(("a", "x", "go", "list"))] = holder.pop(at)
    return json.dumps(whole, ensure_ascii=False)


@functools.cache
def golden() -> tuple[str, ...]:
    """The expressions of the golden table, sound and unsound."""
    table = json.loads(GOLDEN.read_text(encoding="utf-8"))
    lists = [rows for rows in table.values() if isinstance(rows, list)]
    return tuple(row[0] for rows in lists for row in rows if isinstance(row[0], str))


@functools.cache
def seeds() -> tuple[bytes, ...]:
    """Documents, sound and refused."""
    rows = [data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data for _, _, data, _ in BAD]
    files = [file.text.encode() for file in FILES]
    examples = [path.read_bytes() for path in sorted(EXAMPLES.glob("*.yaml"))]
    bombs = [ALIAS_BOMB.encode(), MERGE_BOMB.encode(), b"a: &a [*a]", b"[" * 200, b"\x1f\x8b\x08\x00" + b"a" * 20]
    return tuple(data for data in (*rows, *files, *examples, *bombs) if len(data) <= SEED_BYTES_MAX)


@functools.cache
def sound() -> tuple[Any, ...]:
    """Pipelines that load."""
    return tuple(yaml.load(text, Loader=yaml.CSafeLoader) for text in (NESTED, DRAWN, PLANNED))


def _typed(draw: random.Random, kind: str, depth: int) -> str:
    """A sound expression of this type, more or less."""
    forms = TYPED[kind]
    form = draw.choice(forms if depth else [one for one in forms if not TYPE.search(one)] or ["null"])
    return TYPE.sub(lambda found: _typed(draw, found[0], max(0, depth - 1)), form)


def _changed_text(draw: random.Random, text: str) -> str:
    for _ in range(draw.choice((1, 1, 2, 3))):
        at, to = sorted((draw.randrange(len(text) + 1), draw.randrange(len(text) + 1)))
        match draw.randrange(4):
            case 0:
                text = text[:at] + text[to:]
            case 1:
                text = text[:at] + draw.choice(WORDS) + text[at:]
            case 2:
                text = text[:at] + draw.choice(NOISE) + text[at + 1 :]
            case _:
                other = draw.choice(golden())
                text = text[:at] + other[draw.randrange(len(other) + 1) :]
    return text[:400]


def _change_bytes(draw: random.Random, data: bytearray) -> None:
    at = draw.randrange(len(data) + 1)
    match draw.randrange(5):
        case 0:
            del data[at : at + draw.randrange(1, 9)]
        case 1:
            data[at:at] = bytes(draw.choices(range(32, 127), k=draw.randrange(1, 5)))
        case 2:
            data[at:at] = draw.choice(NOISE).encode("utf-8", "surrogatepass")
        case 3:
            other = draw.choice(seeds())
            start = draw.randrange(len(other) + 1)
            data[at : at + 8] = other[start : start + 64]
        case _:
            data[at:at] = data[at : at + 64] * draw.randrange(1, 5)


def _tree(draw: random.Random, depth: int) -> Any:
    chance = draw.random()
    if depth == 0 or chance < 0.4:
        return "${{ " + expression(draw.randrange(10**6)) + " }}" if chance < 0.1 else draw.choice(SCALARS)
    if chance < 0.55:
        return [_tree(draw, depth - 1) for _ in range(draw.randrange(4))]
    return {draw.choice(KEYS): _tree(draw, depth - 1) for _ in range(draw.randrange(5))}


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every value of a tree, by the map or list that holds it."""
    found: list[tuple[Any, Any]] = []
    pending = [tree]
    while pending:
        value = pending.pop()
        for key, below in list(value.items()) if isinstance(value, dict) else list(enumerate(value)):
            found.append((value, key))
            if isinstance(below, (dict, list)):
                pending.append(below)
    return found
