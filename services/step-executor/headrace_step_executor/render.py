"""From template and bindings to the value: what the scheduler left to the executor.

`render` is a function of its job and of the files that the job may read, so it gives the same in this
thread, in another one, and in a worker process; `rendering.py` chooses by size.
"""

import functools
from pathlib import Path
from typing import Any, Final

import msgspec

from headrace.contracts.canonical import sha256_hex
from headrace.contracts.envelope import ItemResult
from headrace.contracts.errors import AttemptError, HeadraceError
from headrace.contracts.failure import Failure
from headrace.pipeline import builtin_tools, expressions
from headrace.runtime.values import COMPOSED, encode_checked
from headrace_step_executor.tools.beneath import Workspace

TEMPLATES_KEPT: Final = 1024
"""Templates of a few hundred definitions; steps of a `foreach` share one."""


class Bound(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A name and the JSON bytes of its value. With a composed form they are an array of ItemResult."""

    name: str
    data: bytes
    form: str = "json"
    stored: dict[str, bytes] = {}
    """For a composed form: reference → bytes of the values that are held by reference."""


class RenderJob(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a rendering needs."""

    template: bytes
    bindings: tuple[Bound, ...]
    home: str
    """The run's workspace, empty for none."""
    read_roots: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes to be decoded."""
        return len(self.template) + sum(
            len(bound.data) + sum(map(len, bound.stored.values())) for bound in self.bindings
        )


class Rendered(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The value's JSON bytes and the files that were read, or why there is no value."""

    output: bytes = b""
    files: dict[str, str] = {}
    failure: Failure | None = None


class FilesRead:
    """How `file(path)` reads: confined to the workspace, each file once, its hash kept for the report."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._texts: dict[str, str] = {}
        self.hashes: dict[str, str] = {}

    def __call__(self, path: str) -> str:
        """The text of a file. One rendering sees one version of it, however often it asks."""
        if path not in self._texts:
            data = self._workspace.read(path, bytes_max=builtin_tools.READ_BYTES_MAX)
            try:
                self._texts[path] = data.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                message = f"file({path[:200]!a}): not UTF-8 at byte {error.start}"
                msg = "not_text"
                raise AttemptError(msg, message, retryable=False) from error
            self.hashes[path] = sha256_hex(data)
        return self._texts[path]


def render(job: RenderJob) -> Rendered:
    """The rendered value. Never raises for what an author can get wrong: that is a failure as data."""
    try:
        template = _compiled(job.template)
        home = Path(job.home) if job.home else None
        files = FilesRead(Workspace(home, tuple(map(Path, job.read_roots))))
        values = {bound.name: _value(bound) for bound in job.bindings}
        output = encode_checked(expressions.render(template, values, files=files))
        return Rendered(output=output, files=files.hashes)
    except HeadraceError as error:
        return Rendered(failure=error.failure())
    except RecursionError as error:
        return Rendered(failure=Failure(code="expr_eval", message=f"nested too deep: {error}"))


@functools.lru_cache(maxsize=TEMPLATES_KEPT)
def _compiled(source: bytes) -> expressions.Template:
    return expressions.compile_template(msgspec.json.decode(source))


def _value(bound: Bound) -> Any:
    if bound.form in COMPOSED:
        results = msgspec.json.decode(bound.data, type=list[ItemResult])
        stored = {ref: msgspec.json.decode(data) for ref, data in bound.stored.items()}
        return COMPOSED[bound.form](results, stored)
    return msgspec.json.decode(bound.data)
