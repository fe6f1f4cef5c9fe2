"""Secrets at the command line: named in the file, held in a directory, shown nowhere."""

from pathlib import Path

from tests.e2e.command import headrace, lines

CANARY = "canary-7d1e-of-the-command-line"
TEXT = """
pipeline: keep
workspace: true
outputs: {read: "${{ steps.read.output.content }}", bad: "${{ steps.bad.error.message }}"}
steps:
  write: {tool: fs.write, with: {path: token.txt, text: "token=${{ secrets.TOKEN }}"}}
  read: {needs: [write], tool: fs.read, with: {path: token.txt}}
  bad: {tool: fs.read, with: {path: "${{ secrets.TOKEN }}"}, on_error: continue, retry: {attempts: 1}}
"""


def prepared(folder: Path, text: str = TEXT) -> dict[str, str]:
    """A file and a directory with one secret; gives the environment."""
    (folder / "keep.yaml").write_text(text)
    (folder / "secrets").mkdir()
    (folder / "secrets" / "TOKEN").write_text(CANARY)
    return {"HEADRACE_SECRETS_DIR": str(folder / "secrets"), "HEADRACE_LOG_LEVEL": "debug"}


def test_invariant_i21_a_run_uses_a_secret_and_says_nothing_of_it(tmp_path: Path) -> None:
    """It is in the file that the step wrote, because that is what it was for; a step that reads it back gives its name,
    and so do the error, the events, the log and every command that shows the run."""
    env = prepared(tmp_path)
    done = headrace(tmp_path, "run", "keep.yaml", "--json", **env)
    assert done.returncode == 0, done.stderr
    (written,) = (tmp_path / ".headrace" / "workspaces").rglob("token.txt")
    assert written.read_text() == f"token={CANARY}"
    given = lines(done.stdout)[-1]["outputs"]
    assert given["read"] == "token=[secret TOKEN]" and "'[secret TOKEN]': no such file" in given["bad"]
    run = written.parent.name
    shown = [done.stdout, done.stderr, *(path.read_text() for path in (tmp_path / ".headrace" / "logs").iterdir())]
    for words in (["show", run], ["events", run], ["plan", "keep.yaml"]):
        told = headrace(tmp_path, *words, **env)
        assert told.returncode in (0, 69), (words, told.stderr)  # what needs a running system has none
        shown += [told.stdout, told.stderr]
    assert not any("7d1e" in text for text in shown)


def test_input_33_a_missing_secret_is_78_with_its_name(tmp_path: Path) -> None:
    """The start is refused: no run exists afterwards."""
    env = prepared(tmp_path, TEXT.replace("secrets.TOKEN", "secrets.MISSING"))
    done = headrace(tmp_path, "run", "keep.yaml", **env)
    assert done.returncode == 78, done.stderr
    assert "error: secret_missing: no executor has the secret `MISSING`" in done.stderr
    assert CANARY not in done.stderr + done.stdout and not list((tmp_path / ".headrace").rglob("token.txt"))


def test_a_directory_of_secrets_that_cannot_be_used_is_78(tmp_path: Path) -> None:
    """With the file, and not what is in it."""
    env = prepared(tmp_path)
    (tmp_path / "secrets" / "TOKEN").write_text("short")
    done = headrace(tmp_path, "run", "keep.yaml", **env)
    assert done.returncode == 78, done.stderr
    assert "TOKEN: a secret has at least 8 characters" in done.stderr and "short" not in done.stderr


def test_input_32_a_credential_in_the_file_is_65_and_not_echoed(tmp_path: Path) -> None:
    """With what to write instead."""
    key = "sk-" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6"
    (tmp_path / "p.yaml").write_text(f"pipeline: p\nsteps: {{a: {{tool: fs.read, with: {{path: {key}}}}}}}\n")
    done = headrace(tmp_path, "validate", "p.yaml")
    assert done.returncode == 65
    assert "E1115 this looks like a credential; use `secrets.<NAME>`" in done.stderr + done.stdout
    assert key[:12] not in done.stderr + done.stdout
