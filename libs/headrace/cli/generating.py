"""`headrace generate`: a model drafts a pipeline, sees what is wrong with it, and a person sees the difference.

Each turn is a run of its own here, with a history like any other, so that what was asked and paid can be looked up.
Nothing that was drafted is ever run.
"""

import difflib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from headrace.cli.connection import cli_settings
from headrace.cli.here import system_here
from headrace.cli.interrupt import run_interruptible
from headrace.cli.output import UsageError, counted, emit, note, report_error, say
from headrace.cli.pricing import price_table
from headrace.cli.primer import primer
from headrace.cli.watching import report_result, watch_run
from headrace.client.client import Client
from headrace.client.history import RunView
from headrace.contracts import names
from headrace.contracts.errors import DefinitionError, InputFileError
from headrace.pipeline.bundle import load_text
from headrace.pipeline.loader import DOCUMENT_BYTES_MAX

REPAIRS_MAX: Final = 3
"""Turns in which the model sees what is wrong; whoever has not got it right by then does not."""
ANSWER_TOKENS_MAX: Final = 8000
"""A pipeline of 200 steps has about 6,000."""
LABELS: Final = {"made_by": "headrace generate"}


@dataclass(slots=True, frozen=True)
class GenerateArgs:
    """The command line of `generate`."""

    request: str
    model: str
    file: Path | None = None
    write: bool = False
    as_json: bool = False
    data_dir: Path | None = None
    nats_server: str = ""


def generate_command(args: GenerateArgs) -> int:
    """The exit code of `headrace generate`."""
    if not args.request.strip():
        msg = "say what the pipeline is to do"
        raise UsageError(msg)
    if args.write and args.file is None:
        msg = "--write needs --output FILE"
        raise UsageError(msg)
    job = _Job(args, _current(args.file))
    return run_interruptible(job.main(), detached=lambda: note("stopped; nothing was written"))


def _current(file: Path | None) -> str:
    """What is in the file that is to be written; empty when there is none yet."""
    if file is None or not file.exists():
        return ""
    try:
        with file.open("rb") as stream:
            data = stream.read(DOCUMENT_BYTES_MAX + 1) if file.is_file() else b"\xff"
        text = data.decode()
    except OSError as error:
        msg = f"{file}: {error.strerror}"
        raise InputFileError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{file}: no text file"
        raise InputFileError(msg) from error
    if len(data) > DOCUMENT_BYTES_MAX:
        msg = f"{file}: larger than a pipeline may be, {DOCUMENT_BYTES_MAX} bytes"
        raise InputFileError(msg)
    return text


class _Job:
    def __init__(self, args: GenerateArgs, before: str) -> None:
        self._args, self._before = args, before
        self._name = str(args.file or "draft.yaml")
        self._runs: list[str] = []

    async def main(self) -> int:
        """Draft, repair, show."""
        settings = cli_settings(self._args.data_dir)
        asked = {self._args.model}
        there = system_here(settings, granted=(Path.cwd(),), models=asked, nats_server=self._args.nats_server)
        async with there as here:
            return await self._draft(here.client, [self._request()], repairs=REPAIRS_MAX)

    async def _draft(self, client: Client, said: list[str], *, repairs: int) -> int:
        """One turn, and those after it while there are problems."""
        view = await self._ask(client, said)
        if view.outputs is None:
            return await report_result(client, view, workspace=None, as_json=self._args.as_json)
        outputs = await client.value(view.outputs)
        draft = _draft_of(outputs)
        try:
            load_text(draft, file=self._name, prices=price_table())
        except DefinitionError as error:
            if not repairs:
                note(f"no draft of {1 + REPAIRS_MAX} was a pipeline; this is the last one, of run {view.run}:")
                say(draft)
                raise
            note(f"the draft has {counted(len(error.problems), 'problem')}, which the model is shown")
            return await self._draft(client, [*said, outputs["text"], _complaint(error)], repairs=repairs - 1)
        return self._show(draft)

    def _request(self) -> str:
        if not self._before:
            return self._args.request
        return f"This is {self._name}:\n```yaml\n{self._before}\n```\nChange it: {self._args.request}"

    async def _ask(self, client: Client, said: list[str]) -> RunView:
        """One turn of the conversation, as a run that has ended or cannot go on."""
        bundle = load_text(json.dumps(_turn(len(said))), file="generate.yaml")
        await client.put_definition(bundle)
        inputs = {"model": self._args.model, "system": primer(), "said": said}
        run = await client.start(f"{bundle.plan.pipeline}@{bundle.digest}", inputs, labels=LABELS)
        self._runs.append(run)
        note(f"run {run}: asks {self._args.model}")
        view = RunView(run)
        await watch_run(client, view, as_json=self._args.as_json)
        return view

    def _show(self, draft: str) -> int:
        """The difference; and the file, for whoever wants it."""
        args = self._args
        changes = "\n".join(
            difflib.unified_diff(
                self._before.splitlines(),
                draft.splitlines(),
                self._name if self._before else "/dev/null",
                self._name,
                lineterm="",
            )
        )
        if not args.as_json:
            say(changes or "no difference")
        wanted = args.write or self._agreed()
        if wanted and args.file is not None:
            try:
                args.file.write_text(draft, encoding="utf-8")
            except OSError as error:
                return report_error(InputFileError(f"{args.file}: {error.strerror}"), as_json=args.as_json)
        if args.as_json:
            emit({"event": "draft", "runs": self._runs, "draft": draft, "diff": changes, "written": wanted})
        elif wanted:
            note(f"written to {args.file}; `headrace run {args.file}` runs it")
        return names.EXIT_OK

    def _agreed(self) -> bool:
        """What somebody at a terminal says; nobody there says no."""
        if self._args.file is None or self._args.as_json or not sys.stdin.isatty():
            return False
        note(f"write {self._args.file}? [y/N]")
        return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _turn(count: int) -> dict[str, Any]:
    """The pipeline of one turn, for a conversation of so many messages, the user's first."""
    spoken = [
        {"role": ("user", "assistant")[number % 2], "content": f"${{{{ inputs.said[{number}] }}}}"}
        for number in range(count)
    ]
    return {
        "pipeline": "generate",
        "description": "One turn of a conversation in which a model drafts a pipeline.",
        "inputs": {"model": {"type": "string"}, "system": {"type": "string"}, "said": {"type": "array"}},
        "limits": {"deadline": "10m"},
        "steps": {
            "draft": {
                "timeout": "3m",
                "llm": {
                    "model": "${{ inputs.model }}",
                    "max_tokens": ANSWER_TOKENS_MAX,
                    "messages": [{"role": "system", "content": "${{ inputs.system }}"}, *spoken],
                },
            },
            "code": {"tool": "text.extract_code", "with": {"text": "${{ steps.draft.output.text }}"}},
        },
        "outputs": {"text": "${{ steps.draft.output.text }}", "blocks": "${{ steps.code.output.blocks }}"},
    }


def _draft_of(outputs: dict[str, Any]) -> str:
    """The longest block of the answer; the whole of it where the model fenced nothing."""
    longest: str = max((block["code"] for block in outputs["blocks"]), key=len, default=outputs["text"])
    return longest.rstrip("\n") + "\n"


def _complaint(refused: DefinitionError) -> str:
    problems = "\n".join(str(problem) for problem in refused.problems)
    return f"This file is refused:\n{problems}\nAnswer with the whole file, corrected."
