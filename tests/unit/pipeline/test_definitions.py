"""Definitions as values: keys of files, children, stored form."""

import pytest

from headrace.contracts.errors import DataError
from headrace.pipeline.definitions import Definition, child_files, decode_definition, file_key, is_file


def calling(*children: str) -> dict[str, object]:
    return {"pipeline": "p", "steps": {f"s{index}": {"pipeline": child} for index, child in enumerate(children)}}


def test_what_names_a_file_and_what_a_registered_definition() -> None:
    """By its beginning or its ending."""
    assert all(is_file(text) for text in ("./a", "a.yaml", "a.yml", "../a", "/a", "~/a"))
    assert not any(is_file(text) for text in ("a", "a@" + "0" * 64))
    assert file_key("./a/./b.yaml") == file_key("a/b.yaml") == "./a/b.yaml"


def test_a_child_holds_what_it_names_relative_to_its_own_folder() -> None:
    """And nothing else."""
    files = {
        "./sub/a.yaml": calling("./deep/b.yaml", "c.yaml"),
        "./sub/deep/b.yaml": calling("./d.yaml"),
        "./sub/deep/d.yaml": calling(),
        "./sub/c.yaml": calling(),
        "./other.yaml": calling(),
    }
    child = Definition(calling("sub/a.yaml", "./other.yaml"), files).child("sub/a.yaml")
    assert child.main == files["./sub/a.yaml"]
    assert set(child.files) == {"./deep/b.yaml", "./deep/d.yaml", "./c.yaml"}
    assert decode_definition(child.encoded()) == child


def test_child_files_of_anything_can_be_asked_for() -> None:
    """Also of what is no pipeline."""
    values: tuple[object, ...] = (None, [], {"steps": 1}, {"steps": {"a": None}}, {"steps": {"a": {"pipeline": 5}}})
    for value in values:
        assert list(child_files(value)) == []


@pytest.mark.parametrize("data", [b"", b"1", b"[]", b"{}", b'{"main":{}}', b'{"main":{},"files":[]}', b"\xff"])
def test_other_bytes_are_no_definition(data: bytes) -> None:
    """They say what was expected."""
    with pytest.raises(DataError, match="not a definition"):
        decode_definition(data)
