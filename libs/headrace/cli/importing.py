"""`import`: pipeline_ex files as Headrace pipelines, and what means something else now."""

from collections.abc import Sequence
from pathlib import Path

from headrace.cli.output import emit, note, say
from headrace.contracts import names
from headrace.contracts.errors import ConflictError, InputFileError
from headrace.pipeline.importer.files import Imported, import_files, old_files


def import_command(source: Path, *, out: Path | None, as_json: bool) -> int:
    """Convert a file, or every file below a folder; write only below `out`, and nothing without it.

    Gives 65 when a file is refused; the others are converted all the same.
    """
    files = old_files(source) if source.is_dir() else [source]
    root = source if source.is_dir() else None
    results = import_files(files, root=root)
    written = {} if out is None else _written(out, results)
    for result in results:
        _shown(result, written.get(result.file, ()), as_json=as_json)
    if not as_json:
        _summed(results, out)
    return names.EXIT_DATA if any(result.refused for result in results) else names.EXIT_OK


def _written(out: Path, results: Sequence[Imported]) -> dict[str, tuple[str, ...]]:
    """Write the new files; gives their paths by old file.

    Raises:
        ConflictError: something else is there already; then nothing is written.
        InputFileError: the folder cannot be written.
    """
    texts = {out / target: text for result in results for target, text in result.texts.items()}
    try:
        for path, text in texts.items():
            if path.exists() and path.read_text(encoding="utf-8", errors="replace") != text:
                msg = f"{path}: exists and differs; remove it, or choose another --out"
                raise ConflictError(msg)
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        msg = f"{error.filename}: {error.strerror}"
        raise InputFileError(msg) from error
    return {result.file: tuple(str(out / target) for target in result.texts) for result in results}


def _shown(result: Imported, written: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        found = [difference.as_json() for difference in result.differences]
        emit({"file": result.file, "ok": not result.refused, "written": list(written), "differences": found})
        return
    for difference in result.differences:
        say(str(difference))
    for path in written:
        say(f"{result.file}: converted to {path}")


def _summed(results: Sequence[Imported], out: Path | None) -> None:
    refused = sum(result.refused for result in results)
    counts = {"error": 0, "warning": 0, "note": 0}
    for result in results:
        for difference in result.differences:
            counts[difference.severity] += 1
    said = ", ".join(f"{count} {name}{'s' * (count != 1)}" for name, count in counts.items())
    note(f"{len(results)} read, {len(results) - refused} converted, {refused} refused; {said}")
    if out is None:
        note("nothing is written without --out DIR")
