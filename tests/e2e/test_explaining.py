"""`headrace explain`, `diff`, `rerun` and `fork` from a second terminal."""

from pathlib import Path

from tests.e2e.command import Started, headrace, lines, until
from tests.e2e.pipelines import FAILS, written

WAITS = """
pipeline: waits
inputs: {n: {type: integer, default: 1}}
steps:
  double: {transform: {all: "${{ inputs.n * 2 }}"}}
  nap: {needs: [double], wait: {for: 1h}}
  after: {needs: [nap], transform: {all: 1}}
"""


def test_a_second_terminal_asks_why_compares_and_goes_on(tmp_path: Path) -> None:
    """In sentences with their events, and as JSON."""
    file, fails = written(tmp_path, "waits.yaml", WAITS), written(tmp_path, "fails.yaml", FAILS)
    with Started(tmp_path, "up") as system:
        system.until(lambda: any(line.startswith("ready: ") for line in system.lines), what="up")
        one = headrace(tmp_path, "submit", str(file)).stdout.strip()
        two = headrace(tmp_path, "submit", str(file), "-i", "n=3").stdout.strip()
        until(lambda: "`nap` waits until" in headrace(tmp_path, "explain", one).stdout, within_s=20, what="naps")
        why = headrace(tmp_path, "explain", one, "after")
        assert why.returncode == 0, why
        assert why.stdout.splitlines()[0] == "`after` waits for `nap`"
        assert "(event " in why.stdout.splitlines()[1]
        assert [row["code"] for row in lines(headrace(tmp_path, "explain", one, "after", "--json").stdout)] == [
            "needs",
            "timer",
        ]

        until(lambda: "`nap` waits" in headrace(tmp_path, "explain", two).stdout, within_s=20, what="naps too")
        found = lines(headrace(tmp_path, "diff", one, two, "--json").stdout)[0]
        assert (found["first"]["differs"], found["step"]["path"]) == (["inputs"], "double")
        said = headrace(tmp_path, "diff", one, two).stdout
        assert "first difference: the run" in said
        assert "first of a step: `double`" in said

        edited = written(tmp_path, "edited.yaml", WAITS.replace("for: 1h", "for: 1ms"))
        forked = headrace(tmp_path, "fork", one, "--at", "nap", "--file", str(edited), "--wait", "--json")
        assert forked.returncode == 0, forked
        run = lines(forked.stdout)[0]["run"]
        shown = lines(headrace(tmp_path, "show", run, "--json").stdout)[0]
        assert (shown["origin"], shown["status"]) == ({"run": one, "step": "nap"}, "completed")
        assert {step["path"]: step["taken"] for step in shown["steps"]} == {"double": one, "nap": "", "after": ""}
        again = headrace(tmp_path, "rerun", run, "--from", "after", "--run-id", "again").stdout
        assert again == "again\n"
        refused = headrace(tmp_path, "fork", run, "--at", "after", "-i", "n=9")
        assert (refused.returncode, "error: prefix_changed: `double` comes before" in refused.stderr) == (65, True)
        assert "completed in run" in headrace(tmp_path, "explain", "again", "double").stdout

        failed = headrace(tmp_path, "submit", str(fails), "--wait", "--json")
        reasons = headrace(tmp_path, "explain", lines(failed.stdout)[0]["run"]).stdout
        assert reasons.startswith("the run failed: `read` "), reasons
        system.interrupt()
        assert system.wait(20) == 0
