"""Small pipelines, written into a test's own directory."""

from pathlib import Path

GREET = """
pipeline: greet
inputs:
  who: {type: string, default: world}
  times: {type: integer, minimum: 1, default: 2}
steps:
  numbers: {transform: {all: "${{ [1, 2, 3].filter(n, n <= inputs.times) }}"}}
  say:
    foreach: ${{ steps.numbers.output.all }}
    llm: {prompt: "hello ${{ inputs.who }} ${{ item }}"}
outputs:
  said: ${{ steps.say.output.items.map(i, i.text) }}
"""

FAILS = """
pipeline: fails
steps:
  read: {tool: fs.read, with: {path: missing.txt}, retry: {attempts: 1}}
"""

STEPS = 8
"""Rounds of the ledger pipeline."""


def ledger(folder: Path, *, latency_ms: int = 150, wide: bool = False) -> Path:
    """A chain in which each step writes its name into a ledger and a slow model call follows it.

    Appending is no call to repeat blindly: without `on_unknown` a kill in the middle of one would fail the run.

    Args:
        wide: Two steps write side by side, so that their orders are messages of their own, after the decision.
    """
    (folder / "slow.yaml").write_text(f"answers: [{{text: done, latency_ms: {latency_ms}}}]\n")
    steps, before = [], ""
    for number in range(STEPS):
        needs = f"needs: [{before}], " if before else ""
        for name in writers(number, wide=wide):
            call = f'tool: fs.append, on_unknown: retry, with: {{path: ledger.txt, text: "{name}\\n"}}'
            steps.append(f"  {name}: {{{needs}{call}}}")
        writes = ", ".join(writers(number, wide=wide))
        steps.append(f"  think{number}: {{needs: [{writes}], llm: {{model: script/slow.yaml, prompt: go on}}}}")
        before = f"think{number}"
    steps.append(f"  read: {{needs: [{before}], tool: fs.read, with: {{path: ledger.txt}}}}")
    text = "pipeline: ledger\nworkspace: true\nsteps:\n" + "\n".join(steps)
    text += '\noutputs: {ledger: "${{ steps.read.output.content }}"}\n'
    return written(folder, "ledger.yaml", text)


def writers(number: int, *, wide: bool = False) -> tuple[str, ...]:
    """Steps of a round that write their own name into the ledger."""
    return (f"write{number}", f"mark{number}") if wide else (f"write{number}",)


def written(folder: Path, name: str, text: str) -> Path:
    """The file, with this text."""
    path = folder / name
    path.write_text(text)
    return path
