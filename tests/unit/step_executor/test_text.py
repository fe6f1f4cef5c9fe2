"""Text and JSON tools."""

import itertools
import time
from pathlib import Path
from typing import Any

import pytest
from tests.unit.step_executor.builders import tool_call

from headrace.contracts.errors import AttemptError
from headrace.pipeline import json_schemas
from headrace.pipeline.builtin_tools import BUILTIN_TOOLS
from headrace_step_executor.tools import jsons, text

TOOLS = {
    "text.split": text.split, "text.extract_code": text.extract_code, "text.extract_links": text.extract_links,
    "text.measure": text.measure, "json.parse": jsons.parse, "json.validate": jsons.validate,
}  # fmt: skip


async def use(tool: str, home: Path, **args: Any) -> Any:
    with tool_call(tool, home, **args) as call:
        result = await TOOLS[tool](call)
    assert json_schemas.errors(json_schemas.validator(BUILTIN_TOOLS[tool].result), result) == []
    return result


async def test_split_cuts_where_the_text_pauses_and_loses_nothing(tmp_path: Path) -> None:
    """Parts are at most as long as asked and joined they are the text; overlaps repeat the end of the part before."""
    words = "one two three.\n\nfour five six seven eight nine ten. " * 50
    parts = (await use("text.split", tmp_path, text=words, size=40))["parts"]
    assert "".join(parts) == words
    assert max(map(len, parts)) <= 40
    assert all(part[-1].isspace() for part in parts)
    overlapping = (await use("text.split", tmp_path, text=words, size=40, overlap=10))["parts"]
    assert all(after.startswith(before[-10:]) for before, after in itertools.pairwise(overlapping))
    assert (await use("text.split", tmp_path, text=""))["parts"] == []
    assert (await use("text.split", tmp_path, text="x" * 100, size=30))["count"] == 4
    with pytest.raises(AttemptError, match="characters in parts"):
        await use("text.split", tmp_path, text="x" * 100_000, size=50_000, overlap=49_999)
    with pytest.raises(AttemptError, match="overlap"):
        await use("text.split", tmp_path, text="x", size=5, overlap=5)


async def test_code_blocks_by_language_longer_fences_and_open_ends(tmp_path: Path) -> None:
    """A longer fence may hold a shorter one; a block that nobody closes ends with the text."""
    markdown = "```python\nx = 1\n```\ntext\n````md\n```\ninner\n```\n````\n~~~\nlast\n"
    blocks = (await use("text.extract_code", tmp_path, text=markdown))["blocks"]
    assert [(block["language"], block["code"]) for block in blocks] == [
        ("python", "x = 1"), ("md", "```\ninner\n```"), ("", "last"),
    ]  # fmt: skip
    assert (await use("text.extract_code", tmp_path, text=markdown, language="PYTHON"))["count"] == 1


async def test_links_once_each_with_their_text(tmp_path: Path) -> None:
    """Markdown links and bare addresses; punctuation after an address is not part of it."""
    found = await use(
        "text.extract_links",
        tmp_path,
        text="[Docs](https://a.example/x) and https://b.example/y. https://a.example/x",
    )
    assert found["links"] == [
        {"url": "https://a.example/x", "text": "Docs"},
        {"url": "https://b.example/y", "text": "https://b.example/y"},
    ]
    titled = await use("text.extract_links", tmp_path, text='[T](http://a.example/t "title") [U](http://a.example/u')
    assert [link["text"] for link in titled["links"]] == ["T", "http://a.example/u"]


async def test_links_of_hostile_text_are_found_in_linear_time(tmp_path: Path) -> None:
    """Half-written links make no pattern try every way to split them: the loop would stand still meanwhile."""
    hostile = ("[x](http://" + "a" * 2300 + " ") * 400

    began_s = time.process_time()
    found = await use("text.extract_links", tmp_path, text=hostile)

    assert found["count"] == 1
    assert time.process_time() - began_s < 1.0  # 0.02 s; 3 s where every split is tried


async def test_measure_counts_text_and_python(tmp_path: Path) -> None:
    """Lines with or without a last newline; Python things only in Python."""
    (tmp_path / "a.py").write_text("# c\nclass A:\n    async def f(self):\n        pass\n\ndef g(): pass")
    python = await use("text.measure", tmp_path, path="a.py")
    assert (python["lines"], python["blank_lines"], python["functions"], python["classes"]) == (6, 1, 2, 1)
    assert (python["comment_lines"], python["language"], python["path"]) == (1, "python", "a.py")
    plain = await use("text.measure", tmp_path, text="def x\nzwei drei\n")
    assert (plain["functions"], plain["words"], plain["lines"], plain["longest_line"]) == (0, 4, 2, 9)
    assert (await use("text.measure", tmp_path, text=""))["lines"] == 0


async def test_json_parse_is_strict(tmp_path: Path) -> None:
    """Duplicate keys, NaN, integers beyond 64 bits and depth are errors, not guesses."""
    assert (await use("json.parse", tmp_path, text='{"a": [1.5, null]}'))["value"] == {"a": [1.5, None]}
    for wrong in ('{"a":1,"a":2}', "NaN", "1e999", str(2**64), "[" * 100_000, "{", ""):
        with pytest.raises(AttemptError) as raised:
            await use("json.parse", tmp_path, text=wrong)
        assert raised.value.attempt_code == "json_invalid"


async def test_json_validate_reports_places_and_fetches_nothing(tmp_path: Path) -> None:
    """An invalid value is a result with pointers; a schema that points elsewhere is an error."""
    schema = {"type": "object", "properties": {"a/b": {"type": "array", "items": {"type": "integer"}}}}
    bad = await use("json.validate", tmp_path, value={"a/b": [1, "x"]}, schema=schema)
    assert (bad["valid"], bad["errors"][0]["path"]) == (False, "/a~1b/1")
    assert (await use("json.validate", tmp_path, value={}, schema=schema))["valid"] is True
    with pytest.raises(AttemptError) as raised:
        await use("json.validate", tmp_path, value=1, schema={"$ref": "http://127.0.0.1:9/schema"})
    assert raised.value.attempt_code == "schema_invalid"
