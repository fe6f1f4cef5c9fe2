"""Rows 1 to 14 and 34 of the bad inputs at the command line: exit code, one line a problem, and nothing is written."""

import ctypes
import os
import resource
import subprocess
import time
from pathlib import Path

import pytest

from headrace.cli.app import main
from tests.e2e.command import HEADRACE, environ, headrace, lines
from tests.e2e.pipelines import written
from tests.unit.pipeline.test_loader import ALIAS_BOMB, BAD, MERGE_BOMB

ROWS = [*BAD, ("06", "an alias bomb", ALIAS_BOMB, None), ("07", "a merge bomb", MERGE_BOMB, None)]


@pytest.mark.parametrize(("row", "what", "data", "expected"), ROWS, ids=[f"{row} {what}" for row, what, *_ in ROWS])
def test_input_01_to_14_a_refused_file_is_65_and_writes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    row: str,
    what: str,
    data: bytes | str,
    expected: list[str] | None,
) -> None:
    """`validate` and `run` say the same, as text and as JSON; no store, no event, no file exists afterwards."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_bytes(data.encode() if isinstance(data, str) else data)
    assert main(["validate", "p.yaml"]) == 65
    said = capfd.readouterr()
    if expected is None:
        assert said.out.splitlines()[0].split(": ", 1)[1].startswith("E1007 anchors are not allowed"), row
    else:
        assert said.out.splitlines() == [f"p.yaml:{line}" for line in expected]
    assert said.err == ""
    assert main(["validate", "--json", "p.yaml"]) == 65
    (report,) = lines(capfd.readouterr().out)
    assert report["ok"] is False
    assert all(problem["line"] >= 1 and problem["code"].startswith("E1") for problem in report["problems"])
    assert main(["run", "p.yaml"]) == 65
    assert capfd.readouterr().err == said.out
    assert os.listdir(tmp_path) == ["p.yaml"]


def test_input_02_a_file_that_may_not_be_read_is_66(tmp_path: Path) -> None:
    """Path and reason. Whoever runs this as root gives up root's right to read everything."""
    written(tmp_path, "secret.yaml", "pipeline: x\n").chmod(0)

    def give_up() -> None:
        if os.geteuid() == 0:
            libc = ctypes.CDLL(None, use_errno=True)
            for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
                if libc.prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP: gone with the next exec
                    raise OSError(ctypes.get_errno())

    for command in ("validate", "run", "submit"):
        done = subprocess.run(
            [*HEADRACE, command, "secret.yaml"], cwd=tmp_path, env=environ(), capture_output=True, text=True,
            timeout=60, check=False, preexec_fn=give_up,
        )  # fmt: skip
        assert done.returncode == 66, done
        assert done.stderr.startswith("error: no_input: secret.yaml: Permission denied"), done.stderr


def test_input_10_a_file_of_a_gigabyte_is_refused_by_its_size(tmp_path: Path) -> None:
    """It is neither read nor parsed: a process that may not have 600 MB of memory answers in a moment."""
    with (tmp_path / "huge.yaml").open("wb") as file:
        file.write(b"a: ")
        file.truncate(1 << 30)

    def little() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (600 << 20, 600 << 20))

    began_s = time.monotonic()
    done = subprocess.run(
        [*HEADRACE, "validate", "huge.yaml"], cwd=tmp_path, env=environ(), capture_output=True, text=True,
        timeout=60, check=False, preexec_fn=little,
    )  # fmt: skip
    assert done.returncode == 65, done
    assert done.stdout.startswith("huge.yaml:1:1: E1002 the file has more than 1048576 bytes")
    assert time.monotonic() - began_s < 20


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("012", "expected text, got 12; quote it"),
        ("1e3", "expected text, got 1000.0; quote it"),
        ("true", "expected text, got true; quote it"),
        ("~", "expected text, got null"),
    ],
)
def test_input_12_a_type_error_shows_the_value_as_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    """As YAML 1.2 reads it, at its place."""
    path = written(tmp_path, "p.yaml", f"pipeline: p\ndescription: {text}\nsteps: {{w: {{wait: {{for: 1s}}}}}}\n")
    assert main(["validate", str(path)]) == 65
    assert f"p.yaml:2:14: E1102 {says}" in capfd.readouterr().out


@pytest.mark.parametrize("text", ["no", "on", "1:30", "2024-01-01"])
def test_input_12_what_only_old_yaml_reads_otherwise_is_text(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], text: str
) -> None:
    """Never silently False, 90 or a date."""
    document = f"pipeline: p\ndescription: {text}\noutputs: {{d: {text}}}\nsteps: {{w: {{wait: {{for: 1s}}}}}}\n"
    path = written(tmp_path, "p.yaml", document)
    assert main(["validate", "--json", str(path)]) == 0, capfd.readouterr()


# --- row 34 ----------------------------------------------------------------------------------------------------------

IN_OPEN, IN_ACCESS = 0x20, 0x01


class Watched:
    """Notes when anybody opens or reads a file (inotify)."""

    def __init__(self, *paths: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK)
        assert self._descriptor >= 0
        for path in paths:
            assert libc.inotify_add_watch(self._descriptor, str(path).encode(), IN_OPEN | IN_ACCESS) >= 0

    def seen(self) -> bytes:
        """What happened since; nothing when nobody looked."""
        try:
            return os.read(self._descriptor, 4096)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)


ESCAPES = {
    "up, in file()": "a: {transform: {x: \"${{ file('../secret.txt') }}\"}}",
    "up, in with": "a: {tool: fs.read, with: {path: ../secret.txt}}",
    "absolute, in file()": "a: {transform: {x: \"${{ file('SECRET') }}\"}}",
    "absolute, in with": "a: {tool: fs.read, with: {path: SECRET}}",
    "a link out, in file()": "a: {llm: {prompt: \"${{ file('link.txt') }}\"}}",
    "a link out, in with": "a: {tool: fs.read, with: {path: link.txt}}",
    "a folder that is a link, in with": "a: {tool: fs.read, with: {path: folder/secret.txt}}",
    "up, as a child": "a: {pipeline: ../secret.yaml}",
    "absolute, as a child": "a: {pipeline: SECRET}",
    "a link out, as a child": "a: {pipeline: ./link.yaml}",
}


def test_input_34_no_path_of_a_pipeline_leads_out_and_nothing_is_opened(tmp_path: Path) -> None:
    """65 where it shows in the file, 77 when the run meets it; what lies outside is never opened, and never shown."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("secret.txt", "secret.yaml"):
        written(tmp_path, name, "top: secret\n")
    (home / "link.txt").symlink_to(tmp_path / "secret.txt")
    (home / "link.yaml").symlink_to(tmp_path / "secret.yaml")
    (home / "folder").symlink_to(tmp_path)
    watched = Watched(tmp_path / "secret.txt", tmp_path / "secret.yaml")
    codes = {}
    for number, (what, step) in enumerate(ESCAPES.items()):
        step = step.replace("SECRET", str(tmp_path / "secret.txt"))
        file = written(home, f"p{number}.yaml", f"pipeline: p{number}\nsteps:\n  {step}\n")
        done = headrace(home, "run", file.name, "--json")
        codes[what] = done.returncode
        assert watched.seen() == b"", what
        assert "top: secret" not in done.stdout + done.stderr
        if done.returncode == 77:
            assert lines(done.stdout)[-1]["failure"]["code"] == "path_denied", what
    assert codes == {what: 65 if "child" in what else 77 for what in ESCAPES}
    assert (tmp_path / "secret.txt").read_text()
    assert watched.seen() != b"", "the watch works"
    watched.close()
