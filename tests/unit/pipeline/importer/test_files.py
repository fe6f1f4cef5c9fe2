"""Files and folders: the published pipelines with their report, nested files, and files nobody has ever seen.

The report over the data folder is a golden file, read line by line by a person; `python -m
tests.unit.pipeline.importer.write_report` writes what is said now, for reading the difference. What this release cannot
execute yet (W1531) is not part of it: it changes with the engine, not with the importer.
"""

import copy
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.contracts.errors import InputFileError
from headrace.pipeline.bundle import load_bundle, load_text
from headrace.pipeline.importer.files import Imported, import_files, import_text, old_files
from headrace.pipeline.importer.report import CODES
from headrace.pipeline.problems import CODES as PROBLEMS

DATA = Path(__file__).resolve().parents[3] / "data" / "pipeline_ex"
GOLDEN = Path(__file__).with_name("report.golden.txt")
REFUSED = {
    "examples/meta/genesis_example.yaml": (101, "E1501"),
    "examples/meta/simple_genesis_test.yaml": (8, "E1501"),
    "test/fixtures/pipelines/nested_with_error.yaml": (11, "E1504"),
    "working_genesis.yaml": (48, "E1508"),
}
"""Two files that hold a pipeline below other keys, one made to fail, and one with a template of another system's."""


def converted() -> list[Imported]:
    """Every file of the data folder."""
    return import_files(old_files(DATA), root=DATA)


def report(results: list[Imported]) -> str:
    """The report as the golden file has it, with paths relative to the folder."""
    lines = []
    for result in results:
        lines.append(f"# {Path(result.file).relative_to(DATA)}: {'refused' if result.refused else 'converted'}")
        found = (str(one).replace(f"{DATA}{os.sep}", "") for one in result.differences if one.code != "W1531")
        lines += sorted(found, key=lambda line: (line.split(":")[0], *map(int, line.split(":")[1:3]), line))
    return "".join(f"{line}\n" for line in lines)


def test_the_report_over_the_published_pipelines_is_the_golden_one() -> None:
    """Every difference in meaning of 44 real files, with file, line, old and new behaviour."""
    assert report(converted()) == GOLDEN.read_text(encoding="utf-8")


def test_every_published_pipeline_validates_or_is_refused_at_its_line(tmp_path: Path) -> None:
    """As files, with the children they name, by the loader and validator that `headrace validate` uses."""
    results = {str(Path(result.file).relative_to(DATA)): result for result in converted()}
    assert len(results) == 44
    for name, result in results.items():
        errors = [(found.line, found.code) for found in result.differences if found.severity == "error"]
        assert errors == ([REFUSED[name]] if name in REFUSED else []), name
        for target, text in result.texts.items():
            (tmp_path / target).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / target).write_text(text, encoding="utf-8")
    for path in sorted(tmp_path.rglob("*.yaml")):
        load_bundle(path, pending={})
    assert len(list(tmp_path.rglob("*.yaml"))) == 41  # one file has a pipeline inside a step


def test_every_code_of_the_report_is_in_the_table() -> None:
    """And every difference says what happens now; notes say what was before."""
    for result in converted():
        for found in result.differences:
            assert found.code in CODES or found.code in PROBLEMS
            assert found.new_behaviour
            assert found.old_behaviour or found.code in ("W1531", "E1501")
            assert found.line >= 1


# --- nested files ---

PARENT = """workflow:
  name: parent
  steps:
  - {name: one, type: pipeline, pipeline_file: kids/child.yaml, inputs: {n: 3}}
  - {name: two, type: test_echo, value: '{{one.ask.score}} {{one.count}}'}
"""
CHILD = """workflow:
  name: child
  steps:
  - {name: ask, type: gemini, prompt: 'x {{inputs.n}}'}
  - {name: count, type: test_echo, value: '{{inputs.n}}'}
"""


def written(folder: Path, files: dict[str, str]) -> Path:
    """The folder with these files."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_a_nested_file_is_found_beside_its_parent_and_converted_with_it(tmp_path: Path) -> None:
    """What the parent reads of the child's answer is asked for in the child; a whole number stays one."""
    folder = written(tmp_path, {"parent.yaml": PARENT, "kids/child.yaml": CHILD})
    result = import_files([folder / "parent.yaml"])[0]
    assert sorted(result.texts) == ["kids/child.yaml", "parent.yaml"]
    out = written(tmp_path / "out", result.texts)
    bundle = load_bundle(out / "parent.yaml", pending={})
    child = bundle.definition.files["./kids/child.yaml"]
    assert child["steps"]["ask"]["llm"]["output_schema"]["required"] == ["score"]
    assert bundle.definition.main["steps"]["one"] == {"pipeline": "./kids/child.yaml", "with": {"n": 3}}


def test_a_folder_is_converted_as_one(tmp_path: Path) -> None:
    """The child by itself is the same file as the child of its parent, in whatever order they come."""
    folder = written(
        tmp_path, {"a.yaml": CHILD, "z/parent.yaml": PARENT.replace("kids/child.yaml", "kid.yaml"), "z/kid.yaml": CHILD}
    )
    results = import_files(old_files(folder), root=folder)
    texts = [result.texts["z/kid.yaml"] for result in results if "z/kid.yaml" in result.texts]
    assert len(texts) == 2
    assert texts[0] == texts[1]
    assert "required: [score]" in texts[0]


def test_a_child_elsewhere_in_the_folder_is_copied_below_its_parent(tmp_path: Path) -> None:
    """Old paths were relative to the working directory; a child of Headrace lies beside its parent or below."""
    folder = written(tmp_path, {"flows/parent.yaml": PARENT, "kids/child.yaml": CHILD})
    result = next(one for one in import_files(old_files(folder), root=folder) if one.file.endswith("parent.yaml"))
    assert sorted(result.texts) == ["flows/kids.child.yaml", "flows/parent.yaml"]
    assert "pipeline: ./kids.child.yaml" in result.texts["flows/parent.yaml"]


@pytest.mark.parametrize(
    ("reference", "files", "why"),
    [
        ("../outside.yaml", {}, "is neither beside this file nor below the folder"),
        ("/etc/hosts", {}, "a path below the folder that is imported is expected"),
        ("'{{ x }}.yaml'", {}, "a path below the folder that is imported is expected"),
        ("missing.yaml", {}, "is neither beside this file nor below the folder"),
        ("parent.yaml", {}, "the pipeline calls itself"),
        ("bad.yaml", {"bad.yaml": "workflow: {name: x, steps: []}"}, "the file is refused"),
        ("bad.yaml", {"bad.yaml": "a: &x 1"}, "the file is refused"),
    ],
)
def test_a_nested_file_that_cannot_be_used_is_refused(
    tmp_path: Path, reference: str, files: dict[str, str], why: str
) -> None:
    """At the step that names it; nothing outside of the folder is opened."""
    written(tmp_path, {"outside.yaml": CHILD})
    folder = written(tmp_path / "in", {"parent.yaml": PARENT.replace("kids/child.yaml", reference)} | files)
    result = import_files([folder / "parent.yaml"])[0]
    assert not result.texts
    errors = [found for found in result.differences if found.code == "E1512"]
    assert len(errors) == 1
    assert errors[0].line == 4
    assert why in errors[0].new_behaviour


def test_a_mistake_in_a_nested_file_is_said_at_its_place(tmp_path: Path) -> None:
    """And the parent is not converted without its child."""
    bad = "workflow:\n  name: x\n  steps:\n  - {name: y, type: z}\n"
    folder = written(tmp_path, {"parent.yaml": PARENT, "kids/child.yaml": bad})
    result = import_files([folder / "parent.yaml"])[0]
    assert not result.texts
    assert [(Path(one.file).name, one.line, one.code) for one in result.differences if one.severity == "error"] == [
        ("child.yaml", 4, "E1504"),
        ("parent.yaml", 5, "E1506"),
    ]


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    """Where it leads counts, not where it stands."""
    written(tmp_path, {"outside.yaml": CHILD})
    folder = written(tmp_path / "in", {"parent.yaml": PARENT.replace("kids/child.yaml", "link.yaml")})
    (folder / "link.yaml").symlink_to(tmp_path / "outside.yaml")
    assert import_files([folder / "parent.yaml"])[0].refused


def test_a_folder_without_files_and_a_file_that_is_none_are_errors(tmp_path: Path) -> None:
    """66 on the command line."""
    with pytest.raises(InputFileError):
        old_files(tmp_path)
    with pytest.raises(InputFileError):
        import_files([tmp_path / "missing.yaml"])


# --- files nobody has ever seen ---

TEXTS = [path.read_text(encoding="utf-8") for path in old_files(DATA)]
DOCUMENTS = [yaml.safe_load(text) for text in TEXTS]
SECONDS_MAX = 10
"""For one file, on a busy machine; half a second is the most that was seen."""
ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    1.5,
    "",
    "x",
    "{{x}}",
    ("{{ steps.a.b }}"),
    "a.b == 1 and",
    "${{ x",
    "{{",
    "../x",
    "/x",
    [],
    {},
    [[]],
    [None],
    {"a": 1},
    "é\u2028 x ",
    "a\n b \n\n",
    " lead",
    "trail ",
    "12",
    "null",
    "on",
    "# c",
    "a: b",
    ("{{ loop.item }}"),
    "{{ a + }}",
    "{{previous_response:}}",
    2**62,
    "x" * 70,
    "include",
    "item",
    "😀",
    "x\x85y",
    "}}",
    "\x1b[31m",
]


def spots(tree: Any) -> list[tuple[Any, Any]]:
    """Every container with each of its keys."""
    keys: Any = tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    return [spot for key in list(keys) for spot in [(tree, key), *spots(tree[key])]]


POOL = [container[key] for document in DOCUMENTS for container, key in spots(document)]
KEYS = sorted({key for document in DOCUMENTS for _, key in spots(document) if isinstance(key, str)})


def mutated(draw: random.Random) -> str:
    """A published file with a few things changed: values, keys, order, or characters."""
    if draw.random() < 0.2:
        text = draw.choice(TEXTS)
        at = draw.randrange(len(text) + 1)
        return (
            text[:at]
            + draw.choice(["{{", "\t", "  ", "\n", ":", "- ", '"', "&a", "!!x", "'"])
            + text[at + draw.randrange(3) :]
        )
    document = copy.deepcopy(draw.choice(DOCUMENTS))
    for _ in range(draw.choice([1, 1, 2, 3, 6])):
        found = spots(document)
        if not found:
            break
        container, key = draw.choice(found)
        match draw.randrange(5):
            case 0:
                container[key] = copy.deepcopy(draw.choice(ODD))
            case 1:
                container[key] = copy.deepcopy(draw.choice(POOL))
            case 2:
                del container[key]
            case 3 if isinstance(container, dict):
                container[draw.choice(KEYS)] = copy.deepcopy(draw.choice(POOL + ODD))
            case _ if isinstance(container, list):
                container.insert(key, copy.deepcopy(container[key]))
    return str(yaml.safe_dump(document, allow_unicode=True, sort_keys=False, width=1000))


def settle(text: str, why: str) -> None:
    """Refused with a code and a place, or converted into what our own loader and validator accept."""
    began_s = time.monotonic()
    result = import_text(text)
    took_s = time.monotonic() - began_s
    assert took_s < SECONDS_MAX, why
    if result.refused:
        assert not result.texts, why
        assert all(found.code in CODES or found.code in PROBLEMS for found in result.differences), why
    elif len(result.texts) == 1:
        load_text(result.texts["old.yaml"], pending={})


@pytest.mark.parametrize("seed", range(150))
def test_a_changed_file_is_converted_or_refused(seed: int) -> None:
    """Random changes of real files; the seed is the test's number."""
    text = mutated(random.Random(seed))
    settle(text, f"pytest {__file__} -k 'a_changed_file and {seed}'")


@pytest.mark.slow
@pytest.mark.parametrize("block", range(100))
def test_many_changed_files_are_converted_or_refused(block: int) -> None:
    """Ten thousand more."""
    for seed in range(1_000 + block * 100, 1_100 + block * 100):
        settle(mutated(random.Random(seed)), f"seed {seed}")


JSON = st.recursive(
    st.sampled_from([value for value in ODD if not isinstance(value, (list, dict))])
    | st.text(max_size=8)
    | st.integers(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=25,
)
TYPES = st.sampled_from(
    [
        "claude",
        "gemini",
        "claude_batch",
        "for_loop",
        "while_loop",
        "pipeline",
        "data_transform",
        "file_ops",
        "switch",
        "set_variable",
    ]
)


@given(
    st.lists(
        st.dictionaries(st.sampled_from(KEYS), JSON, max_size=6).flatmap(
            lambda step: st.builds(lambda kind, name: {"name": name, "type": kind, **step}, TYPES, st.text(max_size=6))
        ),
        max_size=4,
    )
)
@settings(deadline=None, max_examples=50)
def test_any_steps_are_converted_or_refused(steps: list[dict[str, Any]]) -> None:
    """Keys of old files with any value in any step."""
    settle(
        yaml.safe_dump({"workflow": {"name": "x", "steps": steps}}, allow_unicode=True, sort_keys=False), "random steps"
    )


@given(JSON)
@settings(deadline=None, max_examples=100)
def test_any_document_is_converted_or_refused(document: Any) -> None:
    """Whatever YAML holds."""
    settle(yaml.safe_dump(document, allow_unicode=True), "random YAML")
