"""What is wrong with a definition: `file:line:column: E1234 text; hint`, as data and as text.

A code is allotted once and never used for something else. E10xx the document, E11xx keys and values, E12xx the graph
and what it names, E13xx expressions, E14xx what only this release refuses.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from headrace.contracts.errors import DefinitionError

PROBLEMS_MAX: Final = 50
"""More than this is one mistake shown many times."""

CODES: Final[Mapping[str, str]] = {
    "E1001": "the definition is empty",
    "E1002": "the file is too large",
    "E1003": "the file is not UTF-8",
    "E1004": "a character that text files do not hold",
    "E1005": "a tab as indentation",
    "E1006": "not YAML",
    "E1007": "an anchor or alias",
    "E1008": "a merge key",
    "E1009": "a tag",
    "E1010": "a key twice in one map",
    "E1011": "a key that is not text",
    "E1012": "a second document",
    "E1013": "nesting too deep",
    "E1014": "too many nodes",
    "E1015": "a scalar too long",
    "E1016": "an integer outside the 64-bit range",
    "E1017": "a number that is not finite",
    "E1101": "unknown key",
    "E1102": "wrong type",
    "E1103": "a required key is missing",
    "E1104": "outside the bounds",
    "E1105": "not one of the allowed values",
    "E1106": "not a name",
    "E1107": "a reserved name",
    "E1108": "not a duration, or outside the bounds",
    "E1109": "not exactly one kind of step",
    "E1110": "a key that this kind of step does not have",
    "E1111": "a key that needs another one",
    "E1112": "not a JSON Schema",
    "E1113": "a default that does not fit its own schema",
    "E1114": "keys that exclude each other",
    "E1115": "something that looks like a credential",
    "E1116": "not a schedule",
    "E1201": "an undefined step",
    "E1202": "a step that names itself",
    "E1203": "a cycle",
    "E1204": "an unknown tool",
    "E1205": "an undeclared input or variable",
    "E1206": "a name that is not in scope",
    "E1207": "arguments that do not fit the tool",
    "E1208": "a path that leaves its folder",
    "E1209": "a pipeline file that cannot be read",
    "E1210": "a pipeline that calls itself",
    "E1211": "pipelines or steps nested too deep",
    "E1212": "a step that only stands in for another one, used otherwise",
    "E1213": "an id that hides one outside",
    "E1214": "a step has no such output",
    "E1215": "a step that cannot have run",
    "E1216": "a model without a known price",
    "E1301": "an expression that does not compile",
    "E1302": "an expression where none is evaluated",
    "E1303": "text where an expression is expected",
    "E1304": "an expression of the wrong type",
    "E1305": "a secret where none is handed over",
    "E1401": "not executed by this release yet",
}


@dataclass(slots=True, frozen=True, order=True)
class Problem:
    """One thing wrong, at its place. Lines and columns count from 1."""

    file: str
    line: int
    column: int
    code: str
    text: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.code} {self.text}" + (
            f"; {self.hint}" if self.hint else ""
        )


class RefusedDefinitionError(DefinitionError):
    """A definition is refused. `found` are the problems as data, in order of file and place, at most 50."""

    def __init__(self, found: Iterable[Problem]) -> None:
        self.found = tuple(sorted(set(found)))[:PROBLEMS_MAX]
        super().__init__(tuple(str(problem) for problem in self.found))


def shown(value: object) -> str:
    """A value as messages show it: as it was read, on one line, shortened."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case str():
            return '"…"' if credential_in(value) is not None else f'"{_escaped(value)}"'
        case dict():
            return "a map"
        case list():
            return "a list"
    return _escaped(str(value))


def _escaped(text: str) -> str:
    flat = text[:80].encode("unicode_escape").decode()
    return flat[:60] + "…" if len(flat) > 60 or len(text) > 80 else flat


_CREDENTIAL = re.compile(
    r"\bsk-[A-Za-z0-9_-]{16,}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_[A-Za-z0-9_]{20,}|\bglpat-[A-Za-z0-9_-]{16,}"
    r"|\bA(?:KIA|SIA)[A-Z0-9]{16}\b|\bxox[abeoprs]-[A-Za-z0-9-]{10,}|\bAIza[A-Za-z0-9_-]{30,}|\bhf_[A-Za-z0-9]{20,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----|\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.",
    re.ASCII,
)
"""How well-known keys begin. Entropy is not guessed at: digests and ids would be refused."""


def credential_in(text: str) -> int | None:
    """Where something that looks like a credential begins; None when nothing does."""
    found = _CREDENTIAL.search(text)
    return None if found is None else found.start()
