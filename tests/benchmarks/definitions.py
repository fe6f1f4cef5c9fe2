"""What it costs to check a definition of 200 steps, and each part of it: `python -m tests.benchmarks.definitions`.

Every step has a tool with arguments to check, a condition, a retry policy and expressions of its own, so nothing
is compiled twice. Milliseconds are CPU time of this process, because a loaded machine says nothing about the code. The
goal is 50 ms for the whole on the reference machine; beside it stands what the YAML parser alone takes, which tells a
slow machine from a slow release.
"""

import json
import statistics
import time
from collections.abc import Callable

import yaml

from headrace.pipeline.bundle import load_text
from headrace.pipeline.evaluation import compile_expression, evaluate
from headrace.pipeline.loader import load_bytes

STEPS = 200
ROUNDS = 7


def definition(salt: int) -> str:
    """A chain of steps; the salt makes its expressions new, so that no cache of an earlier round answers."""
    steps = [
        f"""  s{index}:
    tool: fs.read
    with: {{path: "${{{{ inputs.dir }}}}/f{index}", format: text}}
    timeout: 2m
    when: {"'true'" if index == 0 else f"steps.s{index - 1}.output.bytes > {index * 1000 + salt}"}
    retry: {{attempts: 3, initial: 1s}}
"""
        for index in range(STEPS)
    ]
    return f"pipeline: bench\ninputs: {{dir: {{type: string}}}}\nsteps:\n{''.join(steps)}"


def median_ms(work: Callable[[str], object]) -> float:
    """Of several rounds, each with a document of its own."""
    spent = []
    for salt in range(ROUNDS):
        text = definition(salt)
        began = time.process_time()
        made = work(text)
        spent.append((time.process_time() - began) * 1000)
        del made  # freeing it is somebody else's time
    return round(statistics.median(spent), 1)


def evaluation_us(source: str) -> float:
    """One evaluation of a small expression."""
    expression, scope = compile_expression(source), {"inputs": {"a": 1}, "steps.s.output": {"x": 1, "t": "a"}}
    began = time.perf_counter()
    for _ in range(20_000):
        evaluate(expression, scope)
    return round((time.perf_counter() - began) / 20_000 * 1e6, 2)


def measure() -> dict[str, float]:
    """All figures, by name with unit."""
    load_text("pipeline: p\nsteps: {w: {transform: '${{ 1 + 1 }}'}}\n")
    return {
        "yaml_events_ms": median_ms(lambda text: list(yaml.parse(text, Loader=yaml.CSafeLoader))),
        "yaml_compose_ms": median_ms(lambda text: yaml.compose(text, Loader=yaml.CSafeLoader)),
        "guarded_load_ms": median_ms(lambda text: load_bytes(text.encode(), "bench.yaml")),
        "validate_and_compile_ms": median_ms(load_text),
        "evaluate_path_us": evaluation_us("steps.s.output.x"),
        "evaluate_condition_us": evaluation_us("steps.s.output.x > 0 && inputs.a == 1"),
    }


def main() -> None:
    """Print the figures as JSON."""
    print(json.dumps(measure(), indent=2))  # a benchmark's result


if __name__ == "__main__":
    main()
