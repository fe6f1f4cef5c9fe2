"""Child files: confined to the pipeline file's folder, each a definition with a digest of its own."""

import os
from pathlib import Path

import pytest

from headrace.contracts import names
from headrace.contracts.canonical import sha256_hex
from headrace.contracts.errors import InputFileError, NotFoundError
from headrace.pipeline.bundle import load_bundle, load_text
from headrace.pipeline.compile import compile_plan, plan_for
from headrace.pipeline.problems import RefusedDefinitionError

LEAF = "pipeline: leaf\nsteps: {a: {transform: '${{ 1.0 }}'}}\n"


def calling(name: str, *children: str) -> str:
    steps = "".join(f"  c{index}: {{pipeline: {child}}}\n" for index, child in enumerate(children))
    return f"pipeline: {name}\nsteps:\n{steps or '  w: {wait: {for: 1s}}'}\n"


def write(folder: Path, **files: str) -> Path:
    """Files by name (`__` for `/`); gives the path of `main.yaml`."""
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "main.yaml"


def refused(path: Path) -> list[str]:
    """The problems of a file and its children, without the folder."""
    with pytest.raises(RefusedDefinitionError) as caught:
        load_bundle(path)
    assert caught.value.exit_code == names.EXIT_DATA
    return [line.replace(f"{path.parent}/", "") for line in caught.value.problems]


def test_a_definition_is_named_by_the_hash_of_its_bytes(tmp_path: Path) -> None:
    """The digest proves the stored bytes, and compiling them gives a plan of that digest."""
    bundle = load_bundle(write(tmp_path, main=calling("main", "./sub/leaf.yaml"), sub__leaf=LEAF))
    assert bundle.digest == sha256_hex(bundle.data) == bundle.plan.digest == compile_plan(bundle.data).digest
    assert bundle.data.startswith(b'{"files":{"./sub/leaf.yaml":{"pipeline":"leaf"')


def test_layout_and_comments_do_not_change_the_digest(tmp_path: Path) -> None:
    """Only the content does; 1 and 1.0 are different content."""
    digests = {
        load_text(text).digest
        for text in (
            "pipeline: p\nvars: {a: 1, b: x}\nsteps: {w: {wait: {for: 1s}}}\n",
            "# comment\nsteps:\n  w:\n    wait: {for: '1s'}\nvars:\n  b: \"x\"\n  a: 1\npipeline: p\n",
        )
    }
    assert len(digests) == 1
    digests.add(load_text("pipeline: p\nvars: {a: 1.0, b: x}\nsteps: {w: {wait: {for: 1s}}}\n").digest)
    assert len(digests) == 2


def test_a_child_has_the_same_digest_alone_and_inside(tmp_path: Path) -> None:
    """So it can be stored, found and shared under it; a plan at any depth compiles from the parent's bytes."""
    middle = calling("middle", "./leaf.yaml")
    main = write(tmp_path, main=calling("main", "./sub/middle.yaml"), sub__middle=middle, sub__leaf=LEAF)
    bundle = load_bundle(main)
    alone = {name: load_bundle(tmp_path / "sub" / f"{name}.yaml") for name in ("middle", "leaf")}
    assert dict(bundle.children) == {child.digest: child.data for child in alone.values()}
    (node,) = bundle.plan.nodes
    assert node.child is not None
    assert (node.child.pipeline, node.child.digest) == ("middle", alone["middle"].digest)
    for digest, name in ((bundle.digest, "main"), (alone["middle"].digest, "middle"), (alone["leaf"].digest, "leaf")):
        assert plan_for(bundle.data, digest).pipeline == name
    with pytest.raises(NotFoundError):
        plan_for(bundle.data, "0" * 64)


def test_registered_children_are_named_by_name_and_digest() -> None:
    """What is not a file is looked up when the step starts."""
    digest = "a" * 64
    plan = load_text(calling("main", "other", f"other@{digest}")).plan
    children = [node.child for node in plan.nodes]
    assert [(child.pipeline, child.digest) for child in children if child] == [("other", ""), ("other", digest)]


@pytest.mark.parametrize(
    "reference",
    [
        "../../etc/passwd",
        "../x.yaml",
        "/etc/passwd",
        "/x.yaml",
        "~/x.yaml",
        "./a/../../x.yaml",
        "a/../x.yaml",
        "./a\\b.yaml",
    ],
)
def test_input_34_a_child_outside_of_the_folder_is_refused_by_its_name(tmp_path: Path, reference: str) -> None:
    """Nothing is opened: the same answer whether the file exists or not."""
    write(tmp_path, x="not: yaml: at: all")
    inner = tmp_path / "in"
    inner.mkdir()
    path = write(inner, main=calling("main", f"'{reference}'"))
    (problem,) = refused(path)
    shown = reference.replace("\\", "\\\\")
    assert problem == (
        f'main.yaml:3:18: E1208 "{shown}" leaves the folder of the pipeline file; '
        "a child file is named `./…` and lies in the same folder or below"
    )


def test_input_34_links_are_not_followed(tmp_path: Path) -> None:
    """Neither as the file nor as a folder on the way, wherever they point."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x.yaml").write_text(LEAF)
    inner = tmp_path / "in"
    path = write(inner, main=calling("main", "./file.yaml", "./folder/x.yaml", "./same.yaml"), real=LEAF)
    (inner / "file.yaml").symlink_to(tmp_path / "out" / "x.yaml")
    (inner / "folder").symlink_to(tmp_path / "out")
    (inner / "same.yaml").symlink_to(inner / "real.yaml")
    problems = refused(path)
    assert [problem.split("; ")[0] for problem in problems] == [
        'main.yaml:3:18: E1208 "./file.yaml" goes through the link file.yaml',
        'main.yaml:4:18: E1208 "./folder/x.yaml" goes through the link folder',
        'main.yaml:5:18: E1208 "./same.yaml" goes through the link same.yaml',
    ]


def test_a_child_that_is_no_readable_file_is_reported_at_its_reference(tmp_path: Path) -> None:
    """Missing, a directory, a FIFO: without waiting."""
    path = write(tmp_path, main=calling("main", "./none.yaml", "./folder.yaml", "./fifo.yaml"))
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "fifo.yaml")
    assert refused(path) == [
        "main.yaml:3:18: E1209 cannot read the child pipeline none.yaml: No such file or directory",
        "main.yaml:4:18: E1209 cannot read the child pipeline folder.yaml: is not a regular file",
        "main.yaml:5:18: E1209 cannot read the child pipeline fifo.yaml: is not a regular file",
    ]
    with pytest.raises(InputFileError):
        load_bundle(tmp_path / "absent.yaml")


def test_problems_of_all_files_are_reported_together(tmp_path: Path) -> None:
    """Each in its own file."""
    path = write(
        tmp_path,
        main=calling("main", "./a.yaml", "./b.yaml") + "nope: 1\n",
        a="pipeline: A\nsteps: {w: {wait: {for: 1s}}}\n",
        b="x: &a 1\n",
    )
    assert [problem.split(" ")[0:2] for problem in refused(path)] == [
        ["a.yaml:1:11:", "E1106"],
        ["b.yaml:1:4:", "E1007"],
        ["main.yaml:6:1:", "E1101"],
    ]


def test_input_22_a_pipeline_that_calls_itself_is_refused(tmp_path: Path) -> None:
    """By whatever detour; and so is nesting deeper than ten."""
    path = write(tmp_path, main=calling("main", "./a.yaml"), a=calling("a", "./main.yaml"))
    assert refused(path) == ["a.yaml:3:18: E1210 the pipeline calls itself: main.yaml → a.yaml → main.yaml"]
    own = write(tmp_path / "own", main=calling("main", "./main.yaml"))
    assert refused(own) == ["main.yaml:3:18: E1210 the pipeline calls itself: main.yaml → main.yaml"]
    chain = {f"f{index}": calling(f"f{index}", f"./f{index + 1}.yaml") for index in range(12)}
    deep = write(tmp_path / "deep", main=calling("main", "./f0.yaml"), **chain, f12=LEAF)
    assert refused(deep) == ["f8.yaml:3:18: E1211 pipelines nested deeper than 10"]


def test_a_child_shared_by_many_is_loaded_once_and_costs_no_more(tmp_path: Path) -> None:
    """A diamond of ten levels has 1,024 ways to its end and eleven files."""
    files = {f"f{index}": calling(f"f{index}", f"./f{index + 1}.yaml", f"./f{index + 1}.yaml") for index in range(8)}
    path = write(tmp_path, main=calling("main", "./f0.yaml", "./f0.yaml"), **files, f8=LEAF)
    bundle = load_bundle(path)
    assert len(bundle.definition.files) == 9
    assert len(bundle.children) == 9
