"""Old files in a few words, and what became of them."""

from typing import Any

from headrace.pipeline.bundle import load_text
from headrace.pipeline.importer.files import Imported, import_text
from headrace.pipeline.loader import load_bytes

HEAD = "workflow:\n  name: old\n  steps:\n"


def old(steps: str, *, above: str = "") -> str:
    """An old file with these steps, written from column 1; `above` holds other keys of `workflow`."""
    indented = "".join(f"    {line}\n" for line in steps.strip("\n").split("\n"))
    keys = "".join(f"  {line}\n" for line in above.strip("\n").split("\n") if line)
    return f"workflow:\n  name: old\n{keys}  steps:\n{indented}"


def imported(steps: str, *, above: str = "") -> Imported:
    """What becomes of an old file with these steps."""
    return import_text(old(steps, above=above))


def document(steps: str, *, above: str = "") -> dict[str, Any]:
    """The new document; our own loader and validator have accepted the text."""
    result = imported(steps, above=above)
    assert not result.refused, "\n".join(map(str, result.differences))
    text = result.texts["old.yaml"]
    if len(result.texts) == 1:
        load_text(text, pending={})
    made = load_bytes(text.encode(), "old.yaml").document
    assert isinstance(made, dict)
    return made


def steps_of(steps: str, *, above: str = "") -> dict[str, Any]:
    """The new steps by id."""
    made = document(steps, above=above)["steps"]
    assert isinstance(made, dict)
    return made


def said(result: Imported, code: str) -> list[str]:
    """The new behaviour of every difference with a code."""
    return [difference.new_behaviour for difference in result.differences if difference.code == code]


def refusals(steps: str, *, above: str = "") -> list[str]:
    """Every error as `line:column: code text`, without what was before."""
    result = imported(steps, above=above)
    assert not result.texts
    return [
        f"{found.line}:{found.column}: {found.code} {found.new_behaviour}"
        for found in result.differences
        if found.severity == "error"
    ]
