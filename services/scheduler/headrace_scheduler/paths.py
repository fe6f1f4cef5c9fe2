"""Paths of step instances, as `headrace.pipeline.plan` defines them: taking them apart. Pure.

`review[3]#2/fix` is the step `fix` in the scope `review[3]#2/`: the second attempt of item 3 of the group `review`. A
*part* is an item or an iteration (`review[3]`, `poll(2)`); the *whole* of a part is the step that it belongs to. An
evaluation's path is that of the instance it is made for, with `#attempt` where it is not the first, `?` and a word;
that of the outputs of a scope is the scope and `?outputs`.
"""

import re
from typing import Final

OUTPUTS: Final = "?outputs"
"""The evaluation of a run's outputs; after a scope, of that scope's."""
_OF_ATTEMPT: Final = re.compile(r"#\d+$")
_OF_WHOLE: Final = ("while", "until")
"""Evaluations that decide about a loop as a whole, though they are made for one of its iterations."""
_INSIDE: Final = "[(#:/?"


def part_of(path: str) -> tuple[str, int] | None:
    """`review[3]` → ("review", 3), `poll(2)` → ("poll", 2); None for what is no part."""
    match path[-1]:
        case "]":
            owner, _, index = path[:-1].rpartition("[")
        case ")":
            owner, _, index = path[:-1].rpartition("(")
        case _:
            return None
    return owner, int(index)


def whole_of(path: str) -> str:
    """The path itself, or that of the step that a part belongs to."""
    match path[-1]:
        case "]":
            return path[: path.rindex("[")]
        case ")":
            return path[: path.rindex("(")]
    return path


def scope_of(path: str) -> str:
    """The scope that an instance stands in, with its slash; empty for the run's own."""
    return path[: path.rfind("/") + 1]


def owner_of(scope: str) -> str:
    """The instance whose scope this is."""
    path = scope[:-1]
    head, colon, case = path.rpartition(":")
    if colon and case.isdigit():
        path = head
    return _OF_ATTEMPT.sub("", path)


def asker_of(path: str) -> str:
    """The instance that an evaluation is made for: it begins, goes on or fails by it. Empty for the run."""
    asker, _, word = path.rpartition("?")
    if not asker or asker[-1] == "/":
        return owner_of(asker) if asker else ""
    asker = _OF_ATTEMPT.sub("", asker)
    return whole_of(asker) if word in _OF_WHOLE else asker


def evaluation(path: str, word: str, attempt: int = 1) -> str:
    """The path of an evaluation for an attempt of an instance."""
    return f"{path}?{word}" if attempt <= 1 else f"{path}#{attempt}?{word}"


def scope_path(path: str, attempt: int, case: int) -> str:
    """The scope of a group's attempt, or of a case of a switch; `case` is −1 for a group."""
    later = f"#{attempt}" if attempt > 1 else ""
    chosen = f":{case}" if case >= 0 else ""
    return f"{path}{later}{chosen}/"


def is_inside(path: str, outer: str) -> bool:
    """True for the parts, the scopes and the evaluations of an instance, at any depth; not for itself."""
    return path.startswith(outer) and len(path) > len(outer) and path[len(outer)] in _INSIDE


def place_of(path: str) -> str:
    """Orders instances of one node: by item and iteration. Empty in the run's own scope."""
    if path[-1] not in "])" and "/" not in path:
        return ""
    return ".".join(number.zfill(6) for number in re.findall(r"[\[(](\d+)[\])]", path))
