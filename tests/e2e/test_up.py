"""`headrace up`: a system for a second terminal, in one process or in one a service."""

import os
import re
import time
from collections import Counter
from pathlib import Path

from headrace.local.datadir import read_endpoint
from tests.e2e.command import Started, headrace, lines, processes_of, until
from tests.e2e.pipelines import GREET, STEPS, ledger, written
from tests.engine import ack_waits_s

ACK_WAIT_S = 30.0
SERVICES = ("scheduler", "step-executor", "tool-registry", "session-store", "monitor")


def pid_of(system: Started, name: str) -> int:
    """Of the unit as it was last started."""
    found = [re.search(rf"{name}: started \(pid (\d+)\)", line) for line in system.lines]
    return int([match.group(1) for match in found if match][-1])


def up(folder: Path, system: Started) -> None:
    """All five services answer."""

    def all_ready() -> bool:
        said = headrace(folder, "services", "--json")
        return said.returncode == 0 and {row["service"] for row in lines(said.stdout) if row["ready"]} == set(SERVICES)

    system.until(lambda: (folder / ".headrace/endpoint").exists(), within_s=60, what="endpoint")
    until(all_ready, within_s=60, what="services ready")


def test_a_second_terminal_submits_looks_and_controls(tmp_path: Path) -> None:
    """Everything that looks and asks, against one system."""
    file = written(tmp_path, "greet.yaml", GREET)
    slow = ledger(tmp_path, latency_ms=3_000)
    with Started(tmp_path, "up") as system:
        system.until(lambda: any(line.startswith("ready: ") for line in system.lines), what="up")
        waited = headrace(tmp_path, "submit", str(file), "-i", "who=there", "--wait", "--run-id", "greet-1")
        assert (waited.returncode, waited.stdout) == (0, 'said: ["hello there 1", "hello there 2"]\n'), waited
        by_name = headrace(tmp_path, "submit", "greet", "-i", "times=1", "--json")
        assert lines(by_name.stdout)[0]["event"] == "started"
        reused = headrace(tmp_path, "submit", str(file), "--run-id", "greet-1")
        assert reused.returncode == 65
        assert "error: key_reused: " in reused.stderr

        shown = headrace(tmp_path, "show", "greet-1")
        assert "status completed" in shown.stdout
        assert re.search(r"say\[1\] +completed +1", shown.stdout), shown.stdout
        assert lines(headrace(tmp_path, "show", "greet-1", "--json").stdout)[0]["outputs"]["said"][0] == "hello there 1"
        events = headrace(tmp_path, "events", "greet-1")
        assert "decision 1: run.created" in events.stdout
        assert lines(headrace(tmp_path, "events", "greet-1", "--json").stdout)[0]["specversion"] == "1.0"
        assert {each["stream"] for each in lines(headrace(tmp_path, "export", "greet-1").stdout)} == {"HR_RUNS_0"}
        unknown = headrace(tmp_path, "show", "nobody")
        assert (unknown.returncode, unknown.stderr) == (65, "error: not_found: no run 'nobody'\n")

        run = headrace(tmp_path, "submit", str(slow)).stdout.strip()
        assert "is accepted" in headrace(tmp_path, "pause", run).stdout
        until(lambda: "paused" in headrace(tmp_path, "show", run).stdout, within_s=20, what="paused")
        assert headrace(tmp_path, "resume", run, "--json").returncode == 0
        with Started(tmp_path, "watch", run, "--json") as watching:
            assert headrace(tmp_path, "cancel", run, "--reason", "enough").returncode == 0
            assert watching.wait(20) == 1
            assert watching.objects[-1]["status"] == "cancelled"
        again = headrace(tmp_path, "cancel", run)
        assert again.returncode == 65
        assert "has ended: cancelled" in again.stderr
        listed = lines(headrace(tmp_path, "runs", "--json", "--status", "completed").stdout)
        assert {row["pipeline"] for row in listed} == {"greet"}
        healthy = headrace(tmp_path, "doctor")
        assert healthy.returncode == 0, healthy.stdout
        assert "durability: D0: synced every 100 ms" in healthy.stdout

        granting = headrace(tmp_path, "run", str(file), "--read-root", "/")
        assert (granting.returncode, "`headrace up` runs here" in granting.stderr) == (64, True), granting
        attached = headrace(tmp_path, "run", str(file))
        assert attached.returncode == 0, attached
        assert "attached to nats://127.0.0.1:" in attached.stderr
        system.interrupt()
        assert system.wait(20) == 0
        assert system.lines[-1] == "stopped"
    until(lambda: not processes_of(tmp_path), within_s=5, what="left running")


def test_input_58_watch_survives_a_restart_of_the_system(tmp_path: Path) -> None:
    """The broker keeps its port, the watcher its sequence."""
    slow = ledger(tmp_path, latency_ms=800)
    with Started(tmp_path, "up") as first:
        first.until(lambda: any(line.startswith("ready: ") for line in first.lines), what="up")
        run = headrace(tmp_path, "submit", str(slow)).stdout.strip()
        with Started(tmp_path, "watch", run, "--json") as watching:
            watching.until(lambda: watching.completed(), what="first step")
            first.kill_group()
            with Started(tmp_path, "up") as second:
                assert watching.wait(60) == 0, watching.lines[-1]
                completed = watching.completed()
                assert len(completed) == len(set(completed)), "nothing is shown twice"
                assert "think7" in completed
                second.interrupt()
                second.wait(20)


def submitted(folder: Path, file: Path) -> str:
    """The run's id."""
    return headrace(folder, "submit", str(file)).stdout.strip()


def check_ledger(watching: Started, *, under_way_max: int) -> None:
    """Every step was shown to be completed once, and at most those under way at a kill had their effect twice."""
    assert set(Counter(watching.completed()).values()) == {1}
    wrote = Counter(watching.objects[-1]["outputs"]["ledger"].split())
    assert set(wrote) == {f"write{number}" for number in range(STEPS)}
    assert wrote.total() <= STEPS + under_way_max, wrote


async def test_fault_kill_9_of_one_service_and_the_run_completes(tmp_path: Path) -> None:
    """`up --procs`: whichever dies is started again, what it held is taken up, and nobody waits for ack_wait."""
    slow = ledger(tmp_path, latency_ms=400)
    with Started(tmp_path, "up", "--procs") as system:
        up(tmp_path, system)
        endpoint = read_endpoint(tmp_path / ".headrace")
        assert endpoint is not None
        assert set((await ack_waits_s(endpoint.url)).values()) == {ACK_WAIT_S}
        for victims in (("step-executor",), ("scheduler",), ("tool-registry", "session-store", "monitor")):
            run = submitted(tmp_path, slow)
            with Started(tmp_path, "watch", run, "--json") as watching:
                for number, victim in enumerate(victims):
                    watching.until(lambda: len(watching.completed()) >= 2 + 3 * number, what="some steps")  # noqa: B023
                    killed_s = time.monotonic()
                    os.kill(pid_of(system, victim), 9)
                assert watching.wait(ACK_WAIT_S + 30) == 0, watching.errors.read_text()
                assert time.monotonic() - killed_s < ACK_WAIT_S
                check_ledger(watching, under_way_max=1 if victims == ("step-executor",) else 0)
            for victim in victims:
                restarted = f"{victim}: ended with signal SIGKILL; starts again in 0.1 s"
                assert restarted in system.lines, system.lines
        system.kill_group()
    until(lambda: not processes_of(tmp_path), within_s=5, what="left running after kill -9 of the parent")


def test_fault_kill_9_of_everything_and_the_run_completes(tmp_path: Path) -> None:
    """Broker and all five services at one instant; started again, they go on where the log says it was."""
    slow = ledger(tmp_path, latency_ms=400)
    with Started(tmp_path, "up", "--procs") as system:
        up(tmp_path, system)
        run = submitted(tmp_path, slow)
        with Started(tmp_path, "watch", run, "--json") as watching:
            watching.until(lambda: len(watching.completed()) >= 5, what="some steps")
            pids = [pid for pid in processes_of(tmp_path) if pid != watching.popen.pid]
            assert len(pids) == len(SERVICES) + 2, "the broker and their parent too"
            for pid in pids:
                os.kill(pid, 9)
            system.wait(10)
            before = set(watching.completed())
            with Started(tmp_path, "up", "--procs") as again:
                assert watching.wait(ACK_WAIT_S + 30) == 0, watching.errors.read_text()
                again.interrupt()
                assert again.wait(45) == 0
        check_ledger(watching, under_way_max=1)
        wrote = Counter(watching.objects[-1]["outputs"]["ledger"].split())
        assert {name for name in before & wrote.keys() if wrote[name] != 1} == set()


def test_a_service_in_a_crash_loop_is_set_aside(tmp_path: Path) -> None:
    """Five deaths within a minute: an error line, and the others go on."""
    with Started(tmp_path, "up", "--procs", HEADRACE_MONITOR_RUNS_MAX="1") as system:
        system.until(lambda: any("set aside" in line for line in system.lines), within_s=60, what="set aside")
        (line,) = [line for line in system.lines if "set aside" in line]
        assert line.startswith("error: monitor: 5 deaths within 60 s, the last with exit code 78")
        others = "scheduler 1, step-executor 1, tool-registry 1, session-store 1, monitor 0"
        until(lambda: others in headrace(tmp_path, "doctor").stdout, within_s=45, what="the others are up")
        system.interrupt()
        assert system.wait(45) == 0
