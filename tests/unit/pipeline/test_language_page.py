"""docs/language.md says what the schema says, and its examples load."""

import re

import pytest
from tests.unit.pipeline import write_language

from headrace.pipeline.bundle import load_text
from headrace.pipeline.cel_library import FUNCTION_NAMES, described_functions
from headrace.pipeline.schema import SCHEMA

EXAMPLES = re.findall(r"```yaml\n(.*?)```", write_language.TEXT.read_text(encoding="utf-8"), re.DOTALL)


def test_the_page_is_up_to_date() -> None:
    """After a change of the schema: `python -m tests.unit.pipeline.write_language`."""
    assert write_language.PAGE.read_text(encoding="utf-8") == write_language.page()


def test_every_key_and_every_function_is_on_the_page() -> None:
    """From the same tables."""
    page = write_language.page()
    assert all(f"| `{row.key}`" in page for row in SCHEMA)
    described = {call.partition("(")[0] for call, _, what in described_functions() if what}
    assert described <= set(FUNCTION_NAMES)
    assert all(f"`{name}(" in page for name in described)
    assert {"file", "now", "coalesce", "sort_by", "sha256"} <= described


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_every_example_of_the_page_is_sound(example: str) -> None:
    """Also what is not executed yet has to be written correctly."""
    assert load_text(example, pending={}).plan.nodes
