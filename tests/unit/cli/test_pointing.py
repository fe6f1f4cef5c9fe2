"""A caret under the place of a problem inside of an expression; never under a credential."""

from pathlib import Path

import pytest

from headrace.cli.check import validate_command
from headrace.cli.pointing import WIDTH_MAX, pointed
from headrace.pipeline.problems import Problem


def test_input_23_a_caret_stands_under_the_place_inside_the_scalar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Syntax error, unknown variable, wrong overload: file, line, column, and the line itself."""
    file = tmp_path / "p.yaml"
    file.write_text(
        "pipeline: p\ninputs: {n: {type: integer}}\nsteps:\n"
        '  a: {transform: "${{ 1 + }}"}\n'
        "  b:\n    llm:\n      prompt: |\n        Fine.\n        not ${{ nope }}\n"
        "  c: {when: size(1) > 0, wait: {for: 1s}}\n",
        encoding="utf-8",
    )
    assert validate_command([file], as_json=False) == 65
    told = capsys.readouterr().out.splitlines()
    assert [line for line in told if not line.startswith(str(file))] == [
        '  ' + '  a: {transform: "${{ 1 + }}"}', "  " + " " * 26 + "^",
        "  " + "        not ${{ nope }}", "  " + " " * 16 + "^",
        "  " + "  c: {when: size(1) > 0, wait: {for: 1s}}", "  " + " " * 16 + "^",
    ]  # fmt: skip
    places = [line.removeprefix(f"{file}:").split(": ")[0] for line in told if line.startswith(str(file))]
    assert places == ["4:27", "9:17", "10:17"]


def test_only_what_can_be_shown_is(tmp_path: Path) -> None:
    """Not for other problems, not where the file is gone, not where a credential stands; a long line is cut."""
    file = tmp_path / "p.yaml"
    key = "sk-" + "A1b2" * 8
    file.write_text(f"a: {key}\n" + "x" * 500 + "?" + "y" * 500 + "\n", encoding="utf-8")
    assert pointed(Problem(str(file), 2, 1, "E1101", "")) == ()
    assert pointed(Problem(str(file), 1, 1, "E1301", "")) == ()
    assert pointed(Problem(str(file), 9, 1, "E1301", "")) == ()
    assert pointed(Problem(str(tmp_path / "gone"), 1, 1, "E1301", "")) == ()
    line, caret = pointed(Problem(str(file), 2, 501, "E1301", ""))
    assert len(line) == WIDTH_MAX + 2
    assert line[caret.index("^")] == "?"
