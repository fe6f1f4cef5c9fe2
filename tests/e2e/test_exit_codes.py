"""Every refusal of the command line: one line, one code, one exit code."""

import asyncio
import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from headrace.cli.app import main
from headrace.cli.connection import Connection
from headrace.cli.doctor import look_at_clock
from headrace.client.client import Client
from headrace.local.nats_server import NatsServer
from headrace.runtime.clock import SystemClock
from headrace.runtime.config import Settings
from headrace.runtime.entropy import SystemEntropy
from headrace.runtime.jetstream import JetStreamBroker
from headrace.runtime.streams import migrate
from tests.e2e.command import environ, headrace, lines
from tests.e2e.pipelines import GREET, written

Typed = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Typed]:
    """As `headrace`, in this process: for commands that end before anything is started."""
    for name in os.environ:
        if name.startswith(("HEADRACE_", "OPENAI_", "ANTHROPIC_", "GEMINI_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    before = (root.handlers[:], root.level)

    def call(*arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
        with monkeypatch.context() as patched:
            for name, text in env.items():
                patched.setenv(name, text)
            capfd.readouterr()
            code = main(list(arguments))
        said = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, code, said.out, said.err)

    yield call
    root.handlers[:] = before[0]
    root.setLevel(before[1])


NOBODY = "nats://127.0.0.1:9"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Usage: headrace"),
        (("rum",), "error: usage: No such command 'rum'"),
        (("run",), "error: usage: Missing argument 'FILE'"),
        (("run", "greet.yaml", "--jsn"), "error: usage: No such option: --jsn"),
        (("run", "greet.yaml", "-i", "who"), "error: usage: -i who: expected name=value"),
        (("run", "greet.yaml", "-i", "who=a", "-i", "who=b"), "error: usage: -i who: given twice"),
        (("run",), "hint: `headrace run --help`"),
        (("admin", "migrat"), "hint: `headrace admin --help`"),
        (("runs", "--status", "done"), "error: usage: --status done: expected one of blocked, cancelled, cancelling"),
        (("service", "schedule"), "error: usage: no service 'schedule'; there are scheduler, step-executor"),
        (("admin", "migrate", "--cap", "llm"), "error: usage: --cap llm: expected queue=number"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_64(
    typed: Typed, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    """Usage."""
    written(tmp_path, "greet.yaml", GREET)
    done = typed(*arguments)
    assert done.returncode == 64, done
    assert says in done.stdout + done.stderr


def test_the_version_is_the_distributions(typed: Typed) -> None:
    """What a bug report begins with."""
    done = typed("--version")
    assert (done.returncode, done.stdout) == (0, f"headrace {version('headrace')}\n")


def test_the_list_of_commands_says_each_whole(typed: Typed) -> None:
    """No sentence is cut off."""
    listed = typed("--help").stdout.partition("Commands:")[2]
    assert "Run a pipeline here and now." in listed
    assert "..." not in listed


def test_a_refused_definition_is_65_with_every_problem(typed: Typed, tmp_path: Path) -> None:
    """One line each, with its place; the same from `run`, which starts nothing."""
    written(tmp_path, "bad.yaml", "pipeline: bad\nsteps:\n  a: {tool: fs.red, with: {}}\n  b: {promt: hi}\n")
    checked = typed("validate", "bad.yaml")
    assert checked.returncode == 65
    assert checked.stdout.splitlines()[0].startswith("bad.yaml:3:")
    assert len(checked.stdout.splitlines()) >= 2
    run = typed("run", "bad.yaml")
    assert (run.returncode, run.stderr) == (65, checked.stdout)
    assert not (tmp_path / ".headrace").exists()
    said = lines(typed("validate", "bad.yaml", "--json").stdout)
    assert said[0]["ok"] is False
    assert said[0]["problems"][0]["line"] == 3


@pytest.mark.parametrize(
    ("pair", "says"),
    [
        ("whom=x", "no input `whom`; did you mean `who`?"),
        ("times=0", "the input `times`"),
        ("times=many", "the input `times`"),
        ("times=[1", "-i times=[1: not YAML"),
    ],
)
def test_inputs_that_do_not_fit_are_65(typed: Typed, tmp_path: Path, pair: str, says: str) -> None:
    """Checked before anything is started."""
    written(tmp_path, "greet.yaml", GREET)
    done = typed("run", "greet.yaml", "-i", pair)
    assert done.returncode == 65, done
    assert done.stderr.startswith("error: inputs_invalid: ")
    assert says in done.stderr
    assert not (tmp_path / ".headrace").exists()


def test_input_2_a_file_that_cannot_be_read_is_66(typed: Typed, tmp_path: Path) -> None:
    """Missing, a directory, a FIFO that would block: path and reason."""
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    for name in ("missing.yaml", "folder.yaml", "pipe.yaml"):
        for command in ("run", "validate", "submit"):
            began_s = time.monotonic()
            done = typed(command, name)
            assert done.returncode == 66, (command, done)
            assert done.stderr.startswith(f"error: no_input: {name}: "), done.stderr
            assert time.monotonic() - began_s < 10, "a FIFO is refused without blocking"


def test_nothing_that_runs_here_is_69(typed: Typed, tmp_path: Path) -> None:
    """Neither HEADRACE_NATS_URL nor a system in this directory."""
    for command in (("runs",), ("show", "x"), ("services",), ("cancel", "x"), ("watch", "x"), ("submit", "name")):
        done = typed(*command)
        assert done.returncode == 69, (command, done)
        assert "error: unavailable: HEADRACE_NATS_URL is not set and nothing runs in .headrace" in done.stderr
        assert "hint: " in done.stderr


def test_input_57_no_broker_is_69_with_the_attempts(tmp_path: Path) -> None:
    """`doctor` says so after 5 s; other commands wait 30 s for a broker that restarts."""
    done = headrace(tmp_path, "doctor", HEADRACE_NATS_URL=NOBODY)
    assert done.returncode == 69
    assert "failed  connection: " in done.stdout
    assert "127.0.0.1:9" in done.stdout


def test_input_57_no_broker_is_69_after_30_s(tmp_path: Path) -> None:
    """The attempts are shown: how many, from when to when, and what came of them."""
    began_s = time.monotonic()
    done = headrace(tmp_path, "runs", HEADRACE_NATS_URL=NOBODY)
    assert done.returncode == 69
    assert 29 < time.monotonic() - began_s < 60
    assert "127.0.0.1:9: no connection within 30 s" in done.stderr
    assert re.search(r"s to \d+\.\d s, \d+ attempts: .*refused", done.stderr), done.stderr


def test_input_57_a_stream_of_another_configuration_is_78(nats_server: NatsServer, tmp_path: Path) -> None:
    """`admin migrate` makes everything, twice is once, and a difference is printed."""
    url = {"HEADRACE_NATS_URL": nats_server.url}
    for _ in range(2):
        done = headrace(tmp_path, "admin", "migrate", **url)
        assert done.returncode == 0, done
        assert "streams and" in done.stdout
    other = headrace(tmp_path, "admin", "migrate", "--cap", "llm=7", **url)
    assert other.returncode == 78
    assert "max_ack_pending" in other.stderr
    checked = headrace(tmp_path, "doctor", **url)
    assert "ok      streams" in checked.stdout
    assert checked.returncode == 69, "no service runs there"


def test_configuration_that_nobody_knows_is_78(typed: Typed, tmp_path: Path) -> None:
    """A misspelt variable is named, with the nearest known one."""
    written(tmp_path, "greet.yaml", GREET)
    for command in (("run", "greet.yaml"), ("runs",), ("up",)):
        done = typed(*command, HEADRACE_DATA_DRI="/x")
        assert done.returncode == 78, (command, done)
        assert "HEADRACE_DATA_DRI: unknown name; did you mean HEADRACE_DATA_DIR?" in done.stderr
    service = headrace(tmp_path, "service", "monitor", HEADRACE_DATA_DRI="/x")
    assert service.returncode == 78
    assert "HEADRACE_DATA_DRI: unknown name" in service.stderr
    weak = typed("run", "greet.yaml", HEADRACE_DURABILITY="D2")
    assert weak.returncode == 78
    assert "D2 needs three nodes" in weak.stderr


def test_a_data_directory_that_cannot_be_made_is_78(tmp_path: Path) -> None:
    """It names the path and the reason."""
    written(tmp_path, "greet.yaml", GREET)
    (tmp_path / "file").write_text("")
    done = headrace(tmp_path, "run", "greet.yaml", "--data-dir", "file/below")
    assert done.returncode == 78
    assert "cannot use file/below as data directory" in done.stderr


def test_input_58_a_broken_pipe_is_141(tmp_path: Path) -> None:
    """The reader goes away; nothing is printed about it."""
    script = f"{sys.executable} -m headrace.cli.app schema | true; echo ${{PIPESTATUS[0]}}"
    codes = set()
    for _ in range(3):  # `true` may still be there when a short text is written
        done = subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, env=environ(), capture_output=True, text=True, timeout=30, check=False
        )
        assert done.stderr == ""
        codes.add(done.stdout.strip())
    assert codes <= {"141", "0"}
    assert "141" in codes


@pytest.mark.parametrize(
    ("redirected", "code"),
    [("2>&1 | true", 141), ("2>/dev/full", 75), (">/dev/full", 75), (">/dev/full 2>&1", 75)],
)
def test_input_58_output_that_cannot_be_written_is_no_bug(tmp_path: Path, redirected: str, code: int) -> None:
    """Standard error without a reader, a full disk: the command says so where it still can, and leaves no traceback."""
    written(tmp_path, "greet.yaml", GREET)
    script = f"{sys.executable} -m headrace.cli.app run greet.yaml {redirected}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environ(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr
    assert "mistake" not in done.stderr
    if redirected == ">/dev/full":
        assert "error: output_failed: standard output: No space left on device" in done.stderr


def test_input_58_closed_standard_input_and_no_terminal_are_fine(tmp_path: Path) -> None:
    """Nothing is ever asked."""
    written(tmp_path, "greet.yaml", GREET)
    script = f"exec {sys.executable} -m headrace.cli.app run greet.yaml <&-"
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environ(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done


def test_help_and_validate_start_fast(tmp_path: Path) -> None:
    """Neither imports NATS, the configuration, rich or a web server. (pydantic comes with typer.)"""
    written(tmp_path, "greet.yaml", GREET)
    probe = (
        "import sys; from headrace.cli.app import main; code = main(sys.argv[1:]);"
        "heavy = ('nats', 'headrace.runtime.config', 'rich', 'uvicorn');"
        "print([m for m in heavy if m in sys.modules], file=sys.stderr)"
    )
    for arguments in (("--help",), ("validate", "greet.yaml")):
        done = subprocess.run(
            [sys.executable, "-c", probe, *arguments],
            cwd=tmp_path,
            env=environ(),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.stderr.splitlines()[-1] == "[]", done


def test_port_in_use_by_somebody_else_is_no_obstacle(tmp_path: Path) -> None:
    """The port of the last time is preferred, not needed."""
    written(tmp_path, "greet.yaml", GREET)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        (tmp_path / ".headrace").mkdir()
        (tmp_path / ".headrace/port").write_text(str(taken.getsockname()[1]))
        assert headrace(tmp_path, "run", "greet.yaml").returncode == 0


async def test_input_57_wrong_credentials_are_77(tmp_path: Path) -> None:
    """Denied, at once: trying again would not help."""
    secret = 'authorization { user: "u", password: "right" }'
    server = NatsServer(tmp_path / "nats", clock=SystemClock(), extra=secret)
    await server.start()
    try:
        url = server.url.replace("nats://", "nats://u:wrong@")
        done = await asyncio.to_thread(headrace, tmp_path, "runs", HEADRACE_NATS_URL=url)
        assert done.returncode == 77, done
        assert done.stderr.startswith("error: denied: ")
        assert "wrong" not in done.stderr.splitlines()[0].replace("wrong credentials", ""), "no secret is repeated"
        right = server.url.replace("nats://", "nats://u:right@")
        made = await asyncio.to_thread(headrace, tmp_path, "admin", "migrate", HEADRACE_NATS_URL=right)
        assert made.returncode == 0, made
    finally:
        await server.stop()


async def test_input_57_jetstream_disabled_is_78(tmp_path: Path) -> None:
    """The text says how to enable it."""
    server = NatsServer(tmp_path / "nats", clock=SystemClock(), jetstream=False)
    await server.start()
    try:
        done = await asyncio.to_thread(headrace, tmp_path, "runs", HEADRACE_NATS_URL=server.url)
        assert done.returncode == 78, done
        assert "JetStream is disabled" in done.stderr
    finally:
        await server.stop()


async def test_input_57_a_clock_an_hour_off_is_a_warning(broker: JetStreamBroker) -> None:
    """It is said, and everything works: decisions take the broker's time."""
    await migrate(broker)
    clock = SystemClock()
    clock.learn(clock.now_ms() + 3_600_000)
    client = Client(broker, tenant="default", clock=clock, entropy=SystemEntropy())
    link = Connection(broker=broker, client=client, clock=clock, settings=Settings(), url="")
    finding = await look_at_clock(link)
    assert (finding.verdict, finding.code) == ("warning", 0)
    assert re.match(r"-3[56]\d{5} ms between this machine and the broker", finding.text), finding.text
