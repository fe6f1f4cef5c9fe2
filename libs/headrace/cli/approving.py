"""`approve`: shows exactly what a step asks, and sends the answer that is bound to it."""

import getpass
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from headrace.cli.connection import connected
from headrace.cli.inputs import parse_payload
from headrace.cli.interrupt import run_interruptible
from headrace.cli.output import UsageError, emit, note, say
from headrace.client.history import StepView
from headrace.contracts import commands as cmd
from headrace.contracts import events as ev
from headrace.contracts import names
from headrace.contracts.errors import ConflictError, NotFoundError
from headrace.runtime.clock import rfc3339


@dataclass(slots=True, frozen=True)
class ApproveArgs:
    """The command line of `approve`."""

    run: str
    step: str
    decision: cmd.Answer = "approve"
    by: str = ""
    hash: str = ""
    comment: str = ""
    value: str | None = None
    as_json: bool = False
    data_dir: Path | None = None


def approve_command(args: ApproveArgs) -> int:
    """Answer a step; returns once the run has taken the answer.

    With `--hash` nothing is asked: it says which question is meant, and another one is refused. Without, what is
    approved is shown on the terminal, and asked.
    """
    by = args.by or _user()
    if args.hash:
        return _send(args, by, args.hash)
    if args.as_json or sys.stdin is None or not sys.stdin.isatty():
        msg = "there is no terminal to ask on: `headrace show RUN` says what is asked, give its hash with --hash"
        raise UsageError(msg)
    found: list[ev.ApprovalRequested] = []
    code = run_interruptible(_look(args, found), detached=lambda: note("nothing was sent"))
    if not found:
        return code
    try:
        said = input(f"{args.decision.capitalize()} as {by}? [y/N] ").strip().lower()
    except (EOFError, KeyboardInterrupt):
        said = ""
        note("")
    if said not in ("y", "yes"):
        note("nothing was sent")
        return names.EXIT_DETACHED
    return _send(args, by, found[0].hash)


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        msg = "who answers? This account has no name; give one with --as"
        raise UsageError(msg) from None


async def _look(args: ApproveArgs, found: list[ev.ApprovalRequested]) -> int:
    async with connected(args.data_dir) as link:
        view = await link.client.view(args.run)
        if not args.step:
            msg = "missing argument STEP, or --budget"
            raise UsageError(msg)
        asked = request_of(view.steps.get(args.step), args.step)
        for line in request_lines(asked, await link.client.value(asked.shown)):
            say(line)
        found.append(asked)
        return names.EXIT_OK


def request_of(step: StepView | None, path: str) -> ev.ApprovalRequested:
    """What a step asks now.

    Raises:
        NotFoundError: there is no such step yet. ConflictError: it does not ask, or not any more.
    """
    if step is None:
        msg = f"no step {path[:200]!r} in the run so far"
        raise NotFoundError(msg)
    if step.asked is None or step.status != "waiting":
        msg = f"`{step.path}` does not ask: it is {step.status}"
        raise ConflictError(msg)
    return step.asked


def request_lines(asked: ev.ApprovalRequested, shown: Any) -> list[str]:
    """A question as people see it: all of it, never shortened, because that is what they answer for."""
    whom = ", ".join(asked.by) or "whoever may answer"
    message = shown["message"] if isinstance(shown, dict) and set(shown) == {"message"} else shown
    text = message if isinstance(message, str) else json.dumps(message, ensure_ascii=False, indent=2)
    body = [f"  {line}" for line in text.splitlines()]
    until = rfc3339(asked.due_ms)[:19]
    return [f"step {asked.path} asks {whom}, until {until}Z:", "", *body, "", f"hash {asked.hash}"]


_SAID: Final[Mapping[cmd.Answer, str]] = {
    "approve": "approved",
    "reject": "rejected",
    "retry": "made again",
    "fail": "failed",
    "complete": "completed",
}


def _send(args: ApproveArgs, by: str, shown: str) -> int:
    value = parse_payload(args.value, "--value")

    async def work() -> int:
        async with connected(args.data_dir) as link:
            await link.client.approve(
                args.run, args.step, shown=shown, by=by, decision=args.decision, comment=args.comment, value=value
            )
            word = _SAID[args.decision]
            if args.as_json:
                emit({"event": f"approval.{word.replace(' ', '_')}", "run": args.run, "step": args.step, "by": by})
            else:
                say(f"step {args.step} of run {args.run} is {word} by {by}")
            return names.EXIT_OK

    return run_interruptible(work(), detached=lambda: note("the answer may be stored; look at the run"))
