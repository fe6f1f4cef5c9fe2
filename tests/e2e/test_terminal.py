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


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (20, 5)])
def test_input_58_a_terminal_of_any_size(tmp_path: Path, columns: int, rows: int) -> None:
    """It ends well, marks every step, and no line is wider than the terminal."""
    written(tmp_path, "greet.yaml", GREET)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    popen = subprocess.Popen(
        [*HEADRACE, "run", "greet.yaml"], cwd=tmp_path, env=environ(TERM="xterm"), stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    said = b""
    try:
        while chunk := os.read(ours, 65_536):
            said += chunk
    except OSError:  # the other end is closed: that is how a terminal says so
        pass
    os.close(ours)
    assert popen.wait(30) == 0, said
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said.decode())
    assert "✓" in text
    assert "completed after" in text
    table = [line for line in re.split(r"[\r\n]+", text) if line.startswith(("✓", "•"))]
    assert table
    assert all(len(line.rstrip()) <= columns for line in table), table
