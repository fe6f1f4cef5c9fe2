"""The `headrace` command as people call it: a process of its own, in a directory of its own."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

HEADRACE = (sys.executable, "-m", "headrace.cli.app")


def environ(**more: str) -> dict[str, str]:
    """The environment without settings of whoever runs the tests."""
    # The last would compile everything at each start.
    ours = ("HEADRACE_", "OPENAI_", "ANTHROPIC_", "GEMINI_", "PYTHONDONTWRITEBYTECODE")
    return {name: text for name, text in os.environ.items() if not name.startswith(ours)} | more


def headrace(cwd: Path, *arguments: str, timeout_s: float = 60, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    return subprocess.run(
        [*HEADRACE, *arguments],
        cwd=cwd,
        env=environ(**env),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def lines(text: str) -> list[dict[str, Any]]:
    """JSON objects, one a line."""
    return [json.loads(line) for line in text.splitlines()]


class Started:
    """A command that goes on, in a process group of its own; its lines are read as they come."""

    def __init__(self, cwd: Path, *arguments: str, errors: Path | None = None, **env: str) -> None:
        self.errors = errors or cwd / "stderr.txt"
        with self.errors.open("ab") as stream:
            self.popen = subprocess.Popen(
                [*HEADRACE, *arguments],
                cwd=cwd,
                env=environ(**env),
                stdout=subprocess.PIPE,
                stderr=stream,
                stdin=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def objects(self) -> list[dict[str, Any]]:
        """What it printed with `--json` so far."""
        return [json.loads(line) for line in self.lines]

    def completed(self) -> list[str]:
        """Paths of steps that it has said to be completed."""
        return [said["path"] for said in self.objects if said.get("event") == "step.completed"]

    def until(self, condition: Callable[[], object], *, within_s: float = 60, what: str = "") -> None:
        """Return when the condition holds; fail with what it said when it ends first, or after `within_s`."""
        deadline_s = time.monotonic() + within_s
        while not condition():
            if self.popen.poll() is not None or time.monotonic() > deadline_s:
                self._reader.join(2)
                if condition():
                    return
                said = "\n".join(self.lines[-20:])
                pytest.fail(f"{what}: exit {self.popen.poll()}\n{said}\n{self.errors.read_text()[-3000:]}")
            time.sleep(0.005)

    def kill_group(self) -> None:
        """`kill -9` of the whole process group."""
        os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait(10)
        self._reader.join(5)

    def interrupt(self) -> None:
        """What Ctrl-C sends."""
        self.popen.send_signal(signal.SIGINT)

    def wait(self, within_s: float = 30) -> int:
        """Its exit code."""
        code = self.popen.wait(within_s)
        self._reader.join(5)
        return code

    def __enter__(self) -> "Started":
        return self

    def __exit__(self, *_: object) -> None:
        if self.popen.poll() is None:
            self.kill_group()
        self._reader.join(5)
        assert self.popen.stdout is not None
        self.popen.stdout.close()


def processes_of(folder: Path) -> dict[int, str]:
    """Living processes that work in the folder, or name it in their command line: pid → command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            where = os.readlink(entry / "cwd")
        except OSError:
            continue
        if command and (str(folder) in command or where == str(folder)):
            found[int(entry.name)] = command
    return found


def until(condition: Callable[[], object], *, within_s: float, what: str) -> None:
    """Wait for a level, not for an edge."""
    deadline_s = time.monotonic() + within_s
    while not (value := condition()):
        if time.monotonic() > deadline_s:
            pytest.fail(f"{what}: still {value!r} after {within_s} s")
        time.sleep(0.01)
