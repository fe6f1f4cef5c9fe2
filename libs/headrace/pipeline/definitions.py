"""A definition: a pipeline's document with the child files it names, as one JSON value with a digest.

    {"files": {"./sub/child.yaml": {...}}, "main": {...}}

The keys of `files` are paths relative to the main file's folder. The bytes are JSON with sorted keys and numbers as
they were read (1.0 stays a float, which RFC 8785 would not keep), and the digest is the sha256 of exactly these
bytes, so that a stored definition proves itself. A child file is a definition of its own: its document, and of `files`
those that it names, with paths relative to its own folder. A parent names its children by their digests, which are the
same whether the child is deployed alone or inside.
"""

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from headrace.contracts.canonical import sha256_hex
from headrace.contracts.codec import encode_value
from headrace.contracts.errors import DataError
from headrace.pipeline.positions import Path


@dataclass(slots=True, frozen=True)
class Definition:
    """A document and its files, decoded. Immutable."""

    main: Mapping[str, Any]
    files: Mapping[str, Any] = field(default_factory=dict)

    def encoded(self) -> bytes:
        """The stored form."""
        return encode_value({"files": self.files, "main": self.main})

    def digest(self) -> str:
        """sha256 of the stored form, lower-case hex."""
        return sha256_hex(self.encoded())

    def child(self, reference: str) -> "Definition":
        """The definition that `./file.yaml` in this one's main document names.

        Raises:
            KeyError: the definition does not hold that file.
        """
        key = file_key(reference)
        reachable = dict[str, Any]()
        folder = posixpath.dirname(key)
        pending = [(folder, self.files[key])]
        while pending:
            base, document = pending.pop()
            for named in child_files(document):
                whole = file_key(posixpath.join(base, named))
                short = "./" + posixpath.relpath(whole, folder)
                if short not in reachable:
                    reachable[short] = self.files[whole]
                    pending.append((posixpath.dirname(whole), self.files[whole]))
        return Definition(self.files[key], reachable)


def file_key(reference: str) -> str:
    """The key under which a file stands: `./`, then a normalised path."""
    return "./" + posixpath.normpath(reference)


def is_file(reference: str) -> bool:
    """Whether a `pipeline:` value names a file, not a registered definition."""
    return reference.startswith((".", "/", "~")) or reference.endswith((".yaml", ".yml"))


def blocks_of(steps: Any) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """The `steps:` maps inside of steps, at any depth: id of the step, path from `steps` on, map. Survives any JSON."""
    pending: list[tuple[Path, Any]] = [((), steps)]
    while pending:
        at, block = pending.pop()
        for step_id, body in block.items() if isinstance(block, dict) else ():
            for below, inner in _inner_blocks(body):
                if isinstance(inner, dict):
                    path = (*at, step_id, *below)
                    yield step_id, path, inner
                    pending.append((path, inner))


def _inner_blocks(body: Any) -> Iterator[tuple[Path, Any]]:
    if not isinstance(body, dict):
        return
    yield ("steps",), body.get("steps")
    cases = body.get("switch")
    for number, case in enumerate(cases) if isinstance(cases, list) else ():
        if isinstance(case, dict):
            yield ("switch", number, "steps"), case.get("steps")
            default = case.get("default")
            if isinstance(default, dict):
                yield ("switch", number, "default", "steps"), default.get("steps")


def child_references(document: Any) -> Iterator[tuple[Path, str]]:
    """Where a document's `pipeline` steps, at any depth, name a file, and the name. Survives any JSON value."""
    steps = document.get("steps") if isinstance(document, dict) else None
    blocks: list[tuple[Path, Any]] = [((), steps), *((path, block) for _, path, block in blocks_of(steps))]
    for at, block in blocks:
        for step_id, body in block.items() if isinstance(block, dict) else ():
            reference = body.get("pipeline") if isinstance(body, dict) else None
            if isinstance(reference, str) and is_file(reference):
                yield ("steps", *at, step_id, "pipeline"), reference


def child_files(document: Any) -> Iterator[str]:
    """The files that a document's `pipeline` steps name, as written."""
    return (reference for _, reference in child_references(document))


def decode_definition(data: bytes) -> Definition:
    """The definition in stored bytes.

    Raises:
        DataError: the bytes are something else.
    """
    try:
        raw = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        msg = f"not a definition: {error}"
        raise DataError(msg) from error
    if not isinstance(raw, dict) or set(raw) != {"main", "files"} or not isinstance(raw["files"], dict):
        msg = "not a definition: expected `main` and `files`"
        raise DataError(msg)
    return Definition(raw["main"], raw["files"])
