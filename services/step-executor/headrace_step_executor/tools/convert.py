"""`fs.convert`: files of records between csv, json, jsonl and yaml."""

import csv
import io
import json
from typing import Any, Final

import yaml

from headrace.contracts.errors import DefinitionError
from headrace.pipeline import builtin_tools
from headrace.pipeline.loader import load_bytes
from headrace_step_executor.tools.call import ToolCall, go_on, in_thread, refuse
from headrace_step_executor.tools.fs_read import json_value, lines_of, text_of
from headrace_step_executor.tools.fs_write import store

RECORDS_MAX: Final = 1_000_000
_BY_ENDING: Final = {
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".yaml": "yaml",
    ".yml": "yaml",
}


async def convert(call: ToolCall) -> Any:
    """`fs.convert`."""
    return await in_thread(call, lambda: _convert(call))


def _convert(call: ToolCall) -> dict[str, Any]:
    source, target = call.args["from"], call.args["to"]
    from_format = call.args.get("from_format") or format_of(source)
    to_format = call.args.get("to_format") or format_of(target)
    data = call.workspace.read(source, bytes_max=builtin_tools.READ_BYTES_MAX)
    records = parse(text_of(data, source), from_format, source)
    go_on(call)
    written = store(call.workspace, target, render(records, to_format, target).encode())
    return written | {"records": len(records)}


def format_of(path: str) -> str:
    """The format that a file's ending names."""
    for ending, form in _BY_ENDING.items():
        if path.lower().endswith(ending):
            return form
    msg = "tool_args_invalid"
    raise refuse(msg, f"{path[:200]!a}: the ending names no format; give it")


def parse(text: str, form: str, path: str) -> list[Any]:
    """The records in a text. Raises AttemptError with the place of what is wrong."""
    match form:
        case "csv":
            records = _parse_csv(text, path)
        case "jsonl":
            lines = enumerate(lines_of(text), 1)
            records = [json_value(line, f"{path}:{number}") for number, line in lines if line.strip()]
        case "yaml":
            records = _listed(_parse_yaml(text, path), path)
        case _:
            records = _listed(json_value(text, path), path)
    if len(records) > RECORDS_MAX:
        msg = "too_large"
        raise refuse(msg, f"{path[:200]!a}: more than {RECORDS_MAX} records")
    return records


def render(records: list[Any], form: str, path: str) -> str:
    """The text of a file of records."""
    match form:
        case "csv":
            return _render_csv(records, path)
        case "jsonl":
            return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        case "yaml":
            dumped: str = yaml.dump(records, Dumper=yaml.CSafeDumper, allow_unicode=True, sort_keys=False)
            return dumped
    return json.dumps(records, indent=2, ensure_ascii=False) + "\n"


def _listed(value: Any, path: str) -> list[Any]:
    if not isinstance(value, list):
        msg = "records_invalid"
        raise refuse(msg, f"{path[:200]!a}: a list of records is expected")
    return value


def _parse_csv(text: str, path: str) -> list[Any]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, None)
        if header is None:
            return []
        if len(set(header)) != len(header):
            msg = "records_invalid"
            raise refuse(msg, f"{path[:200]!a}:1: a column name occurs twice")
        records = []
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                message = f"{path[:200]!a}:{reader.line_num}: {len(row)} values for {len(header)} columns"
                msg = "records_invalid"
                raise refuse(msg, message)
            records.append(dict(zip(header, row, strict=True)))
    except csv.Error as error:
        msg = "records_invalid"
        raise refuse(msg, f"{path[:200]!a}:{reader.line_num}: {error}") from error
    return records


def _render_csv(records: list[Any], path: str) -> str:
    columns: dict[str, None] = {}
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict):
            msg = "records_invalid"
            raise refuse(msg, f"{path[:200]!a}: record {number} is no object, so it has no columns")
        columns.update(dict.fromkeys(record))
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for record in records:
        writer.writerow([_cell(record.get(column)) for column in columns])
    return out.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _parse_yaml(text: str, path: str) -> Any:
    """One YAML document of JSON's types, by the same guarded loader that reads definitions."""
    try:
        return load_bytes(text.encode(), path).document
    except DefinitionError as error:
        msg = "records_invalid"
        raise refuse(msg, "; ".join(error.problems[:5])) from error
