"""What becomes of an old file, line by line: every difference in meaning, as data and as text.

`file:line:column: N1541 what happens now; before: what pipeline_ex did`. The letter is the severity: E refuses the
file, W says that something is lost or left to do, N that the same words mean something else. Numbers are allotted
once, over all letters, and continue those in `problems.CODES`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NoReturn

from headrace.pipeline.positions import Path, Positions

Severity = Literal["error", "warning", "note"]
_SEVERITIES: Final[Mapping[str, Severity]] = {"E": "error", "W": "warning", "N": "note"}
DIFFERENCES_MAX: Final = 2_000
"""Of one file. The largest real file has 40; more is one mistake shown many times."""

CODES: Final[Mapping[str, str]] = {
    "E1500": "more differences than a report holds",
    "E1501": "not a pipeline_ex file",
    "E1502": "a required key is missing",
    "E1503": "wrong type",
    "E1504": "unknown type of step or part",
    "E1505": "a step name twice",
    "E1506": "a step that does not exist",
    "E1507": "a step that has not run yet",
    "E1508": "a template without a meaning",
    "E1509": "a condition without a meaning",
    "E1510": "no counterpart",
    "E1511": "a path that leaves the workspace",
    "E1512": "a nested pipeline file that cannot be used",
    "E1513": "the converted pipeline does not validate",
    "E1514": "over a limit of Headrace",
    "W1520": "a key without counterpart",
    "W1521": "an unknown key",
    "W1522": "a tool without counterpart",
    "W1523": "a tool that is off by default",
    "W1524": "a step without counterpart that nothing reads",
    "W1525": "a function of the old file became a schema",
    "W1526": "a field that nothing promised",
    "W1527": "a file outside of the working directory",
    "W1528": "what belongs to a provider or an operator",
    "W1529": "advice that is not a setting",
    "W1530": "a loop that cannot stop early",
    "W1531": "not executed by this release yet",
    "N1540": "a name became an id",
    "N1541": "a step that may be skipped",
    "N1542": "a condition has its documented meaning",
    "N1543": "a template has its documented meaning",
    "N1544": "a name became an input",
    "N1545": "a model was chosen",
    "N1546": "tools",
    "N1547": "time limits",
    "N1548": "retries",
    "N1549": "a failure is a failure",
    "N1550": "output to a file",
    "N1551": "parallel work",
    "N1552": "a schema is enforced",
    "N1553": "a conversation goes on",
    "N1554": "a key that did nothing has an effect",
    "N1555": "a key whose job Headrace does anyway",
    "N1556": "a preset is written out",
    "N1557": "a loop",
    "N1558": "a nested pipeline",
    "N1559": "a data transform",
    "N1560": "files of the workspace",
    "N1561": "a variable",
    "N1562": "a prompt part",
    "N1563": "a setting of the provider",
    "N1564": "another spelling is understood",
}


@dataclass(slots=True, frozen=True, order=True)
class Difference:
    """One difference, at its place in the old file. Lines and columns count from 1."""

    file: str
    line: int
    column: int
    code: str
    new_behaviour: str
    old_behaviour: str = ""

    @property
    def severity(self) -> Severity:
        """Error: the file is refused. Warning: something is left to do. Note: it means something else."""
        return _SEVERITIES[self.code[0]]

    def __str__(self) -> str:
        before = f"; before: {self.old_behaviour}" if self.old_behaviour else ""
        return f"{self.file}:{self.line}:{self.column}: {self.code} {self.new_behaviour}{before}"

    def as_json(self) -> dict[str, str | int]:
        """The difference as `--json` shows it."""
        return {
            "severity": self.severity,
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "code": self.code,
            "old_behaviour": self.old_behaviour,
            "new_behaviour": self.new_behaviour,
        }


class RefusedError(Exception):  # a refusal on its way to the step or file that it ends; never leaves the package
    """What cannot be converted; the difference is recorded already."""


class _FullError(RefusedError):
    """The report is full."""


@dataclass(slots=True)
class Notes:
    """Collects the differences of one file, by path into the old document."""

    file: str
    positions: Positions
    found: dict[Difference, Path] = field(default_factory=dict)
    """Each with the path in the new document that it is about, empty for the whole file."""
    once: set[tuple[str, str]] = field(default_factory=set)

    def add(
        self, code: str, path: Path, now: str, before: str, *, at: Path = (), inside: tuple[str, int] | None = None
    ) -> None:
        """Record a difference.

        Args:
            path: Of the key in the old document.
            at: Of what became of it in the new one.
            inside: The text at `path` and the offset of what it is about, where that is a part of a text.
        """
        assert code in CODES, code
        place = self.positions.key(path) if inside is None else self.positions.inside(path, *inside)
        self.found.setdefault(Difference(self.file, place.line, place.column, code, now, before), at)
        if len(self.found) > DIFFERENCES_MAX:
            full = Difference(self.file, place.line, place.column, "E1500", f"more than {DIFFERENCES_MAX} differences")
            self.found.setdefault(full, ())
            raise _FullError

    def add_once(self, code: str, path: Path, now: str, before: str, *, at: Path = ()) -> None:
        """Record a difference unless the same was said of this file before."""
        if (code, now) not in self.once:
            self.once.add((code, now))
            self.add(code, path, now, before, at=at)

    def refuse(
        self, code: str, path: Path, now: str, before: str = "", *, inside: tuple[str, int] | None = None
    ) -> NoReturn:
        """Record why something cannot be converted, and end the step or file it is about."""
        self.add(code, path, now, before, inside=inside)
        raise RefusedError(now)

    @property
    def refused(self) -> bool:
        """Whether the file is."""
        return any(difference.severity == "error" for difference in self.found)
