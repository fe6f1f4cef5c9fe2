"""`headrace generate`: drafts of a scripted model are checked, repaired, shown, and never run."""

import json
from pathlib import Path

from headrace.cli.primer import EXAMPLE, primer
from headrace.pipeline.bundle import load_text
from tests.e2e.command import headrace, lines

GOOD = "pipeline: hello\\nsteps:\\n  say: {transform: '${{ 1 + 1 }}'}\\n"
BAD = GOOD.replace("transform", "transfrom")


def script(folder: Path, *answers: str) -> str:
    """A model that answers so, in turn; asserts what it is asked by what it matches."""
    (folder / "script.yaml").write_text("answers:\n" + "".join(f"  - {answer}\n" for answer in answers))
    return "script/script.yaml"


def test_what_a_model_is_told_is_true() -> None:
    """The example is a pipeline; the schema, functions and tools of this release are named."""
    assert load_text(EXAMPLE).plan.pipeline == "summarise-notes"
    told = primer()
    for word in ('"compensate"', "- sort_by(", "fs.glob: "):
        assert word in told, word
    assert len(told) < 100_000


def test_a_refused_draft_is_repaired_and_the_difference_is_shown(tmp_path: Path) -> None:
    """The model sees the problem at its place, answers again, and the file is written because that was asked for."""
    model = script(
        tmp_path,
        f'{{match: "did you mean `transform`?", text: "Better:\\n```yaml\\n{GOOD}```\\nbye"}}',
        f'{{match: "add one and one", text: "```yaml\\n{BAD}```"}}',
    )
    done = headrace(tmp_path, "generate", "add one and one", "--model", model, "-o", "sum.yaml", "--write")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "--- /dev/null",
        "+++ sum.yaml",
        "@@ -0,0 +1,3 @@",
        "+pipeline: hello",
        "+steps:",
        "+  say: {transform: '${{ 1 + 1 }}'}",
    ]
    assert "the draft has 2 problems, which the model is shown" in done.stderr
    assert load_text((tmp_path / "sum.yaml").read_text()).plan.pipeline == "hello"
    rows = lines(headrace(tmp_path, "run", "sum.yaml", "--json").stdout)
    assert rows[-1]["status"] == "completed"


def test_without_leave_nothing_is_written_and_never_anything_run(tmp_path: Path) -> None:
    """A file that is there is shown to the model; the difference from it is the answer; the file stays."""
    (tmp_path / "sum.yaml").write_text("pipeline: old\nsteps:\n  say: {transform: 2}\n")
    model = script(tmp_path, f'{{match: "pipeline: old", text: "{GOOD}"}}')
    done = headrace(tmp_path, "generate", "more", "--model", model, "-o", "sum.yaml", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert not said["written"]
    assert "-pipeline: old\n+pipeline: hello" in said["diff"]
    assert (tmp_path / "sum.yaml").read_text().startswith("pipeline: old")
    assert len(said["runs"]) == 1


def test_after_three_repairs_the_problems_are_told(tmp_path: Path) -> None:
    """Four runs and no more; the last draft and its problems are shown, the exit code is that of a bad definition."""
    model = script(tmp_path, f'{{text: "```\\n{BAD}```"}}')
    done = headrace(tmp_path, "generate", "add", "--model", model)
    assert done.returncode == 65
    assert done.stderr.count("asks script/script.yaml") == 4
    assert "E1101 unknown key `transfrom`; did you mean `transform`?" in done.stderr
    assert done.stdout.startswith("pipeline: hello")


def test_a_model_that_fails_is_a_failed_run(tmp_path: Path) -> None:
    """With the provider's reason, exit code 1."""
    model = script(tmp_path, "{error: auth, message: no key}")
    done = headrace(tmp_path, "generate", "add", "--model", model)
    assert done.returncode == 1
    assert "no key" in done.stderr
    assert headrace(tmp_path, "generate", " ", "--model", model).returncode == 64
    assert headrace(tmp_path, "generate", "x", "--model", model, "--write").returncode == 64
