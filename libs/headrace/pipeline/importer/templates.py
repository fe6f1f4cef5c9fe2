"""`{{ … }}` of the old files as `${{ … }}`: evaluated where used and with its type, not once beforehand."""

import re
from typing import Any, Final

from headrace.pipeline.importer.cel_forms import Cel
from headrace.pipeline.importer.formula import FormulaError, parse
from headrace.pipeline.importer.ids import literal
from headrace.pipeline.importer.outputs import ModelOutput, Read
from headrace.pipeline.importer.scope import Scope, UnknownNameError
from headrace.pipeline.positions import Path
from headrace.pipeline.problems import shown

_TEMPLATE: Final = re.compile(r"\$?\{\{(?P<inside>[^{}]*)\}\}")
_OPEN: Final = "${{"
_BUILT_IN: Final = ("timestamp", "date", "execution_id")
_OURS: Final = re.compile(r"\s*(?:steps|inputs|global_vars|state|loop)\.")
"""What behind `$` is a template after all: an amount such as `${{inputs.price}}`."""
_CALL: Final = re.compile(r"\s*(previous_response|file)\s*:\s*(.+?)\s*", re.DOTALL)


Inside = tuple[str, int] | None
"""The text that a template stands in, and where; None where the template is all of it."""


class Templates:
    """Converts the templates of one scope; what is wrong is recorded at its place in the text, and raised."""

    def __init__(self, scope: Scope) -> None:
        self.scope, self.notes = scope, scope.notes

    def text(self, source: str, path: Path, *, at: Path = ()) -> str:
        """Text as a template of Headrace."""
        return "".join(
            part if is_literal else f"${{{{ {part} }}}}" for is_literal, part in self.parts(source, path, at)
        )

    def parts(self, source: str, path: Path, at: Path = ()) -> list[tuple[bool, str]]:
        """Literal text, escaped for a template, and expressions, in order."""
        found: list[tuple[bool, str]] = []
        end = 0
        for match in _TEMPLATE.finditer(source):
            found.append((True, _escaped(source[end : match.start()])))
            found.append(self._part(match, path, at))
            end = match.end()
        found.append((True, _escaped(source[end:])))
        return [part for part in found if part[1]]

    def _part(self, match: re.Match[str], path: Path, at: Path) -> tuple[bool, str]:
        inside = (match.string, match.start())
        if not match[0].startswith("$"):
            return False, self.formula(match["inside"], path, at, inside).text
        if _OURS.match(match["inside"]):
            return False, f'"$" + text({self.formula(match["inside"], path, at, inside).text})'
        now, before = f"`{match[0]}` is kept as it stands", "the old template inside it was expanded"
        self.notes.add("N1543", path, now, before, at=at, inside=inside)
        return True, f"${match[0]}"

    def formula(self, source: str, path: Path, at: Path = (), inside: Inside = None) -> Cel:
        """What stands between `{{` and `}}`, as an expression."""
        call = _CALL.fullmatch(source)
        try:
            if call is not None:
                return self._call(call[1], call[2], path, at, inside)
            formula = parse(
                _without_calls(source), lambda name: self._noted(name, path, at, inside), self.scope.odd_names
            )
        except (FormulaError, UnknownNameError) as error:
            code = error.code if isinstance(error, UnknownNameError) else "E1508"
            before = "an empty text, or the template stayed as it was"
            hint = "if it is meant as it stands, take the braces out and put them back in the new file"
            text = f"{shown(f'{{{{{source}}}}}')[1:-1]}: {error}; {hint}"
            self.notes.refuse(code, path, text, before, inside=inside)
        if "a division by 0 gave 0" in formula.quirks:
            self.notes.add(
                "N1543", path, f"`{formula.cel.text}`: a division by 0 is an error", "it gave 0", at=at, inside=inside
            )
        return formula.cel

    def _noted(self, name: tuple[str | int, ...], path: Path, at: Path, inside: Inside) -> Read:
        """The name's expression; says where the old template gave something else."""
        read = self.scope.name(name, path, inside)
        dotted = ".".join(map(str, name))
        before = self._before(name, read)
        if before:
            self.notes.add("N1543", path, f"`{dotted}` is `{read.cel}`", before, at=at, inside=inside)
        self.promised(read, dotted, path, at, inside)
        return read

    def _before(self, name: tuple[str | int, ...], read: Read) -> str:
        """What the old template gave, where it was something else."""
        if name[0] in _BUILT_IN and read.cel.startswith("run."):
            return "it was not defined: an empty text"
        if name[0] == "loop":
            return "templates were expanded before the loop began: an empty text"
        if name[0] == "steps" and 1 < len(name) <= 3 and isinstance(self.scope.steps.get(str(name[1])), ModelOutput):
            return "the result of a model is a map, and a map in a template crashed"
        if name[0] != "steps" and self.scope.is_step(name[0]):
            return "it was taken for a variable: an empty text"
        return ""

    def promised(self, read: Read, dotted: str, path: Path, at: Path, inside: Inside = None) -> None:
        """Say that a field is asked for by a schema now, where nothing promised it before."""
        if not read.promised:
            now = (
                f"`{dotted}`: nothing in the old file promises this field; the model is asked for it by `output_schema`"
            )
            self.notes.add("W1526", path, now, "text has no fields: not found, or an error", at=at, inside=inside)

    def _call(self, kind: str, argument: str, path: Path, at: Path, inside: Inside) -> Cel:
        if kind == "file":
            self.notes.add(
                "N1543", path, f"`file:{argument}` is the file's text", "it stayed as it was", at=at, inside=inside
            )
            return Cel(f"file({literal(argument)})", kind="text")
        name, rest = split_source(argument, self.scope)
        read = self.scope.step(name, rest)
        self.notes.add(
            "N1543",
            path,
            f"`previous_response:{argument}` is `{read.cel}`",
            "it stayed as it was",
            at=at,
            inside=inside,
        )
        self.promised(read, argument, path, at, inside)
        return Cel(read.cel, kind="text" if read.is_text else "any")

    def value(self, tree: Any, path: Path, *, at: Path = ()) -> Any:
        """A tree with the templates in its texts converted, keys excepted."""
        match tree:
            case str():
                return self.text(tree, path, at=at)
            case list():
                return [self.value(entry, (*path, index), at=at) for index, entry in enumerate(tree)]
            case dict():
                return {key: self.value(entry, (*path, key), at=at) for key, entry in tree.items()}
        return tree

    def cel(self, tree: Any, path: Path, *, at: Path = ()) -> str:
        """A tree as one expression."""
        match tree:
            case str():
                return self._text_cel(tree, path, at)
            case list():
                return f"[{', '.join(self.cel(entry, (*path, index), at=at) for index, entry in enumerate(tree))}]"
            case dict():
                pairs = (f"{literal(key)}: {self.cel(entry, (*path, key), at=at)}" for key, entry in tree.items())
                return f"{{{', '.join(pairs)}}}"
        return literal(tree)

    def _text_cel(self, source: str, path: Path, at: Path) -> str:
        parts = self.parts(source, path, at)
        if len(parts) == 1 and not parts[0][0]:
            return parts[0][1]
        if all(is_literal for is_literal, _ in parts):
            return literal(source)
        written = (
            literal(part.replace(f"${_OPEN}", _OPEN)) if is_literal else f"text({part})" for is_literal, part in parts
        )
        return " + ".join(written)


def _escaped(text: str) -> str:
    return text.replace(_OPEN, f"${_OPEN}")


def _without_calls(source: str) -> str:
    """`timestamp()` and `date()` are the same as without brackets; `now()` is a function here too."""
    return re.sub(r"\b(timestamp|date|execution_id)\(\)", r"\1", source)


def split_source(source: str, scope: Scope) -> tuple[str, tuple[str | int, ...]]:
    """`step`, `step:field.path` or `step.field.path` as the step's name and the path; names may hold any character."""
    names = (name for name in {*scope.steps, *scope.later, *scope.fields_of_steps})
    whole = [name for name in names if source == name or source.startswith((f"{name}.", f"{name}:"))]
    name = max(whole, key=len) if whole else re.split("[.:]", source, maxsplit=1)[0]
    rest = source[len(name) + 1 :]
    path = tuple(int(part) if part.isdigit() else part for part in re.split("[.:]", rest) if part)
    return name, path
