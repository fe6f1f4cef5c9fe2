"""Conditions of the old files as one CEL expression that is true or false."""

from typing import Any, Final

from headrace.pipeline.importer.cel_forms import Cel
from headrace.pipeline.importer.formula import FormulaError, parse
from headrace.pipeline.importer.outputs import Read
from headrace.pipeline.importer.scope import Scope, UnknownNameError
from headrace.pipeline.importer.templates import Templates
from headrace.pipeline.positions import Path
from headrace.pipeline.problems import shown

_DEPTH_MAX: Final = 20
"""Maps of `and`, `or`, `not` in each other."""
_MAP_CRASHED: Final = "a map that was false crashed the run"


class Conditions:
    """Converts the conditions of one scope."""

    def __init__(self, scope: Scope) -> None:
        self.scope, self.notes = scope, scope.notes

    def convert(self, value: Any, path: Path, *, at: Path = ()) -> str:
        """The condition as a bare expression."""
        return self._any(value, path, at, 0).condition().text

    def _any(self, value: Any, path: Path, at: Path, depth: int) -> Cel:
        if depth > _DEPTH_MAX:
            self.notes.refuse("E1509", path, f"more than {_DEPTH_MAX} conditions in each other")
        match value:
            case bool():
                return Cel(str(value).lower(), kind="bool")
            case str():
                return self._text(value, path, at)
            case list() if value:
                return self._all(value, path, at, depth, sign="&&")
            case {"and": list(parts)} if len(value) == 1 and parts:
                self.notes.add("N1542", path, "`and` as a map works", _MAP_CRASHED, at=at)
                return self._all(parts, (*path, "and"), at, depth, sign="&&")
            case {"or": list(parts)} if len(value) == 1 and parts:
                self.notes.add("N1542", path, "`or` as a map works", _MAP_CRASHED, at=at)
                return self._all(parts, (*path, "or"), at, depth, sign="||")
            case {"not": inner} if len(value) == 1:
                self.notes.add("N1542", path, "`not` as a map works", _MAP_CRASHED, at=at)
                negated = self._any(inner, (*path, "not"), at, depth + 1).condition()
                return Cel(f"!{negated.within(7)}", 6, "bool")
        text = f"{shown(value)} is no condition; write text, a list, or a map with one of `and`, `or`, `not`"
        self.notes.refuse("E1509", path, text, "it was false, or crashed")

    def _all(self, parts: list[Any], path: Path, at: Path, depth: int, *, sign: str) -> Cel:
        binds = 2 if sign == "&&" else 1
        made = [self._any(part, (*path, index), at, depth + 1).condition() for index, part in enumerate(parts)]
        if len(made) == 1:
            return made[0]
        return Cel(f" {sign} ".join(part.within(binds + 1) for part in made), binds, "bool")

    def _text(self, source: str, path: Path, at: Path) -> Cel:
        bare = source.strip()
        if bare.startswith("{{") and bare.endswith("}}") and bare.count("{{") == 1:
            self.notes.add("N1542", path, "it is evaluated where it stands", "it was expanded once beforehand", at=at)
            bare = bare[2:-2]
        elif "{{" in bare:
            bare = bare.replace("{{", "(").replace("}}", ")")
            self.notes.add("N1542", path, "it is evaluated where it stands", "it was expanded once beforehand", at=at)
        try:
            formula = parse(bare, lambda name: self._read(name, path, at), self.scope.odd_names)
        except (FormulaError, UnknownNameError) as error:
            code = error.code if isinstance(error, UnknownNameError) else "E1509"
            text = f"{shown(source)}: {error}"
            self.notes.refuse(code, path, text, "what could not be parsed was false")
        cel = formula.cel.condition()
        for quirk in formula.quirks:
            self.notes.add("N1542", path, f"`{cel.text}`", quirk, at=at)
        return cel

    def _read(self, name: tuple[str | int, ...], path: Path, at: Path) -> Read:
        read = self.scope.name(name, path, typed=False)
        Templates(self.scope).promised(read, ".".join(map(str, name)), path, at)
        return read
