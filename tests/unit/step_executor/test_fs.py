"""File tools: what they do, and that nothing leads out of the workspace."""

import asyncio
import json
import os
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.step_executor.builders import tool_call

from headrace.contracts.canonical import sha256_hex
from headrace.contracts.errors import AttemptError
from headrace.pipeline import json_schemas
from headrace.pipeline.builtin_tools import BUILTIN_TOOLS
from headrace_step_executor.tools import convert, fs_read, fs_write
from headrace_step_executor.tools.beneath import Workspace, open_beneath
from headrace_step_executor.tools.call import ToolCall

Tool = Callable[[ToolCall], Awaitable[Any]]
TOOLS: dict[str, Tool] = {
    "fs.read": fs_read.read, "fs.stat": fs_read.stat_, "fs.glob": fs_read.glob, "fs.grep": fs_read.grep,
    "fs.write": fs_write.write, "fs.append": fs_write.append, "fs.copy": fs_write.copy, "fs.move": fs_write.move,
    "fs.delete": fs_write.delete, "fs.convert": convert.convert,
}  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    made.mkdir()
    return made


async def use(tool: str, home: Path, *, read_roots: tuple[Path, ...] = (), **args: Any) -> Any:
    """The result, checked against the tool's own schema."""
    with tool_call(tool, home, read_roots=read_roots, **args) as call:
        result = await TOOLS[tool](call)
    assert json_schemas.errors(json_schemas.validator(BUILTIN_TOOLS[tool].result), result) == []
    return result


async def fails(tool: str, home: Path, code: str, *, read_roots: tuple[Path, ...] = (), **args: Any) -> AttemptError:
    with pytest.raises(AttemptError) as raised:
        await use(tool, home, read_roots=read_roots, **args)
    assert raised.value.attempt_code == code, raised.value
    return raised.value


async def test_what_is_written_is_read_in_every_format(home: Path) -> None:
    """Text, lines, JSON, JSON lines and base64, with size and hash."""
    written = await use("fs.write", home, path="d/e/a.txt", text="x\ny\n")
    assert written == {"path": "d/e/a.txt", "bytes": 4, "sha256": sha256_hex(b"x\ny\n")}
    assert (await use("fs.read", home, path="d/e/a.txt"))["content"] == "x\ny\n"
    assert (await use("fs.read", home, path="d/e/a.txt", format="lines"))["content"] == ["x", "y"]
    await use("fs.write", home, path="b.json", json={"a": [1, None]})
    assert (await use("fs.read", home, path="b.json", format="json"))["content"] == {"a": [1, None]}
    await use("fs.write", home, path="c.bin", base64="/wA=")
    assert (await use("fs.read", home, path="c.bin", format="base64"))["content"] == "/wA="
    await fails("fs.read", home, "not_text", path="c.bin")
    await use("fs.write", home, path="d.jsonl", text='{"a":1}\n\n2\n')
    assert (await use("fs.read", home, path="d.jsonl", format="jsonl"))["content"] == [{"a": 1}, 2]
    assert not [name for name in os.listdir(home) if name.startswith(".hr-tmp")]


async def test_writing_may_refuse_to_replace(home: Path) -> None:
    """`overwrite: false` meets an existing file with `exists` and leaves it as it was, and nothing behind."""
    await use("fs.write", home, path="a", text="1", overwrite=False)
    await fails("fs.write", home, "exists", path="a", text="2", overwrite=False)
    assert (home / "a").read_text() == "1"
    assert os.listdir(home) == ["a"]


async def test_append_copy_move_delete(home: Path) -> None:
    """Each changes what it says and gives the file as it is afterwards."""
    await use("fs.append", home, path="a", text="1")
    assert (await use("fs.append", home, path="a", text="2"))["sha256"] == sha256_hex(b"12")
    await use("fs.copy", home, from_="a", to="x/b")
    await use("fs.move", home, from_="x/b", to="c")
    await fails("fs.move", home, "exists", from_="a", to="c", overwrite=False)
    assert (home / "c").read_text() == "12"
    assert not (home / "x/b").exists()
    assert (await use("fs.delete", home, path="c"))["deleted"] is True
    assert (await use("fs.delete", home, path="c"))["deleted"] is False
    await fails("fs.delete", home, "not_found", path="c", missing_ok=False)


async def test_stat_tells_files_directories_and_what_is_missing(home: Path) -> None:
    """Missing is a result; a FIFO is something else than a file."""
    (home / "d").mkdir()
    os.mkfifo(home / "f")
    kinds = [(await use("fs.stat", home, path=path))["kind"] for path in ("d", "f", "no")]
    assert kinds == ["directory", "other", "missing"]


async def test_glob_lists_sorted_files_of_workspace_and_read_roots(home: Path, tmp_path: Path) -> None:
    """`**` crosses directories, hidden names and links are left out, a limit says that there was more."""
    granted = tmp_path / "granted"
    for path in ("src/a.py", "src/x/b.py", "src/x/.h.py", "src/c.txt"):
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text("")
    (granted / "src").mkdir(parents=True)
    (granted / "src/z.py").write_text("")
    (home / "src/link.py").symlink_to("/etc/passwd")
    (home / "src/loop").symlink_to(home)
    found = await use("fs.glob", home, read_roots=(granted,), pattern="src/**/*.py")
    assert found == {"paths": ["src/a.py", "src/x/b.py", "src/z.py"], "count": 3, "truncated": False}
    assert (await use("fs.glob", home, pattern="**", hidden=True))["count"] == 4
    assert (await use("fs.glob", home, pattern="**/" * 340 + "*.txt"))["paths"] == ["src/c.txt"]  # as deep as one `**`
    assert (await use("fs.glob", home, pattern="**/*.py", limit=1))["truncated"] is True
    assert (await use("fs.glob", home, pattern="*.py", dir="src/x"))["paths"] == ["src/x/b.py"]
    absolute = await use("fs.glob", home, read_roots=(granted,), pattern="**/*.py", dir=str(granted))
    assert absolute["paths"] == [f"{granted}/src/z.py"]
    read = await use("fs.read", home, read_roots=(granted,), path=absolute["paths"][0])
    assert read["bytes"] == 0
    await fails("fs.glob", home, "not_found", pattern="*", dir="nowhere")


async def test_grep_matches_in_linear_time(home: Path) -> None:
    """A pattern that makes a backtracking engine hang for hours answers at once; others are refused."""
    (home / "a.txt").write_text("one\n" + "a" * 5000 + "!\nTwo\n")
    (home / "b.bin").write_bytes(b"\xff\xfe two")
    hit = await use("fs.grep", home, pattern="^two$", ignore_case=True)
    assert hit["matches"] == [{"path": "a.txt", "line": 3, "text": "Two"}]
    assert (await use("fs.grep", home, pattern="(a+)+$"))["count"] == 0
    assert (await use("fs.grep", home, pattern=".", limit=2))["truncated"] is True
    await fails("fs.grep", home, "pattern_invalid", pattern="(?=a)b")


async def test_lines_end_where_editors_end_them(home: Path) -> None:
    """A form feed or a line separator inside a line is part of it; a carriage return before its end is not."""
    (home / "a.c").write_bytes("\ufeffone\r\n\fpage\n x\u2028y\x85z\nlast".encode())
    lines = (await use("fs.read", home, path="a.c", format="lines"))["content"]
    assert lines == ["one", "\fpage", " x\u2028y\x85z", "last"]
    hits = (await use("fs.grep", home, pattern="^(one|last)$"))["matches"]
    assert [hit["line"] for hit in hits] == [1, 4]
    (home / "a.json").write_text('[{"text": "x\u2028y\x85z"}]')
    await use("fs.convert", home, from_="a.json", to="a.jsonl")
    assert (await use("fs.read", home, path="a.jsonl", format="jsonl"))["content"] == [{"text": "x\u2028y\x85z"}]
    await use("fs.convert", home, from_="a.jsonl", to="b.json")
    assert json.loads((home / "b.json").read_text()) == [{"text": "x\u2028y\x85z"}]


async def test_convert_between_formats(home: Path) -> None:
    """Records keep their values between csv, jsonl and yaml; a broken row is named by its line."""
    (home / "a.csv").write_text('name,n\n"x, y",1\nz,2\n')
    assert (await use("fs.convert", home, from_="a.csv", to="a.jsonl"))["records"] == 2
    assert (home / "a.jsonl").read_text() == '{"name": "x, y", "n": "1"}\n{"name": "z", "n": "2"}\n'
    await use("fs.convert", home, from_="a.jsonl", to="a.yaml")
    await use("fs.convert", home, from_="a.yaml", to="b.csv")
    assert (home / "b.csv").read_text() == (home / "a.csv").read_text()
    (home / "bad.csv").write_text("a,b\n1\n")
    assert ":2:" in str(await fails("fs.convert", home, "records_invalid", from_="bad.csv", to="x.json"))
    (home / "bomb.yaml").write_text("- &a [1]\n- *a\n")
    await fails("fs.convert", home, "records_invalid", from_="bomb.yaml", to="x.json")


OUTSIDE = (
    "../secret",
    "a/../../secret",
    "/etc/passwd",
    "link",
    "dirlink/secret",
    "dirlink",
    "/proc/self/cwd/../etc/passwd",
)
IMPOSSIBLE = ("nul\0name", "x" * 300, "d/" + "y" * 300, "z/" * 3000, "bad\ud800name")


@pytest.mark.parametrize("path", OUTSIDE)
@pytest.mark.parametrize("tool", ["fs.read", "fs.stat", "fs.write", "fs.append", "fs.copy", "fs.move", "fs.delete"])
async def test_input_34_no_path_leads_out_of_the_workspace(home: Path, tmp_path: Path, tool: str, path: str) -> None:
    """`..`, absolute paths and links out are refused by the kernel; what lies outside stays as it was."""
    (tmp_path / "secret").write_text("secret")
    (home / "link").symlink_to(tmp_path / "secret")
    (home / "dirlink").symlink_to(tmp_path)
    (home / "own").write_text("mine")
    match tool:
        case "fs.write":
            args: dict[str, Any] = {"path": path, "text": "gone"}
            if path in (
                "link",
                "dirlink",
            ):  # replaced by a file of the workspace: the link is ours, its target is not
                await use(tool, home, **args)
                assert (tmp_path / "secret").read_text() == "secret"
                return
        case "fs.append":
            args = {"path": path, "text": "more"}
        case "fs.copy" | "fs.move":
            args = {"from_": path, "to": "own2"}
        case _:
            args = {"path": path}
    error = await fails(tool, home, "path_denied", **args)
    assert not error.attempt_retryable
    assert (tmp_path / "secret").read_text() == "secret"
    assert not (home / "own2").exists()


@pytest.mark.parametrize("path", IMPOSSIBLE)
@pytest.mark.parametrize("tool", ["fs.read", "fs.write", "fs.delete"])
async def test_input_34_impossible_names_are_refused(home: Path, tool: str, path: str) -> None:
    """NUL, 300 characters, endless paths and broken Unicode are `path_invalid`, before anything is opened."""
    args: dict[str, Any] = {"path": path} | ({"text": ""} if tool == "fs.write" else {})
    await fails(tool, home, "path_invalid", **args)
    assert os.listdir(home) == []


@pytest.mark.parametrize("tool", ["fs.read", "fs.append", "fs.copy", "fs.move", "fs.convert", "fs.delete"])
@pytest.mark.parametrize("kind", ["fifo", "socket", "directory"])
async def test_input_34_only_regular_files_are_opened(home: Path, tool: str, kind: str) -> None:
    """A FIFO, a socket or a directory is an error at once: nothing blocks and nothing acts."""
    with socket.socket(socket.AF_UNIX) as listening:
        match kind:
            case "fifo":
                os.mkfifo(home / "f.csv")
            case "socket":
                listening.bind(str(home / "f.csv"))
            case _:
                (home / "f.csv").mkdir()
        args: dict[str, Any] = {"path": "f.csv"}
        if tool in ("fs.copy", "fs.move", "fs.convert"):
            args = {"from_": "f.csv", "to": "g.json"}
        if tool == "fs.append":
            args["text"] = "x"
        async with asyncio.timeout(1):
            await fails(tool, home, "not_a_file", **args)


async def test_input_34_a_directory_swapped_for_a_link_gains_nothing(home: Path, tmp_path: Path) -> None:
    """While one thread swaps `d` between a directory and a link out, no read ever gives what lies outside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_text("secret")
    (home / "real").mkdir()
    (home / "real/f").write_text("own")
    (home / "out").symlink_to(outside)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            os.rename(home / "real", home / "d")
            os.rename(home / "d", home / "real")
            os.rename(home / "out", home / "d")
            os.rename(home / "d", home / "out")

    thread = threading.Thread(target=swap)
    thread.start()
    seen = set()
    try:
        for _ in range(3000):
            try:
                seen.add(Workspace(home).read("d/f", bytes_max=100))
            except AttemptError as error:
                seen.add(error.attempt_code.encode())
    finally:
        stop.set()
        thread.join()
    assert b"secret" not in seen
    assert seen <= {b"own", b"not_found", b"path_denied", b"not_a_file"}, seen


async def test_input_34_read_roots_can_be_read_and_not_written(home: Path, tmp_path: Path) -> None:
    """A granted directory is read by relative and absolute path; writing there is refused."""
    granted = tmp_path / "granted"
    granted.mkdir()
    (granted / "f").write_text("granted")
    (granted / "out").symlink_to("/etc")
    for path in ("f", str(granted / "f")):
        assert (await use("fs.read", home, read_roots=(granted,), path=path))["content"] == "granted"
    await fails("fs.write", home, "path_denied", read_roots=(granted,), path=str(granted / "g"), text="")
    await fails("fs.delete", home, "not_found", read_roots=(granted,), path="f", missing_ok=False)
    await fails("fs.read", home, "path_denied", read_roots=(granted,), path=f"{granted}/../granted/f")
    await fails("fs.read", home, "path_denied", read_roots=(granted,), path=f"{granted}/out/passwd")
    await fails("fs.read", home, "path_denied", read_roots=(granted,), path=f"{granted}2/f")


async def test_a_file_larger_than_asked_for_is_not_read(home: Path) -> None:
    """`max_bytes` counts what is read, not what the directory says."""
    (home / "f").write_bytes(b"x" * 11)
    await fails("fs.read", home, "too_large", path="f", max_bytes=10)
    assert (await use("fs.read", home, path="f", max_bytes=11))["bytes"] == 11


async def test_without_openat2_file_tools_refuse(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no weaker way: where the system call is missing nothing is opened."""
    monkeypatch.setattr("headrace_step_executor.tools.beneath._SYS_OPENAT2", 4_000)
    (home / "f").write_text("x")
    await fails("fs.read", home, "beneath_unavailable", path="f")
    with pytest.raises(AttemptError):
        open_beneath(os.open(home, os.O_RDONLY), "f", os.O_RDONLY)
