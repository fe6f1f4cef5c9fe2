"""One problem a file, each at its place: the table in tests/golden/bad_files.txt."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from headrace.pipeline.bundle import load_text
from headrace.pipeline.problems import CODES, RefusedDefinitionError

MARK = "«"
HEAD = "pipeline: p\nvars: {x: [1]}\nsteps:\n"
ELSEWHERE = {
    "E1002", "E1003", "E1004", "E1013", "E1014", "E1015",  # sizes and bytes: test_loader
    "E1210", "E1211",  # children of children: test_bundle
    "E1401",  # test_pending
}  # fmt: skip


class BadFile(NamedTuple):
    """`places` are `line:column`."""

    code: str
    what: str
    text: str
    places: list[str]


def bad_files() -> list[BadFile]:
    whole = (Path(__file__).parents[2] / "golden" / "bad_files.txt").read_text(encoding="utf-8")
    found = []
    for heading, body in re.findall(r"^### (.*)\n((?:(?!### ).*\n)*)", whole, re.MULTILINE):
        code, _, what = heading.partition(" ")
        marked = (HEAD + body) if body.startswith(" ") or ("\n  " not in body and body.startswith(MARK + " ")) else body
        places = []
        while MARK in marked:
            at = marked.index(MARK)
            marked = marked.replace(MARK, "", 1)
            places.append(f"{marked.count(chr(10), 0, at) + 1}:{at - marked.rfind(chr(10), 0, at)}")
        found.append(BadFile(code, what, marked, places))
    return found


FILES = bad_files()


@pytest.mark.parametrize("file", FILES, ids=[f"{file.code} {file.what}" for file in FILES])
def test_otp_n18_a_bad_file_is_refused_at_its_place(file: BadFile) -> None:
    """With one code and nothing beside it."""
    with pytest.raises(RefusedDefinitionError) as caught:
        load_text(file.text, pending={})
    found = [f"{problem.code} {problem.line}:{problem.column}" for problem in caught.value.found]
    assert found == [f"{file.code} {place}" for place in file.places], [str(problem) for problem in caught.value.found]


def test_otp_n18_there_are_a_hundred_bad_files_and_every_code_has_one() -> None:
    """A code that nothing shows is a promise that nobody keeps."""
    assert len(FILES) >= 100
    assert set(CODES) - {file.code for file in FILES} == ELSEWHERE
