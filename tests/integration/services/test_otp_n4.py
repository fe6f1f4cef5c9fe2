"""N4 over a real broker: a value of any size comes through calls, a group and a child bit by bit."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Connect
from tests.engine import finished, put, running, running_scheduler, start

from headrace.client.values import resolve
from headrace.contracts import events as ev
from headrace.runtime.streams import migrate
from headrace_step_executor.config import Config as ExecutorConfig
from headrace_step_executor.parts import Surroundings, build_executor
from headrace_step_executor.tools.call import ToolCall

TAKER = "pipeline: taker\ninputs: {v: {}}\noutputs: {v: '${{ inputs.v }}'}\nsteps:\n  n: {transform: {done: true}}\n"
TEXT = """
pipeline: sizes
inputs: {n: {type: integer}}
outputs: {whole: "${{ steps.a.output }}", seen: "${{ steps.seen.output }}", child: "${{ steps.child.output }}"}
steps:
  a: {tool: size.make, with: {n: "${{ inputs.n }}"}}
  g:
    steps: {b: {tool: size.hash, with: {v: "${{ steps.a.output }}"}}}
    outputs: {v: "${{ steps.b.output }}"}
  c: {pipeline: taker, with: {v: "${{ steps.a.output }}"}}
  child: {tool: size.hash, with: {v: "${{ steps.c.output.v }}"}}
  seen: {transform: "${{ steps.g.output.v }}"}
"""
SLOW = pytest.mark.slow  # ten seconds and half a gigabyte
SIZES = [1, 65_535, 65_537, 99_999, 100_001]


def made(n: int) -> str:
    """A text of so many characters."""
    return ("0123456789" * (n // 10 + 1))[:n]


async def make(given: ToolCall) -> Any:
    """The tool that gives it."""
    return made(given.args["n"])


async def hashed(given: ToolCall) -> Any:
    """The hash of what it is given."""
    return hashlib.sha256(given.args["v"].encode()).hexdigest()


@pytest.mark.parametrize("sizes", [SIZES, pytest.param([10_000_000, 60_000_000], marks=SLOW)], ids=["small", "large"])
async def test_otp_n4_a_value_of_any_size_comes_through_bit_by_bit(
    connect_broker: Connect, tmp_path: Path, sizes: list[int]
) -> None:
    """The callee hashes what it is given; so does the one behind a child; the output is the text itself."""
    broker = await connect_broker("engine")
    await migrate(broker)
    around = Surroundings(tools={"size.make": make, "size.hash": hashed})
    config = ExecutorConfig(data_dir=tmp_path)
    async with running_scheduler(broker), running(build_executor, broker, "e1", config=config, around=around):
        await put(broker, TAKER)
        await put(broker, TEXT)
        for size in sizes:
            await start(broker, "sizes", f"n{size}", n=size)
        for size in sizes:
            end = await finished(broker, f"n{size}", within_s=120)
            assert isinstance(end, ev.RunCompleted), (size, end)
            found = await resolve(broker, "default", end.outputs)
            assert found["seen"] == found["child"] == hashlib.sha256(made(size).encode()).hexdigest(), size
            assert found["whole"] == made(size), size
