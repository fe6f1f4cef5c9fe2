"""`headrace import` as people call it: what it prints, writes, refuses, and how it ends."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.cli.app import main
from tests.e2e.command import headrace

OLD = """workflow:
  name: Explain It
  steps:
  - name: explain
    type: gemini
    prompt:
    - {type: file, path: '{{ code_file }}'}
    output_to_file: explained.md
"""
BAD = "workflow:\n  name: bad\n  steps:\n  - {name: a, type: gemni, prompt: x}\n"
Called = Callable[..., tuple[int, str, str]]


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Called:
    """The command in this process and an empty directory; gives exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main(["import", *words])
        said = capfd.readouterr()
        return code, said.out, said.err

    return call


def test_a_file_is_reported_and_written_where_told(called: Called) -> None:
    """The new file is one that `headrace validate` accepts."""
    Path("old.yaml").write_text(OLD)
    code, out, err = called("old.yaml", "--out", "new")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == (
        "old.yaml:1:1: N1547 an attempt ends after 10m where the file says nothing: explain; before: no limit at all"
    )
    assert lines[-1] == "old.yaml: converted to new/old.yaml"
    assert err == "1 read, 1 converted, 0 refused; 0 errors, 0 warnings, 4 notes\n"
    assert main(["validate", "new/old.yaml"]) == 0


def test_without_out_nothing_is_written(called: Called, tmp_path: Path) -> None:
    """And the last line says so."""
    Path("old.yaml").write_text(OLD)
    code, _, err = called("old.yaml")
    assert code == 0
    assert err.endswith("nothing is written without --out DIR\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.yaml"]


def test_a_refused_file_does_not_keep_the_others_of_a_folder(called: Called) -> None:
    """65, with the place and the reason; the good one is written."""
    Path("in").mkdir()
    Path("in/good.yml").write_text(OLD)
    Path("in/bad.yaml").write_text(BAD)
    Path("in/none.json").write_text('{"a": 1}')
    code, out, err = called("in", "--out", "new")
    assert code == 65
    assert "in/bad.yaml:4:15: E1504 `gemni` is no type of step; did you mean `gemini`?; before: refused as well" in out
    assert "in/none.json:1:1: E1501 not a pipeline_ex file" in out
    assert err.startswith("3 read, 1 converted, 2 refused; 2 errors, ")
    assert [str(path) for path in Path("new").rglob("*.*")] == ["new/good.yaml"]


def test_the_report_is_data_too(called: Called) -> None:
    """One JSON object a file, with everything that the lines say."""
    Path("old.yaml").write_text(OLD)
    code, out, err = called("old.yaml", "--out", "new", "--json")
    said = json.loads(out)
    assert (code, err) == (0, "")
    assert (said["file"], said["ok"], said["written"]) == ("old.yaml", True, ["new/old.yaml"])
    assert said["differences"][1] == {
        "severity": "note",
        "file": "old.yaml",
        "line": 2,
        "column": 3,
        "code": "N1540",
        "old_behaviour": "any text was a name",
        "new_behaviour": "`Explain It` is the pipeline `explain_it`",
    }


def test_what_is_there_is_not_overwritten(called: Called) -> None:
    """A second import of the same is fine; an edited file stays as it is."""
    Path("old.yaml").write_text(OLD)
    assert called("old.yaml", "--out", "new")[0] == 0
    assert called("old.yaml", "--out", "new")[0] == 0
    Path("new/old.yaml").write_text("edited")
    code, _, err = called("old.yaml", "--out", "new")
    assert code == 65
    assert err == "error: conflict: new/old.yaml: exists and differs; remove it, or choose another --out\n"
    assert Path("new/old.yaml").read_text() == "edited"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("missing.yaml",), 66, "missing.yaml: No such file or directory"),
        (("empty",), 66, "empty: 0 YAML or JSON files"),
        (("fifo",), 66, "fifo: is not a regular file"),
        (("old.yaml", "--out", "old.yaml"), 66, "old.yaml: "),
        ((), 64, "Missing argument"),
        (("old.yaml", "--colour"), 64, "No such option"),
    ],
)
def test_what_cannot_be_read_or_written_ends_with_its_code(
    called: Called, words: tuple[str, ...], code: int, says: str
) -> None:
    """66 for files, 64 for the command line; a FIFO is refused without blocking."""
    Path("empty").mkdir()
    os.mkfifo("fifo")
    Path("old.yaml").write_text(OLD)
    ended, _, err = called(*words)
    assert ended == code
    assert says in err


def test_a_file_that_is_no_text_is_refused_with_its_byte(called: Called) -> None:
    """As a definition is."""
    Path("old.yaml").write_bytes(b"workflow: \xff")
    code, out, _ = called("old.yaml")
    assert code == 65
    assert out.startswith("old.yaml:1:11: E1003 not UTF-8 at byte 10")


def test_the_command_imports_in_a_process_of_its_own(tmp_path: Path) -> None:
    """The word is a keyword of Python, and a command all the same."""
    (tmp_path / "old.yaml").write_text(OLD)
    ended = headrace(tmp_path, "import", "old.yaml", "--out", "new")
    assert ended.returncode == 0
    assert (tmp_path / "new/old.yaml").exists()


def test_the_page_shows_what_the_command_prints(tmp_path: Path) -> None:
    """Every line of the example in `docs/import.md`."""
    root = Path(__file__).resolve().parents[2]
    page = (root / "docs/import.md").read_text(encoding="utf-8")
    shown = page.split("```\n$ headrace ")[1].split("\n```")[0].splitlines()
    (tmp_path / "tests").symlink_to(root / "tests")
    ended = headrace(tmp_path, *shown[0].split())
    assert [*ended.stdout.splitlines(), *ended.stderr.splitlines()] == shown[1:]
