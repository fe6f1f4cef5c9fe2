"""`validate` and `schema`: what a file means, without running anything or opening a connection."""

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from headrace.cli.output import counted, emit, note, report_error, say
from headrace.cli.pointing import pointed
from headrace.cli.pricing import price_table
from headrace.contracts import names
from headrace.contracts.errors import InputFileError
from headrace.pipeline.bundle import Bundle, load_bundle
from headrace.pipeline.problems import RefusedDefinitionError
from headrace.pipeline.published_schema import json_schema


def validate_command(files: Sequence[Path], *, as_json: bool) -> int:
    """Check every file; the exit code is that of the worst: 66 for one that cannot be read, 65 for one refused."""
    code = names.EXIT_OK
    for file in files:
        try:
            bundle = load_bundle(file, prices=price_table())
        except RefusedDefinitionError as error:
            _refused(file, error, as_json=as_json)
            code = max(code, error.exit_code)
        except InputFileError as error:
            code = max(code, report_error(error, as_json=as_json))
        else:
            _accepted(file, bundle, as_json=as_json)
    return code


def _accepted(file: Path, bundle: Bundle, *, as_json: bool) -> None:
    plan = bundle.plan
    if as_json:
        about = {"pipeline": plan.pipeline, "digest": bundle.digest, "steps": len(plan.nodes)}
        emit({"file": str(file), "ok": True, **about, "problems": []})
        return
    say(f"{file}: ok, pipeline `{plan.pipeline}`, {counted(len(plan.nodes), 'step')}, digest {bundle.digest[:12]}")
    for warning in bundle.warnings:
        note(str(warning))


def _refused(file: Path, error: RefusedDefinitionError, *, as_json: bool) -> None:
    if not as_json:
        for problem in error.found:
            say(str(problem))
            for line in pointed(problem):
                say(line)
        return
    problems = [
        {
            "file": problem.file,
            "line": problem.line,
            "column": problem.column,
            "code": problem.code,
            "text": problem.text,
            "hint": problem.hint,
        }
        for problem in error.found
    ]
    emit({"file": str(file), "ok": False, "problems": problems})


def version_command() -> int:
    """The installed distribution's version."""
    say(f"headrace {version('headrace')}")
    return names.EXIT_OK


def schema_command() -> int:
    """The JSON Schema of the pipeline language, for editors."""
    say(json.dumps(json_schema(), indent=2, ensure_ascii=False))
    return names.EXIT_OK
