"""`fs.write`, `fs.append`, `fs.copy`, `fs.move`, `fs.delete`: changing files of the workspace alone."""

import base64
import binascii
import json
import os
import secrets
from typing import Any, Final

from headrace.contracts import names
from headrace.contracts.canonical import sha256_hex
from headrace.contracts.errors import AttemptError
from headrace_step_executor.tools.beneath import (
    READING,
    TEMPORARY,
    Workspace,
    file_error,
    open_beneath,
    read_all,
    require_file,
)
from headrace_step_executor.tools.call import ToolCall, in_thread, refuse

FILE_BYTES_MAX: Final = names.VALUE_BYTES_MAX
"""A file that tools make is no larger than a value."""


async def write(call: ToolCall) -> Any:
    """`fs.write`."""
    return await in_thread(call, lambda: _write(call))


async def append(call: ToolCall) -> Any:
    """`fs.append`."""
    return await in_thread(call, lambda: _append(call))


async def copy(call: ToolCall) -> Any:
    """`fs.copy`."""
    return await in_thread(call, lambda: _copy(call))


async def move(call: ToolCall) -> Any:
    """`fs.move`."""
    return await in_thread(call, lambda: _move(call))


async def delete(call: ToolCall) -> Any:
    """`fs.delete`."""
    return await in_thread(call, lambda: _delete(call))


def _write(call: ToolCall) -> dict[str, Any]:
    args = call.args
    if "json" in args:
        data = (json.dumps(args["json"], indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
    elif "base64" in args:
        try:
            data = base64.b64decode(args["base64"], validate=True)
        except (binascii.Error, ValueError) as error:
            msg = "tool_args_invalid"
            raise refuse(msg, f"base64: {error}") from error
    else:
        data = args["text"].encode()
    return store(call.workspace, args["path"], data, overwrite=args["overwrite"])


def store(workspace: Workspace, path: str, data: bytes, *, overwrite: bool = True) -> dict[str, Any]:
    """Write a file whole: readers see the old content or the new one. Gives the tools' usual result."""
    if len(data) > FILE_BYTES_MAX:
        msg = "too_large"
        raise refuse(msg, f"{path[:200]!a}: more than {FILE_BYTES_MAX} bytes")
    with workspace.parent(path) as (above, name):
        temporary = TEMPORARY + secrets.token_hex(8)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = open_beneath(above, temporary, flags, 0o644)
        try:
            try:
                _write_all(descriptor, data)
            finally:
                os.close(descriptor)
            _put_in_place(above, temporary, name, overwrite=overwrite)
        except OSError as error:
            _discard(above, temporary)
            raise file_error(error, path) from error
    return _written(path, data)


def _put_in_place(above: int, temporary: str, name: str, *, overwrite: bool) -> None:
    if overwrite:
        os.rename(temporary, name, src_dir_fd=above, dst_dir_fd=above)
        return
    os.link(temporary, name, src_dir_fd=above, dst_dir_fd=above, follow_symlinks=False)
    os.unlink(temporary, dir_fd=above)


def _discard(above: int, temporary: str) -> None:
    try:
        os.unlink(temporary, dir_fd=above)
    except FileNotFoundError:
        return


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view[: 1 << 20]) :]


def _written(path: str, data: bytes) -> dict[str, Any]:
    return {"path": path, "bytes": len(data), "sha256": sha256_hex(data)}


def _append(call: ToolCall) -> dict[str, Any]:
    path, data = call.args["path"], call.args["text"].encode()
    with call.workspace.parent(path) as (above, name):
        # Non-blocking, so that a FIFO of that name is an error and not a wait.
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = open_beneath(above, name, flags, 0o644)
        try:
            status = os.fstat(descriptor)
            require_file(status, path)
            if status.st_size + len(data) > FILE_BYTES_MAX:
                msg = "too_large"
                raise refuse(msg, f"{path[:200]!a}: would be more than {FILE_BYTES_MAX} bytes")
            _write_all(descriptor, data)
            os.lseek(descriptor, 0, os.SEEK_SET)
            return _written(path, read_all(descriptor, path, bytes_max=FILE_BYTES_MAX))
        except OSError as error:
            raise file_error(error, path) from error
        finally:
            os.close(descriptor)


def _copy(call: ToolCall) -> dict[str, Any]:
    data = call.workspace.read(call.args["from"], bytes_max=FILE_BYTES_MAX)
    return store(call.workspace, call.args["to"], data, overwrite=call.args["overwrite"])


def _move(call: ToolCall) -> dict[str, Any]:
    source, target = call.args["from"], call.args["to"]
    with (
        call.workspace.parent(source) as (above, name),
        call.workspace.parent(target) as (above_target, target_name),
    ):
        descriptor = open_beneath(above, name, READING)
        try:
            require_file(os.fstat(descriptor), source)
            data = read_all(descriptor, source, bytes_max=FILE_BYTES_MAX)
        finally:
            os.close(descriptor)
        try:
            if call.args["overwrite"]:
                os.rename(name, target_name, src_dir_fd=above, dst_dir_fd=above_target)
            else:
                os.link(name, target_name, src_dir_fd=above, dst_dir_fd=above_target, follow_symlinks=False)
                os.unlink(name, dir_fd=above)
        except OSError as error:
            raise file_error(error, target) from error
    return _written(target, data)


def _delete(call: ToolCall) -> dict[str, Any]:
    path = call.args["path"]
    try:
        with call.workspace.opened_home(path, os.O_PATH | os.O_CLOEXEC) as found:
            require_file(os.fstat(found), path)
        with call.workspace.parent(path) as (above, name):
            os.unlink(name, dir_fd=above)
    except (AttemptError, OSError) as error:
        failure = file_error(error, path) if isinstance(error, OSError) else error
        if failure.attempt_code != "not_found" or not call.args["missing_ok"]:
            raise failure from error
        return {"path": path, "deleted": False}
    return {"path": path, "deleted": True}
