"""`headrace plan` and `headrace graph`: what would run, without running anything."""

import json
import os
from pathlib import Path
from xml.etree import ElementTree

import pytest

from headrace.cli.app import main

FILE = """pipeline: p
inputs: {names: {type: array, default: [a, b]}}
limits: {deadline: 90s}
steps:
  each: {foreach: inputs.names, tool: my.split, with: {text: "${{ item }}"}, timeout: 1500ms}
  all: {transform: "${{ steps.each.output.items }}", when: size(inputs.names) > 0}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_text(FILE)
    return tmp_path


def test_a_plan_is_shown_in_the_order_in_which_steps_may_start(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With defaults applied and calls counted; inputs that are given count."""
    assert main(["plan", "p.yaml", "-i", "names=[x, y, z]"]) == 0
    head, *said = capsys.readouterr().out.splitlines()
    assert head.startswith("p  ")
    assert head.endswith("deadline 90s, at most 16 in flight")
    assert said == [
        "  1. each  tool my.split  for each of 3 items, 8 at a time  queue tool  5 attempts, 1500ms an attempt, "
        "1h in all",
        "  2. all  transform  when size(inputs.names) > 0  after each  queue transform  5 attempts, 2m an attempt, "
        "1h in all",
        "calls of tool: 3; with every retry 15",
    ]
    assert main(["plan", "p.yaml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["calls"]["tool"]["usual"] == 2


def test_a_graph_is_text_or_a_picture(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Printed, or written to a file; a file that cannot be written is an error of its own."""
    assert main(["graph", "p.yaml"]) == 0
    assert capsys.readouterr().out.startswith("flowchart TD\n")
    assert main(["graph", "p.yaml", "--format", "svg", "-o", "p.svg"]) == 0
    assert ElementTree.parse(folder / "p.svg").getroot().attrib["aria-label"] == "p"
    assert main(["graph", "p.yaml", "-o", "missing/p.svg"]) == 66
    assert "missing/p.svg: No such file or directory" in capsys.readouterr().err
    assert main(["graph", "p.yaml", "--format", "png"]) == 64
    assert sorted(os.listdir(folder)) == ["p.svg", "p.yaml"]


def test_a_file_that_is_refused_is_not_drawn(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every problem, as `validate` says it."""
    (folder / "bad.yaml").write_text("pipeline: p\nsteps: {a: {tol: x}}\n")
    for command in ("plan", "graph"):
        assert main([command, "bad.yaml"]) == 65
        assert "bad.yaml:2:9: E1109" in capsys.readouterr().err
