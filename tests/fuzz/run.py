"""Put a million inputs into the expressions and a million into the loader: `python -m tests.fuzz.run --inputs 1000000`.

Each gives a value, a plan or a refusal, twice the same, within a second of CPU time, in a process of at most 512 MB.
Prints one line of JSON; a failure prints the number of its input and the command that repeats it, and exits with 1.
Inputs are tried in child processes, so that a crash of the library is a finding and not the end.
"""

import argparse
import faulthandler
import json
import multiprocessing
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from headrace.contracts.errors import ExpressionError
from headrace.pipeline.bundle import load_text
from headrace.pipeline.compile import compile_plan
from headrace.pipeline.drawing import svg
from headrace.pipeline.evaluation import compile_expression, evaluate
from headrace.pipeline.loader import load_bytes
from headrace.pipeline.mermaid import mermaid
from headrace.pipeline.overview import overview
from headrace.pipeline.problems import CODES, RefusedDefinitionError
from tests.fuzz import inputs

PIECE: Final = 20_000
"""Inputs of one process: its memory is measured at the end of each."""
SECONDS_MAX: Final = 1.0
"""CPU time of one input: more is a hang."""
HANG_S: Final = 60.0
"""After that much of the clock inside one block the process tells where it is and ends."""
BLOCK: Final = 100
MEMORY_BYTES_MAX: Final = 512 * 1024 * 1024
FOUND_MAX: Final = 5
"""Of one piece: more is the same thing again."""
VALUES: Final[dict[str, Any]] = json.loads(inputs.GOLDEN.read_text(encoding="utf-8"))["scope"] | {
    "inputs": {"a": 3, "t": "text", "l": [1, {"k": None}, "x"], "ns": [3, 1, 2], "m": {"z": 1, "a": [2.5]}, "j": "x"},
    "steps.s.output": {"x": [1.5, "y"], "n": 4},
    "item": {"k": "v", "n": 5, "t": "item"},
}


def expression(number: int) -> str:
    """The value as text, or the code of the failure; the same when it is asked again."""
    source = inputs.expression(number)
    first, again = (_evaluated(source) for _ in range(2))
    assert first == again, (first, again)
    return first.partition(":")[0] if first.startswith("!") else "value"


def _evaluated(source: str) -> str:
    try:
        return repr(evaluate(compile_expression(source), VALUES))
    except ExpressionError as error:
        return f"!{error.failure().code}: {error}"


def raw(number: int) -> str:
    """A document, or refused with known codes."""
    data = inputs.raw(number)
    try:
        load_bytes(data, "p.yaml")
    except RefusedDefinitionError as error:
        return _refused(error)
    return "document"


def document(number: int) -> str:
    """A plan, the same from its stored form, that can be drawn; or refused with known codes."""
    text = inputs.document(number) if number % 2 else inputs.changed(number)
    try:
        bundle = load_text(text, pending={})
    except RefusedDefinitionError as error:
        return _refused(error)
    assert compile_plan(bundle.data, pending={}).digest == bundle.digest
    svg(bundle.plan)
    mermaid(bundle.plan)
    overview(bundle.plan)
    return "plan"


def _refused(error: RefusedDefinitionError) -> str:
    assert error.found
    assert {problem.code for problem in error.found} <= set(CODES)
    assert all(problem.line >= 1 and problem.column >= 1 for problem in error.found)
    str(error).encode()
    return error.found[0].code


KINDS: Final[dict[str, tuple[float, Callable[[int], str]]]] = {
    "expression": (1.0, expression),
    "raw": (0.8, raw),
    "document": (0.2, document),
}
"""Kind → its share of `--inputs`, and what is done with one: as many for the loader as for expressions."""


def piece(kind: str, first: int, count: int, at: Any, told: Any) -> None:
    """A child's work: the inputs from `first` on. `at` always says which one it is at."""
    work = KINDS[kind][1]
    results: Counter[str] = Counter()
    found: list[str] = []
    slowest_s = 0.0
    for number in range(first, first + count):
        at.value = number
        if number % BLOCK == 0:
            faulthandler.dump_traceback_later(HANG_S, exit=True)
        began_s = time.process_time()
        try:
            results[work(number)] += 1
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
            found.append(f"{kind} {number}: {type(error).__name__}: {error}"[:400])
        spent_s = time.process_time() - began_s
        slowest_s = max(slowest_s, spent_s)
        if spent_s > SECONDS_MAX:
            found.append(f"{kind} {number}: {spent_s:.2f} s of CPU time")
        if len(found) >= FOUND_MAX:
            break
    faulthandler.cancel_dump_traceback_later()
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if used > MEMORY_BYTES_MAX:
        found.append(f"{kind} {first} to {first + count - 1}: {used / 2**20:.0f} MB")
    told.send((dict(results), found, slowest_s, used))


def try_piece(kind: str, first: int, count: int) -> tuple[dict[str, int], list[str], float, int]:
    """In a process of its own: results, findings, the slowest input in seconds, bytes at the most."""
    spawned = multiprocessing.get_context("spawn")
    at = spawned.Value("q", first, lock=False)
    hear, told = spawned.Pipe(duplex=False)
    process = spawned.Process(target=piece, args=(kind, first, count, at, told))
    process.start()
    told.close()
    try:
        answer: tuple[dict[str, int], list[str], float, int] = hear.recv()
    except EOFError:
        process.join(10)
        return {}, [f"{kind} {at.value}: the process ended with {process.exitcode}"], 0.0, 0
    process.join(10)
    return answer


def main() -> int:
    """The exit code: 0 when nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="of expressions, and as many of the loader")
    parser.add_argument("--first", type=int, default=0, help="the number of the first")
    parser.add_argument("--kind", choices=list(KINDS), help="only these")
    given = parser.parse_args()
    began_s = time.monotonic()
    totals: dict[str, Counter[str]] = {}
    found: list[str] = []
    slowest_s, used = 0.0, 0
    for kind in KINDS if given.kind is None else (given.kind,):
        count = round(given.inputs * KINDS[kind][0])
        totals[kind] = Counter()
        for start in range(0, count, PIECE):
            results, wrong, slow_s, memory = try_piece(kind, given.first + start, min(PIECE, count - start))
            totals[kind] += Counter(results)
            found += wrong
            slowest_s, used = max(slowest_s, slow_s), max(used, memory)
            sys.stderr.write(f"{kind} {given.first + start + PIECE}: {len(found)} found, {used / 2**20:.0f} MB\n")
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    for text in found[:50]:
        kind, number = text.split()[:2]
        command = f"python -m tests.fuzz.run --kind {kind} --first {number.rstrip(':')} --inputs 5"
        sys.stdout.write(f"{text}\n    repeat it: {command}\n")
    figures = {
        "inputs": {kind: sum(results.values()) for kind, results in totals.items()},
        "found": len(found),
        "slowest_s": round(slowest_s, 3),
        "memory_mb": round(used / 2**20),
        "results": {kind: dict(results.most_common(12)) for kind, results in totals.items()},
        "cpu_s": round(spent.ru_utime + spent.ru_stime),
        "seconds": round(time.monotonic() - began_s),
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
