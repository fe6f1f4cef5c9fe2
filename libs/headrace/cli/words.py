"""The words of the command line that several commands share."""

import enum
from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON objects, one a line.")]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="DIR", help="Instead of .headrace or HEADRACE_DATA_DIR.", show_default=False),
]
ReadRoots = Annotated[
    list[Path] | None,
    typer.Option("--read-root", metavar="DIR", help="Tools may read this too; may be repeated.", show_default=False),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option("-i", "--input", metavar="NAME=VALUE", help="An input; may be repeated.", show_default=False),
]
NatsServer = Annotated[
    str,
    typer.Option(
        "--nats-server", metavar="PATH", help="The executable to use instead of the installed one.", show_default=False
    ),
]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="The id of a run.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The name of a pipeline.")]
Trigger = Annotated[
    int | None,
    typer.Argument(metavar="TRIGGER", min=0, help="Its number, from 0; all unless given.", show_default=False),
]
SignalName = Annotated[str, typer.Argument(metavar="NAME", help="The signal that a step waits for.")]
Payload = Annotated[
    str | None,
    typer.Option("--payload", metavar="JSON", help="What the step gives: JSON or YAML.", show_default=False),
]
Raises = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        metavar="+2usd",
        help="Let the run cost more; also +500ktokens.",
        show_default=False,
    ),
]
StepPath = Annotated[str, typer.Argument(metavar="STEP", help="The step that asks, as `headrace show` names it.")]


class OutcomeWord(enum.StrEnum):
    """What may be said of a call whose outcome is unknown."""

    RETRY = "retry"
    FAIL = "fail"
    COMPLETE = "complete"


OutcomeAnswer = Annotated[
    OutcomeWord | None,
    typer.Option("--outcome", help="Say what follows from a call whose outcome is unknown.", show_default=False),
]
CallValue = Annotated[
    str | None,
    typer.Option("--value", metavar="JSON", help="What the call gave, for `complete`.", show_default=False),
]
Reject = Annotated[bool, typer.Option("--reject", help="Reject instead: the step fails.")]
Answerer = Annotated[str, typer.Option("--as", metavar="NAME", help="Who answers.", show_default="this account's name")]
ShownHash = Annotated[
    str, typer.Option("--hash", metavar="H", help="Answer just what has this hash, unasked.", show_default=False)
]
Comment = Annotated[str, typer.Option("--comment", help="Kept in the log and in the output.", show_default=False)]
Reason = Annotated[str, typer.Option("--reason", help="Kept in the log.", show_default=False)]
File = Annotated[Path, typer.Argument(metavar="FILE", readable=False, help="A pipeline file.")]
"""Not checked where it is parsed: a file that cannot be read is no wrong usage."""
Wait = Annotated[bool, typer.Option("--wait", help="Show the run until it ends.")]
NewId = Annotated[str, typer.Option("--run-id", help="An id of your own: the same id is the same start.")]
From = Annotated[str, typer.Option("--from", metavar="STEP", help="It and what depends on it run anew.")]
At = Annotated[str, typer.Option("--at", metavar="STEP", help="What comes before it is shared; it runs anew.")]
EditedFile = Annotated[
    Path | None,
    typer.Option(
        "--file", metavar="FILE", readable=False, help="An edited file of the same pipeline.", show_default=False
    ),
]


class Ended(Exception):  # an exit code on its way out, not an error
    """How a command ended."""

    def __init__(self, code: int) -> None:
        self.code = code
