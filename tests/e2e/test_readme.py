"""Every command that the README shows does what it shows."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.command import Started, environ, headrace, until
from tests.e2e.write_cli import PAGE, page

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```console\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def shown(command: str) -> list[str]:
    """What the README says that a command prints."""
    for block in BLOCKS:
        for part in block.split("$ ")[1:]:
            said, _, output = part.partition("\n")
            if said == command:
                return output.splitlines()
    pytest.fail(f"the README does not show {command!r}")


def same(line: str) -> str:
    """A line without what differs from run to run: ids, times, numbers."""
    line = re.sub(r"\b[0-9A-HJKMNP-TV-Z]{26}\b", "<run>", line)
    line = re.sub(r"\d{4}-\d\d-\d\dT[\d:]+Z", "<instant>", line)
    line = re.sub(r"\b\d+(\.\d+)? s\b", "<time>", line)
    line = re.sub(r"\bpid \d+|:\d{4,5}\b|digest [0-9a-f]+", "<id>", line)
    return re.sub(r" +", " ", line).strip()


def in_root(command: str, data_dir: Path) -> "subprocess.CompletedProcess[str]":
    """A line of the README, typed at the top of the repository; standard error comes with the output."""
    return subprocess.run(
        ["bash", "-c", f"exec 2>&1; {command}"],
        cwd=ROOT,
        env=environ(
            HEADRACE_DATA_DIR=str(data_dir), PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        ),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_demo_prints_what_is_shown(tmp_path: Path) -> None:
    """Every line but the order of what runs side by side."""
    done = in_root("headrace run examples/review-repo.yaml", tmp_path / ".headrace")
    assert done.returncode == 0, done.stdout
    printed = done.stdout.replace(str(tmp_path) + "/", "")
    expected = shown("headrace run examples/review-repo.yaml")
    assert sorted(map(same, printed.splitlines())) == sorted(map(same, expected))
    report = tmp_path / ".headrace/workspaces/default"
    assert "files match `**/*.py`" in next(report.glob("*/report.md")).read_text()


def test_the_killed_run_finishes_as_shown(tmp_path: Path) -> None:
    """The first call dies, the second goes on with the same run; where exactly it dies depends on the machine."""
    data_dir = tmp_path / ".headrace"
    killed = in_root("timeout -s KILL 5 headrace run examples/kill-me.yaml", data_dir)
    assert killed.returncode in (137, -9)
    run = re.search(r"^run (\w{26})$", killed.stdout, re.MULTILINE)
    done = in_root("headrace run examples/kill-me.yaml", data_dir)
    assert done.returncode == 0, done.stdout
    if run is not None:  # else the machine was too slow to start it within 5 s
        assert f"resumes run {run.group(1)}: " in done.stdout
        for line in killed.stdout.splitlines():
            if "  completed  " in line:
                assert f"\n{line.split()[0]}  completed" not in done.stdout, "done again"
    assert done.stdout.splitlines()[-1] == shown("headrace run examples/kill-me.yaml")[-1]


def test_a_second_terminal_sees_what_is_shown(tmp_path: Path) -> None:
    """`up --procs`, then `submit`, `show`, `watch`."""
    data_dir = tmp_path / ".headrace"
    with Started(ROOT, "up", "--procs", HEADRACE_DATA_DIR=str(data_dir), errors=tmp_path / "stderr.txt") as system:
        system.until(lambda: len(system.lines) >= 6, what="six lines")
        assert list(map(same, system.lines[:6])) == list(map(same, shown("headrace up --procs")))
        submitted = in_root("headrace submit examples/kill-me.yaml --run-id nightly-7", data_dir)
        assert submitted.stdout.splitlines() == shown("headrace submit examples/kill-me.yaml --run-id nightly-7")
        expected = list(map(same, shown("headrace show nightly-7")))

        def looks_so() -> bool:
            done = headrace(ROOT, "show", "nightly-7", HEADRACE_DATA_DIR=str(data_dir))
            return list(map(same, done.stdout.splitlines()))[:4] == expected[:4] and "pause_1" in done.stdout

        until(looks_so, within_s=20, what="show")
        watched = in_root("headrace watch nightly-7", data_dir)
        assert watched.returncode == 0, watched.stdout
        assert "nightly-7" in in_root("headrace runs", data_dir).stdout
        system.interrupt()
        assert system.wait(45) == 0


def test_the_page_of_commands_is_up_to_date() -> None:
    """`python -m tests.e2e.write_cli` writes it."""
    assert PAGE.read_text(encoding="utf-8") == page()
