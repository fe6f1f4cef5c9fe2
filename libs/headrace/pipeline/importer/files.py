"""From a file or a folder of old files to new files: which file becomes which, and the files that steps name.

Reads only below the folder it was given; writes nothing. Every file is converted twice: in the first pass later steps
say which fields they read of a model's answer, in the second the answer has a schema with them.
"""

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from headrace.contracts import names
from headrace.contracts.errors import InputFileError
from headrace.pipeline.compile import check_document
from headrace.pipeline.importer import paths
from headrace.pipeline.importer.document import Converted, convert, root_of
from headrace.pipeline.importer.emit import as_yaml
from headrace.pipeline.importer.legacy import Section
from headrace.pipeline.importer.outputs import Output, Promises
from headrace.pipeline.importer.report import Difference, Notes, RefusedError
from headrace.pipeline.importer.unit import Step, Unit
from headrace.pipeline.loader import DOCUMENT_BYTES_MAX, Loaded, load_bytes, read_file
from headrace.pipeline.positions import Path as DocumentPath
from headrace.pipeline.positions import Place, Positions
from headrace.pipeline.problems import RefusedDefinitionError, shown
from headrace.pipeline.validate import Report, check_shapes

FILES_MAX: Final = 1_000
"""Of one folder: far more than anybody wrote, and few enough to wait for."""
_PASSES_MAX: Final = 4
"""A pass may learn what only the next can use; two are the rule."""
ENDINGS: Final = (".yaml", ".yml", ".json")
_COMMENT_CHARS_MAX: Final = 150


@dataclass(slots=True)
class Imported:
    """What became of one old file. `texts`: new path → YAML, empty when the file is refused."""

    file: str
    texts: dict[str, str] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()

    @property
    def refused(self) -> bool:
        """Whether there is no new file, for the errors in the differences."""
        return any(difference.severity == "error" for difference in self.differences)


def import_files(files: Sequence[Path], *, root: Path | None = None) -> list[Imported]:
    """Convert old files, and the files they name. What one file's steps read of another's is known to both.

    Args:
        root: Files named by an old one are looked for beside it, then here; nothing outside is opened. Without it, the
            folder of each file.

    Raises:
        InputFileError: one of `files` cannot be read.
    """
    loaded = [(path, read_file(path)) for path in files]
    return _imported([_source(path, data, root) for path, data in loaded])


def import_text(text: str, *, file: str = "old.yaml") -> Imported:
    """As `import_files`, for text that is no file and names no files."""
    try:
        loaded = load_bytes(text.encode("utf-8", "surrogatepass"), file)
    except RefusedDefinitionError as error:
        return Imported(file, differences=_as_differences(error))
    return _imported([_Importer(loaded, Path(file), None, new_name(file))])[0]


def _source(path: Path, data: bytes, root: Path | None) -> "_Importer | Imported":
    top = (root or path.parent).resolve()
    relative = path.name if root is None else path.relative_to(root).as_posix()
    try:
        loaded = load_bytes(data, str(path))
    except RefusedDefinitionError as error:
        return Imported(str(path), differences=_as_differences(error))
    return _Importer(loaded, path, top, new_name(relative))


def _imported(sources: "Sequence[_Importer | Imported]") -> list[Imported]:
    """Convert until no pass learns anything new."""
    promises = Promises()
    for _ in range(_PASSES_MAX):
        promises.grown = False
        for source in sources:
            if isinstance(source, _Importer):
                source.run(promises)
        if not promises.grown:
            break
    return [source if isinstance(source, Imported) else source.result() for source in sources]


def old_files(folder: Path) -> list[Path]:
    """The YAML and JSON files below a folder, sorted; hidden ones are passed over.

    Raises:
        InputFileError: there are none, or too many.
    """
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in ENDINGS
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not found or len(found) > FILES_MAX:
        msg = f"{folder}: {len(found)} YAML or JSON files; 1 to {FILES_MAX} are read"
        raise InputFileError(msg)
    return found


def new_name(relative: str) -> str:
    """Where the new file goes, relative to the output folder."""
    stem, ending = posixpath.splitext(relative)
    return f"{stem}.yaml" if ending in ENDINGS else f"{relative}.yaml"


def _as_differences(error: RefusedDefinitionError) -> tuple[Difference, ...]:
    return tuple(
        Difference(
            found.file, found.line, found.column, found.code, found.text + (f"; {found.hint}" if found.hint else "")
        )
        for found in error.found
    )


class _Importer:
    """Converts one file with what it names, pass by pass."""

    def __init__(self, loaded: Loaded, path: Path, top: Path | None, target: str) -> None:
        self.loaded, self.path, self.top, self.target = loaded, path, top, target
        self.promises = Promises()
        self.made: dict[str, Converted] = {}
        self.notes: list[Notes] = []
        self.trail: list[Path] = []

    def run(self, promises: Promises) -> None:
        """One pass."""
        self.promises, self.made, self.notes = promises, {}, []
        self.file(self.loaded, self.path, self.target)

    def result(self) -> Imported:
        """The new files, or why not."""
        if not any(notes.refused for notes in self.notes):
            self._check()
        differences = tuple(sorted({found for notes in self.notes for found in notes.found}))
        result = Imported(str(self.path), differences=differences)
        if not result.refused:
            result.texts = {target: self._text(converted) for target, converted in self.made.items()}
        return result

    def file(self, loaded: Loaded, path: Path, target: str) -> Converted | None:
        """One file; None when it is refused."""
        notes = Notes(loaded.file, loaded.positions)
        self.notes.append(notes)
        self.trail.append(path)
        try:
            head, whole = root_of(notes, loaded.document)
            return self.convert(notes, head, whole, target, name="")
        except RefusedError:
            return None
        finally:
            self.trail.pop()

    def convert(self, notes: Notes, head: Section, whole: Section, target: str, *, name: str) -> Converted:
        """One pipeline of a file. Raises as `convert` of `document`."""
        defaults = head.section("defaults") or (whole.section("defaults") if whole is not head else None)
        unit = Unit(target, notes, self.promises, _Nested(self, target), defaults or Section(notes, {}, head.path))
        converted = convert(unit, head, whole, name=name)
        converted.source = notes.file
        self.made[target] = converted
        return converted

    # --- checks and text ---

    def _check(self) -> None:
        """Hold every new document to the validator of the language; what it refuses is refused here."""
        for target, converted in self.made.items():
            report = Report(converted.notes.file, _OldPlaces(converted))
            check_document(converted.document, report, None, pending={})
            found = [("E1513", f"the converted file `{target}` would be refused", problem) for problem in report.found]
            if not found:
                report = Report(converted.notes.file, _OldPlaces(converted))
                check_shapes(converted.document, report)
                found = [("W1531", "converted, but", problem) for problem in report.found]
            for code, what, problem in found:
                place = Difference(problem.file, problem.line, problem.column, code, f"{what}: {problem.text}")
                converted.notes.found.setdefault(place, ())

    def _text(self, converted: Converted) -> str:
        notes = converted.notes
        comments: dict[tuple[str | int, ...], list[str]] = {}
        for difference, at in sorted(notes.found.items()):
            if at:
                text = f"line {difference.line}, {difference.code}: {difference.new_behaviour}"
                comments.setdefault(at, []).append(
                    text if len(text) <= _COMMENT_CHARS_MAX else f"{text[:_COMMENT_CHARS_MAX]}…"
                )
        header = [
            f"From {posixpath.basename(converted.source)}, a pipeline_ex file. Comments with a line number say where",
            "the meaning differs; `headrace import` says what it was before.",
        ]
        return as_yaml(converted.document, comments, header)


class _OldPlaces(Positions):
    """Answers where something of a new document comes from: the old place of the step that it belongs to."""

    __slots__ = ("_converted",)

    def __init__(self, converted: Converted) -> None:
        super().__init__()
        self._converted = converted

    def value(self, path: DocumentPath) -> Place:
        """Where the innermost step around a path stood."""
        known = self._converted.places
        while path and path not in known:
            path = path[:-1]
        return self._converted.notes.positions.key(known.get(path, ()))

    def key(self, path: DocumentPath) -> Place:
        """The same."""
        return self.value(path)

    def inside(self, path: DocumentPath, value: str, offset: int) -> Place:
        """The same: what is wrong inside a converted text stands nowhere in the old one."""
        return self.value(path)


class _Nested:
    """The pipelines that the steps of one file name."""

    def __init__(self, importer: _Importer, target: str) -> None:
        self.importer, self.target = importer, target
        self.used: set[str] = set()

    def inline(self, step: Step, section: Section) -> tuple[str, Mapping[str, tuple[str, Output]], frozenset[str]]:
        """A pipeline inside a step becomes a file beside this one."""
        stem = posixpath.splitext(posixpath.basename(self.target))[0]
        name = f"{stem}.{step.id}.yaml"
        target = posixpath.join(posixpath.dirname(self.target), name)
        if len(self.importer.trail) + self.target.count(".") > 2 * names.NESTING_MAX:
            step.refuse("E1514", "pipeline", f"pipelines nested deeper than {names.NESTING_MAX}", "refused as well")
        head = section.section("workflow") or section
        if "steps" not in head:
            step.refuse("E1502", "pipeline", "the pipeline has no `steps`", "refused as well")
        notes = Notes(step.notes.file, step.notes.positions)
        self.importer.notes.append(notes)
        inner = Section(notes, section.value, section.path)
        own = inner.section("workflow") or inner
        converted = self.importer.convert(notes, own, inner, target, name=step.name)
        step.note("N1558", "pipeline", f"the pipeline is the file `./{name}`", "it saw the parent's values")
        return f"./{name}", converted.outputs, converted.inputs

    def file(self, step: Step, reference: str) -> tuple[str, Mapping[str, tuple[str, Output]], frozenset[str]]:
        """A file becomes a file below this one's folder."""
        importer = self.importer
        found = self._found(step, reference)
        if found in importer.trail:
            step.refuse("E1512", "pipeline_file", "the pipeline calls itself", "refused as circular")
        if len(importer.trail) >= names.NESTING_MAX:
            step.refuse(
                "E1512", "pipeline_file", f"pipelines nested deeper than {names.NESTING_MAX}", "refused as well"
            )
        relative = self._relative(step, found)
        target = posixpath.join(posixpath.dirname(self.target), relative)
        converted = importer.made.get(target)
        if converted is None:
            try:
                loaded = load_bytes(read_file(found, bytes_max=DOCUMENT_BYTES_MAX), str(found))
            except InputFileError as error:
                step.refuse("E1512", "pipeline_file", f"cannot be read: {error}", "an error when it ran")
            except RefusedDefinitionError as error:
                notes = Notes(str(found), Positions())
                notes.found = dict.fromkeys(_as_differences(error), ())
                importer.notes.append(notes)
                step.refuse("E1512", "pipeline_file", "the file is refused", "an error when it ran")
            converted = importer.file(loaded, found, target)
        if converted is None:
            step.refuse("E1512", "pipeline_file", "the file is refused", "an error when it ran")
        step.note(
            "N1558", "pipeline_file", f"`./{relative}`, relative to this file", "relative to the working directory"
        )
        return f"./{relative}", converted.outputs, converted.inputs

    def _found(self, step: Step, reference: str) -> Path:
        importer = self.importer
        if importer.top is None or "{{" in reference or paths.is_absolute(reference) or "\0" in reference:
            text = f"{shown(reference)}: a path below the folder that is imported is expected"
            step.refuse("E1512", "pipeline_file", text, "any file was opened")
        for folder in (importer.trail[-1].parent, importer.top):
            candidate = (folder / reference).resolve()
            if candidate.is_relative_to(importer.top) and candidate.is_file():
                return candidate
        text = f"{shown(reference)} is neither beside this file nor below the folder that is imported"
        step.refuse("E1512", "pipeline_file", text, "an error when it ran")

    def _relative(self, step: Step, found: Path) -> str:
        top = self.importer.top
        assert top is not None
        own = self.importer.trail[-1].resolve().parent
        if found.is_relative_to(own):
            return new_name(found.relative_to(own).as_posix())
        flat = new_name(found.relative_to(top).as_posix().replace("/", "."))
        now = f"a copy goes to `./{flat}`, because a child lies beside its parent or below"
        step.note("N1558", "pipeline_file", now, "anywhere")
        return flat
