"""The line of a file that a problem with an expression is about, and a caret under the place."""

from itertools import islice
from typing import Final

from headrace.pipeline.problems import Problem, credential_in

EXPRESSIONS: Final = "E13"
"""Codes of problems that lie inside of a text, where line and column alone are hard to find."""
WIDTH_MAX: Final = 120


def pointed(problem: Problem) -> tuple[str, ...]:
    """The line and the caret, or nothing: for another sort of problem, a file that cannot be read any more, and a line
    that holds what looks like a credential."""
    if not problem.code.startswith(EXPRESSIONS):
        return ()
    try:
        with open(problem.file, encoding="utf-8-sig") as file:
            line = next(islice(file, problem.line - 1, problem.line), "").rstrip("\n")
    except (OSError, UnicodeDecodeError):
        return ()
    if not line or credential_in(line) is not None:
        return ()
    cut = max(0, problem.column - WIDTH_MAX // 2) if len(line) > WIDTH_MAX else 0
    shown = "".join(one if one.isprintable() else " " for one in line[cut : cut + WIDTH_MAX])
    return f"  {shown}", f"  {' ' * (problem.column - 1 - cut)}^"
