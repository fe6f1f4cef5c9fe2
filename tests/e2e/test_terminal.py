"""`headrace run` on a terminal: rows that change, whatever the size."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from pathlib import Path

import pytest

from tests.e2e.command import HEADRACE, environ
from tests.e2e.pipelines import GREET, written


def on_terminal(folder: Path, *arguments: str, columns: int, rows: int) -> tuple[int, str]:
    """The exit code, and everything that was ever shown, without what moves the cursor."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    popen = subprocess.Popen(
        [*HEADRACE, *arguments], cwd=folder, env=environ(TERM="xterm"), stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    said = b""
    try:
        while chunk := os.read(ours, 65_536):
            said += chunk
    except OSError:  # the other end is closed: that is how a terminal says so
        pass
    os.close(ours)
    return popen.wait(30), re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said.decode())


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (20, 5)])
def test_input_58_a_terminal_of_any_size(tmp_path: Path, columns: int, rows: int) -> None:
    """It ends well, marks every step, and no line is wider than the terminal."""
    written(tmp_path, "greet.yaml", GREET)
    code, text = on_terminal(tmp_path, "run", "greet.yaml", columns=columns, rows=rows)
    assert code == 0, text
    assert "✓" in text
    assert "completed after" in text
    table = [line for line in re.split(r"[\r\n]+", text) if line.startswith(("✓", "•"))]
    assert table
    assert all(len(line.rstrip()) <= columns for line in table), table


def test_the_time_of_what_is_going_on_goes_on(tmp_path: Path) -> None:
    """A step that says nothing for a while is seen to take its time, and to end when it is due."""
    written(tmp_path, "wait.yaml", "pipeline: wait\nsteps:\n  rest: {wait: {for: 3s}}\n")
    code, text = on_terminal(tmp_path, "run", "wait.yaml", columns=80, rows=24)
    assert code == 0, text
    shown = {float(found) for found in re.findall(r"rest (\d\.\d\d) s", text)}
    assert len(shown) >= 5, shown
    assert shown & {number for number in shown if 1 < number < 3}, shown
    assert re.search(r"goes on in [12]\.\d\d s", text), text
