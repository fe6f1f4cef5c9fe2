"""Writes `docs/language.md` from the schema and the functions: `python -m tests.unit.pipeline.write_language`."""

import sys
from pathlib import Path

from headrace.pipeline.cel_library import described_functions
from headrace.pipeline.pending import PENDING
from headrace.pipeline.problems import CODES
from headrace.pipeline.schema import EXACTLY_ONE, PLACES, rows
from headrace.pipeline.shapes import Row, Shape

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs/language.md"
TEXT = ROOT / "docs/language.in.md"
"""The prose; lines `<!-- … -->` are replaced by tables."""
TITLES = {
    "pipeline": "The file",
    "step": "Steps",
    "case": "`switch`: a case",
    "default": "`switch`: `default`",
    "operations": "`transform`: operations",
    "join": "`transform`: `join`",
    "aggregate": "`transform`: `aggregate`",
    "message": "`llm`: `messages`",
    "session": "`llm`: `session`",
}
"""Headings of records that are not called as their key."""


def page() -> str:
    """The text of the page."""
    tables = {"keys": _keys(), "functions": _functions(), "pending": _pending(), "codes": _codes()}
    text = TEXT.read_text(encoding="utf-8")
    for name, table in tables.items():
        marker = f"<!-- {name} -->"
        if marker not in text:
            message = f"{TEXT.name} has no {marker}"
            raise ValueError(message)
        text = text.replace(marker, table)
    return text


def _keys() -> str:
    return "\n".join(_record(place) for place in PLACES)


def _record(place: str) -> str:
    title = TITLES.get(place, f"`{place}`")
    one = EXACTLY_ONE.get(place, ())
    said = f"Exactly one of {', '.join(f'`{key}`' for key in one)}.\n\n" if one else ""
    lines = [f"### {title}\n\n{said}| key | holds | what for |", "|---|---|---|"]
    for row in rows(place).values():
        name = f"`{row.key}`" + (" **required**" if row.required else "")
        lines.append(f"| {name} | {_holds(row.shape)} | {_what_for(row)} |")
    return "\n".join(lines) + "\n"


def _what_for(row: Row) -> str:
    parts = [row.help]
    if row.kinds:
        parts.append(f"With {', '.join(f'`{kind}`' for kind in row.kinds)}.")
    if row.needs:
        parts.append(f"Beside {' or '.join(f'`{key}`' for key in row.needs)}.")
    if row.excludes:
        parts.append(f"Not beside {', '.join(f'`{key}`' for key in row.excludes)}.")
    if f"{row.where}.{row.key}" in PENDING:
        parts.append("*Not executed yet.*")
    return " ".join(parts).replace("|", "\\|")


def _holds(shape: Shape) -> str:
    plain = _plain(shape)
    return f"{plain}, or an expression" if shape.templated else plain


def _plain(shape: Shape) -> str:
    match shape.kind:
        case "whole":
            return f"{int(shape.low):,} to {int(shape.high):,}"
        case "number":
            return f"a number, {shape.low:,g} to {shape.high:,g}"
        case "choice":
            return ", ".join(f"`{word}`" for word in shape.choices)
        case "list":
            assert shape.item is not None
            return f"list of: {_plain(shape.item)}"
        case "map":
            assert shape.item is not None
            return f"map of: {_plain(shape.item)}"
        case "record":
            return TITLES.get(shape.record, f"`{shape.record}`").lower()
    return {
        "text": "text",
        "name": "a name",
        "flag": "true or false",
        "count": "a count, such as `2M`",
        "duration": "a duration, such as `1h30m`",
        "condition": "a condition",
        "list expression": "a list, or an expression",
        "template": "any value, with expressions anywhere",
        "transform": "an expression, a map of them, or operations",
        "json schema": "JSON Schema",
        "steps or one": "a step's id, or a list of them",
        "step or value": "a step's id, or `{value: …}`",
        "models": "`provider/model`, or a list",
        "include": "`last 20` or `summary+last 10`",
        "cron": "five fields",
        "timezone": "a name such as `Europe/Berlin`",
        "pattern": "a pattern below the workspace",
        "json": "any constant",
        "pipeline": "a file or a name",
    }[shape.kind]


def _functions() -> str:
    lines = ["| call | gives | what |", "|---|---|---|"]
    lines += [f"| `{call}` | {gives} | {what} |".replace("||", "\\|\\|") for call, gives, what in described_functions()]
    return "\n".join(lines)


def _pending() -> str:
    lines = ["| entry | waits for |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{entry}` | {reason} |" for entry, reason in PENDING.items())])


def _codes() -> str:
    return "\n".join(["| code | says |", "|---|---|", *(f"| {code} | {what} |" for code, what in CODES.items())])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.exit(0)
