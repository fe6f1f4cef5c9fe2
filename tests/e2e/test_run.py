"""`headrace run` on its own: from a file to a result, in a directory where nothing is prepared."""

import time
from pathlib import Path

from tests.e2e.command import Started, headrace, lines, processes_of, until
from tests.e2e.pipelines import FAILS, GREET, ledger, written


def test_a_run_gives_its_outputs_and_leaves_nothing_running(tmp_path: Path) -> None:
    """From nothing to a result in one command."""
    file = written(tmp_path, "greet.yaml", GREET)
    done = headrace(tmp_path, "run", str(file), "-i", "who=you")
    assert (done.returncode, done.stdout) == (0, 'said: ["hello you 1", "hello you 2"]\n'), done
    assert "D0: survives kill -9" in done.stderr
    assert "model echo/echo" in done.stderr
    assert "say  completed  2/2" in done.stderr
    assert processes_of(tmp_path) == {}
    assert not (tmp_path / ".headrace/endpoint").exists()


def test_a_proxy_in_the_environment_is_not_asked_for_this_machine(tmp_path: Path) -> None:
    """The broker is a child on loopback: where `http_proxy` points to nothing there is still a run."""
    written(tmp_path, "greet.yaml", GREET)
    nowhere = "http://127.0.0.1:9"
    done = headrace(tmp_path, "run", "greet.yaml", http_proxy=nowhere, HTTP_PROXY=nowhere, all_proxy=nowhere)
    assert done.returncode == 0, done
    with Started(tmp_path, "up", http_proxy=nowhere) as system:
        system.until(lambda: any(line.startswith("ready: ") for line in system.lines), what="up")
        looked = headrace(tmp_path, "doctor", http_proxy=nowhere)
        assert (looked.returncode, "D0: synced every 100 ms" in looked.stdout) == (0, True), looked


def test_what_a_model_says_does_not_drive_the_terminal(tmp_path: Path) -> None:
    """Control characters are shown, not sent; `--json` has them as JSON does."""
    prompt = "\\e[2J\\e]0;title\\a tab\\there\\r\\nnext \\x9b31m \\u202e"
    steps = f'  say: {{llm: {{model: echo/echo, prompt: "{prompt}"}}}}'
    written(
        tmp_path, "esc.yaml", f"pipeline: esc\nsteps:\n{steps}\noutputs: {{said: '${{{{ steps.say.output.text }}}}'}}\n"
    )
    done = headrace(tmp_path, "run", "esc.yaml")
    assert done.stdout == "said: \\u001b[2J\\u001b]0;title\\u0007 tab\there\nnext \\u009b31m \\u202e\n", done
    raw = headrace(tmp_path, "run", "esc.yaml", "--json").stdout
    assert not set("\x1b\x07\x9b\u202e") & set(raw)
    assert lines(raw)[-1]["outputs"]["said"] == "\x1b[2J\x1b]0;title\x07 tab\there\r\nnext \x9b31m \u202e"


def test_json_lines_end_with_the_result(tmp_path: Path) -> None:
    """One object a line, nothing else on standard output."""
    file = written(tmp_path, "greet.yaml", GREET)
    done = headrace(tmp_path, "run", str(file), "--json", "-i", "times=1")
    said = lines(done.stdout)
    assert said[0]["event"] == "started"
    assert [each["path"] for each in said if each["event"] == "step.completed"] == ["numbers", "say[0]", "say"]
    assert (said[-1]["event"], said[-1]["status"]) == ("result", "completed")
    assert said[-1]["outputs"] == {"said": ["hello world 1"]}
    assert {each["run"] for each in said} == {said[0]["run"]}


def test_a_failed_run_ends_with_1_and_says_where(tmp_path: Path) -> None:
    """The run's failure is the command's, with the step and the code."""
    file = written(tmp_path, "fails.yaml", FAILS)
    done = headrace(tmp_path, "run", str(file))
    assert done.returncode == 1
    assert "step `read`: not_found" in done.stderr
    said = lines(headrace(tmp_path, "run", str(file), "--json").stdout)
    assert said[-1]["failure"]["code"] == "not_found"
    assert said[-1]["failure"]["step"] == "read"


def test_an_ended_run_is_not_resumed(tmp_path: Path) -> None:
    """The same command again is another run."""
    file = written(tmp_path, "greet.yaml", GREET)
    first = lines(headrace(tmp_path, "run", str(file), "--json").stdout)
    again = lines(headrace(tmp_path, "run", str(file), "--json").stdout)
    assert again[0]["event"] == "started"
    assert again[0]["run"] != first[0]["run"]


def test_another_input_or_new_starts_another_run(tmp_path: Path) -> None:
    """Only the same file, digest and inputs are the same run."""
    file = ledger(tmp_path, latency_ms=5_000)
    with Started(tmp_path, "run", str(file), "--json") as started:
        started.until(lambda: "write0" in started.completed(), what="first step")
        started.kill_group()
        unfinished = started.objects[0]["run"]
    with Started(tmp_path, "run", str(file), "--json", "--new") as again:
        again.until(lambda: again.lines, what="start")
        assert again.objects[0]["event"] == "started"
        assert again.objects[0]["run"] != unfinished
        again.kill_group()
    with Started(tmp_path, "run", str(file), "--json") as last:
        last.until(lambda: last.lines, what="resume")
        assert last.objects[0]["event"] == "resumed"
        assert last.objects[0]["run"] == again.objects[0]["run"], "the newest"


def test_input_58_ctrl_c_detaches_with_the_run_id(tmp_path: Path) -> None:
    """Once: everything stops in order, 130, and the same command goes on with the run."""
    file = ledger(tmp_path)
    with Started(tmp_path, "run", str(file), "--json") as started:
        started.until(lambda: "write1" in started.completed(), what="second step")
        started.interrupt()
        assert started.wait(20) == 130
    run = started.objects[0]["run"]
    assert f"detached from run {run}" in started.errors.read_text()
    until(lambda: not processes_of(tmp_path), within_s=5, what="left running")
    done = lines(headrace(tmp_path, "run", str(file), "--json").stdout)
    assert (done[0]["event"], done[0]["run"]) == ("resumed", run)
    assert done[-1]["outputs"]["ledger"] == "".join(f"write{number}\n" for number in range(8))


def test_input_58_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    """Twice: nothing is waited for, and nothing is left behind."""
    file = ledger(tmp_path, latency_ms=5_000)
    with Started(tmp_path, "run", str(file), "--json") as started:
        started.until(lambda: "write0" in started.completed(), what="first step")
        started.interrupt()
        time.sleep(0.2)  # two signals at once are one: the kernel does not count them
        started.interrupt()
        assert started.wait(1) == 130
    until(lambda: not processes_of(tmp_path), within_s=5, what="left running")


def test_a_second_run_in_one_directory_is_told_to_wait(tmp_path: Path) -> None:
    """Two brokers must not write one store: 75, naming the directory."""
    file = ledger(tmp_path, latency_ms=5_000)
    with Started(tmp_path, "run", str(file), "--json") as started:
        started.until(lambda: "write0" in started.completed(), what="first step")
        second = headrace(tmp_path, "run", str(file))
        assert second.returncode == 75
        assert "error: in_use: .headrace is in use by another headrace process" in second.stderr
        watched = headrace(tmp_path, "runs", "--json")
        assert lines(watched.stdout)[0]["run"] == started.objects[0]["run"], "a second terminal attaches"
