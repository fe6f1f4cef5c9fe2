"""A pipeline file with the child files it names, loaded and checked: what `validate` reports and `run` submits."""

import os
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.contracts import names
from headrace.contracts.canonical import sha256_hex
from headrace.contracts.errors import InputFileError
from headrace.contracts.events import ToolSpec
from headrace.pipeline import collector
from headrace.pipeline.checked import Checked
from headrace.pipeline.compile import check_document, children_of, plan_of
from headrace.pipeline.definitions import Definition, child_references, file_key
from headrace.pipeline.loader import DOCUMENT_BYTES_MAX, Loaded, load_bytes, load_file
from headrace.pipeline.pending import PENDING
from headrace.pipeline.plan import Plan
from headrace.pipeline.positions import Path as DocumentPath
from headrace.pipeline.positions import Positions
from headrace.pipeline.prices import PriceTable, shipped
from headrace.pipeline.pricing import check_prices
from headrace.pipeline.problems import Problem, RefusedDefinitionError, shown
from headrace.pipeline.validate import Report

FILES_MAX = 100
"""Child files of one definition; each is at most 1 MiB, and a definition must fit into a blob."""


@dataclass(slots=True)
class Bundle:
    """A checked definition."""

    definition: Definition
    digest: str
    data: bytes
    """What is stored as blob `definitions/<digest>`."""
    plan: Plan
    children: Mapping[str, bytes] = field(default_factory=dict)
    """Digest → stored form of every child file at any depth: each is stored as a definition of its own."""
    warnings: tuple[Problem, ...] = ()
    """Nothing warns yet; lint will."""
    positions: Mapping[str, Positions] = field(default_factory=dict)
    """File as shown in messages → where its values stand."""


def load_bundle(
    path: str | Path,
    *,
    catalogue: Mapping[str, ToolSpec] | None = None,
    pending: Mapping[str, str] = PENDING,
    prices: PriceTable | None = None,
) -> Bundle:
    """Load, check and compile a pipeline file with its child files.

    Args:
        catalogue: The tools that exist; without it only the names of built-in tools are checked.
        pending: What is refused because this release cannot execute it.
        prices: Of models; the shipped table unless given.

    Raises:
        InputFileError: the file itself is missing, no regular file, or unreadable.
        RefusedDefinitionError: a DefinitionError with every problem of every file, at most 50.
    """
    with collector.paused():
        return _Bundler(Path(path), catalogue, pending, prices).bundle()


def load_text(
    text: str,
    *,
    file: str = "pipeline.yaml",
    catalogue: Mapping[str, ToolSpec] | None = None,
    pending: Mapping[str, str] = PENDING,
    prices: PriceTable | None = None,
) -> Bundle:
    """As `load_bundle`, for text that is no file; child files are looked for in the working directory."""
    bundler = _Bundler(Path(file), catalogue, pending, prices)
    with collector.paused():
        return bundler.bundle(load_bytes(text.encode("utf-8", "surrogatepass"), file))


class _Bundler:
    def __init__(
        self,
        path: Path,
        catalogue: Mapping[str, ToolSpec] | None,
        pending: Mapping[str, str],
        prices: PriceTable | None,
    ) -> None:
        self.path, self.catalogue, self.pending = path, catalogue, pending
        self.prices = shipped() if prices is None else prices
        self.folder = path.parent
        self.problems: list[Problem] = []
        self.files: dict[str, Any] = {}
        self.heights: dict[str, int] = {}
        """Files gone through, and how many levels they are, themselves included: a file is looked at once."""
        self.positions: dict[str, Positions] = {}

    def bundle(self, main: Loaded | None = None) -> Bundle:
        """All files, checked together."""
        loaded = main or load_file(self.path)
        checked = self._check(loaded)
        self._children(loaded, base="", trail=(loaded.file,), depth=1)
        if self.problems or checked is None:
            raise RefusedDefinitionError(self.problems)
        definition = Definition(loaded.document, self.files)
        data = definition.encoded()
        if len(data) > names.VALUE_BYTES_MAX:
            text = f"the definition with its files has {len(data)} bytes; {names.VALUE_BYTES_MAX} can be stored"
            raise RefusedDefinitionError([Problem(loaded.file, 1, 1, "E1002", text)])
        plan = plan_of(definition, checked)
        return Bundle(
            definition=definition,
            digest=plan.digest,
            data=data,
            plan=plan,
            children=_all_children(definition),
            positions=self.positions,
        )

    def _check(self, loaded: Loaded) -> Checked | None:
        report = Report(loaded.file, loaded.positions)
        self.positions[loaded.file] = loaded.positions
        checked = check_document(loaded.document, report, self.catalogue, pending=self.pending)
        if checked is not None:
            check_prices(checked, report, self.prices)
        self.problems += report.found
        return checked

    def _children(self, parent: Loaded, *, base: str, trail: tuple[str, ...], depth: int) -> int:
        """Load and check the files that a document names, depth first; gives how many levels they are."""
        report = Report(parent.file, parent.positions)
        height = 0
        done: dict[str, int] = {}
        for at, reference in child_references(parent.document):
            if reference in done:
                continue
            done[reference] = self._child(report, at, reference, base=base, trail=trail, depth=depth)
            height = max(height, done[reference])
        self.problems += report.found
        return height

    def _child(
        self, report: Report, at: DocumentPath, reference: str, *, base: str, trail: tuple[str, ...], depth: int
    ) -> int:
        key = self._confined(report, at, reference, base)
        if key is None:
            return 0
        file = str(self.folder / key)
        if file in trail or file_key(self.path.name) == key:
            cycle = " → ".join([*trail[trail.index(file) if file in trail else 0 :], file])
            report.value(at, "E1210", f"the pipeline calls itself: {cycle}")
            return 0
        if depth + self.heights.get(key, 1) > names.NESTING_MAX:
            report.value(at, "E1211", f"pipelines nested deeper than {names.NESTING_MAX}")
            return 0
        if key not in self.heights:
            if len(self.files) >= FILES_MAX:
                report.value(at, "E1211", f"more than {FILES_MAX} child files")
                return 0
            self.heights[key] = self._load_child(report, at, key, trail=(*trail, file), depth=depth)
        return self.heights[key]

    def _load_child(self, report: Report, at: DocumentPath, key: str, *, trail: tuple[str, ...], depth: int) -> int:
        """Load and check one file and what it names; gives how many levels that is, itself included."""
        try:
            loaded = load_bytes(self._read(key), trail[-1])
        except InputFileError as error:
            report.value(at, "E1209", f"cannot read the child pipeline {error}")
            return 1
        except RefusedDefinitionError as error:
            self.problems += error.found
            return 1
        self.files[key] = loaded.document
        self._check(loaded)
        return 1 + self._children(loaded, base=posixpath.dirname(key), trail=trail, depth=depth + 1)

    def _confined(self, report: Report, at: DocumentPath, reference: str, base: str) -> str | None:
        """The file's key, when the reference stays below the folder of the pipeline file. Opens nothing."""
        parts = reference.split("/")
        if reference.startswith(("/", "~")) or ".." in parts or "\\" in reference or "\0" in reference:
            text = f"{shown(reference)} leaves the folder of the pipeline file"
            report.value(at, "E1208", text, "a child file is named `./…` and lies in the same folder or below")
            return None
        key = file_key(posixpath.join(base, reference))
        if key == "./.":
            report.value(at, "E1209", f"{shown(reference)} is a directory")
            return None
        where = self.folder
        for part in Path(key).parts:
            where = where / part
            if where.is_symlink():
                text = f"{shown(reference)} goes through the link {where}"
                report.value(at, "E1208", text, "links are not followed; copy the file")
                return None
        return key

    def _read(self, key: str) -> bytes:
        """The bytes of a file below the folder; no part of the path may be a link, also when one appears just now."""
        descriptors: list[int] = []
        try:
            where = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            descriptors.append(where)
            *folders, name = Path(key).parts
            for part in folders:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                where = os.open(part, flags, dir_fd=where)
                descriptors.append(where)
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=where)
            descriptors.append(file)
            if not os.path.isfile(f"/dev/fd/{file}"):
                msg = f"{self.folder / key}: is not a regular file"
                raise InputFileError(msg)
            with open(file, "rb", closefd=False) as opened:
                return opened.read(DOCUMENT_BYTES_MAX + 1)
        except OSError as error:
            msg = f"{self.folder / key}: {error.strerror}"
            raise InputFileError(msg) from error
        finally:
            for descriptor in reversed(descriptors):
                os.close(descriptor)


def _all_children(definition: Definition) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    pending = list(children_of(definition).values())
    while pending:
        child = pending.pop()
        data = child.encoded()
        digest = sha256_hex(data)
        if digest not in found:
            found[digest] = data
            pending += children_of(child).values()
    return found
