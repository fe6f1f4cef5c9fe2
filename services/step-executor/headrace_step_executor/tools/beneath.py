"""Files below a directory, and nowhere else: the kernel keeps the border, not a comparison of text.

Every open goes through openat2(2) with RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS and RESOLVE_NO_MAGICLINKS,
relative to a directory that was opened before. There is no way out by `..`, by a link, or by swapping a
directory for a link in between. Where the kernel has no openat2 (before Linux 5.6, other systems, a seccomp
filter that forbids it) file tools refuse to work.
"""

import ctypes
import errno
import functools
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from headrace.contracts.errors import AttemptError

_SYS_OPENAT2: Final = 437
"""The same number on every architecture but Alpha."""
_BENEATH: Final = 0x08 | 0x04 | 0x02
"""RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_MAGICLINKS."""
PATH_CHARS_MAX: Final = 4096
NAME_BYTES_MAX: Final = 255
DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
READING: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
"""Non-blocking: opening a FIFO that nobody writes to must not hang the thread."""
TEMPORARY: Final = ".hr-tmp-"
"""Names that start so are files half written; listings leave them out."""
_TRIES_MAX: Final = 8
"""openat2 says EAGAIN when a rename crosses it; more than a few in a row is somebody trying."""


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


@functools.cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def open_beneath(directory: int, path: str, flags: int, mode: int = 0) -> int:
    """A descriptor of `path` below an open directory.

    Raises:
        AttemptError: `path_denied`, `not_found` and the like; `beneath_unavailable` without the system call.
    """
    how = _OpenHow(flags, mode, _BENEATH)
    name = ctypes.c_char_p(os.fsencode(path))
    for _ in range(_TRIES_MAX):
        found = _libc().syscall(
            ctypes.c_long(_SYS_OPENAT2),
            ctypes.c_int(directory),
            name,
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if found >= 0:
            return int(found)
        number = ctypes.get_errno()
        if number not in (errno.EAGAIN, errno.EINTR):
            break
    if number in (errno.ENOSYS, errno.EPERM):
        message = "file tools need openat2(2), which this kernel or its seccomp filter does not offer"
        msg = "beneath_unavailable"
        raise AttemptError(msg, message, retryable=False)
    raise file_error(OSError(number, os.strerror(number)), path)


_CODES: Final = {
    errno.ENOENT: "not_found",
    errno.ENOTDIR: "not_found",
    errno.EEXIST: "exists",
    errno.ELOOP: "path_denied",
    errno.EXDEV: "path_denied",
    errno.EACCES: "path_denied",
    errno.EPERM: "path_denied",
    errno.EROFS: "path_denied",
    errno.ENAMETOOLONG: "path_invalid",
    errno.EINVAL: "path_invalid",
    errno.EISDIR: "not_a_file",
    errno.ENXIO: "not_a_file",
    errno.ENOTEMPTY: "not_a_file",
}
_LATER: Final = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM)


def file_error(error: OSError, path: str) -> AttemptError:
    """An operating system's error as an attempt's. A full disk may be emptied; a denied path stays so."""
    number = error.errno or 0
    code = _CODES.get(number, "storage_full" if number in (errno.ENOSPC, errno.EDQUOT) else "file_error")
    hint = " (links are not followed)" if number == errno.ELOOP else ""
    shown = ascii(path[:200])
    return AttemptError(code, f"{shown}: {os.strerror(number)}{hint}", retryable=number in _LATER)


def checked_parts(path: str) -> tuple[str, ...]:
    """The names of a relative path; none of them is empty, `.` or `..`.

    Raises:
        AttemptError: `path_denied` for what would lead out, `path_invalid` for what no file can be called.
    """
    shown = ascii(path[:200])
    if "\0" in path or len(path) > PATH_CHARS_MAX:
        msg = "path_invalid"
        raise AttemptError(msg, f"{shown}: no NUL and at most {PATH_CHARS_MAX} characters", retryable=False)
    if path.startswith("/"):
        msg = "path_denied"
        raise AttemptError(msg, f"{shown}: an absolute path outside what this run may use", retryable=False)
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    if ".." in parts:
        msg = "path_denied"
        raise AttemptError(msg, f"{shown}: `..` is not followed", retryable=False)
    for part in parts:
        try:
            size = len(os.fsencode(part))
        except UnicodeEncodeError as error:
            msg = "path_invalid"
            raise AttemptError(msg, f"{shown}: not valid Unicode", retryable=False) from error
        if size > NAME_BYTES_MAX:
            msg = "path_invalid"
            raise AttemptError(msg, f"{shown}: a name of more than {NAME_BYTES_MAX} bytes", retryable=False)
    return parts


class Workspace:
    """A run's own directory, and the directories it may read besides. Blocking: use it in a thread.

    The home is made when something is first written. A relative path is read from the home, else from the
    first read root that has it; an absolute one from its read root. Writing happens in the home alone.
    """

    def __init__(self, home: Path | str | None, read_roots: tuple[Path, ...] = ()) -> None:
        self._home, self.read_roots = home, read_roots

    @property
    def home(self) -> Path | None:
        """The run's own directory; None where it has none."""
        return None if self._home is None else Path(self._home)

    def candidates(self, path: str) -> list[tuple[Path, str]]:
        """(directory, path below it) to look at, in this order. Raises AttemptError where there is none."""
        if not path.startswith("/"):
            below = "/".join(checked_parts(path)) or "."
            return [(root, below) for root in (self.home, *self.read_roots) if root is not None]
        found = []
        for root in self.read_roots:
            inside = _below(path, str(root))
            if inside is not None:
                found.append((root, "/".join(checked_parts(inside)) or "."))
        return found or [(Path(), "/".join(checked_parts(path)))]  # the check refuses every absolute path

    @contextmanager
    def opened(self, path: str, flags: int) -> Iterator[int]:
        """A descriptor of the first candidate that exists, closed afterwards. Raises AttemptError."""
        for root, below in self.candidates(path):
            try:
                with directory(root) as base:
                    found = open_beneath(base, below, flags)
            except AttemptError as error:
                if error.attempt_code != "not_found":
                    raise
                continue
            try:
                yield found
            finally:
                os.close(found)
            return
        msg = "not_found"
        raise AttemptError(msg, f"{path[:200]!a}: no such file or directory", retryable=False)

    @contextmanager
    def opened_home(self, path: str, flags: int) -> Iterator[int]:
        """A descriptor of a path in the home alone, closed afterwards. Raises AttemptError."""
        with Workspace(self.home).opened("/".join(checked_parts(path)) or ".", flags) as found:
            yield found

    def read(self, path: str, *, bytes_max: int) -> bytes:
        """The whole of a regular file.

        Raises:
            AttemptError: `too_large`, `not_a_file`, `not_found`, `path_denied`, …
        """
        with self.opened(path, os.O_PATH | os.O_CLOEXEC) as peek:
            require_file(os.fstat(peek), path)  # before the real open: opening a device may already do something
        with self.opened(path, READING) as found:
            status = os.fstat(found)
            require_file(status, path)
            return read_all(found, path, bytes_max=bytes_max)

    @contextmanager
    def parent(self, path: str) -> Iterator[tuple[int, str]]:
        """(open directory, name) for writing `path` in the home; directories on the way are made."""
        if self.home is None:
            msg = "path_denied"
            raise AttemptError(msg, "this step has no workspace to write in", retryable=False)
        *above, name = checked_parts(path) or ("",)
        if not name:
            msg = "path_invalid"
            raise AttemptError(msg, f"{path[:200]!a}: names no file in the workspace", retryable=False)
        try:
            self.home.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise file_error(error, path) from error
        with directory(self.home) as base:
            current = os.dup(base)
            try:
                for part in above:
                    deeper = _enter(current, part, path)
                    os.close(current)
                    current = deeper
                yield current, name
            finally:
                os.close(current)


@contextmanager
def directory(path: Path) -> Iterator[int]:
    """A descriptor of a directory that the operator named; `not_found` where it is missing."""
    try:
        found = os.open(path, DIRECTORY)
    except OSError as error:
        raise file_error(error, path.name) from error
    try:
        yield found
    finally:
        os.close(found)


def require_file(status: os.stat_result, path: str) -> None:
    """Refuse what is no regular file: a FIFO blocks, a device acts, a directory has no content."""
    if not stat.S_ISREG(status.st_mode):
        msg = "not_a_file"
        raise AttemptError(msg, f"{path[:200]!a}: not a regular file", retryable=False)


def read_all(descriptor: int, path: str, *, bytes_max: int) -> bytes:
    """Everything behind a descriptor, as long as it is at most `bytes_max`."""
    chunks: list[bytes] = []
    left = bytes_max + 1
    try:
        while left > 0 and (chunk := os.read(descriptor, min(left, 1 << 20))):
            chunks.append(chunk)
            left -= len(chunk)
    except OSError as error:
        raise file_error(error, path) from error
    if left <= 0:
        msg = "too_large"
        raise AttemptError(msg, f"{path[:200]!a}: larger than {bytes_max} bytes", retryable=False)
    return b"".join(chunks)


def _enter(current: int, name: str, path: str) -> int:
    try:
        return open_beneath(current, name, DIRECTORY)
    except AttemptError as error:
        if error.attempt_code != "not_found":
            raise
    try:
        os.mkdir(name, mode=0o755, dir_fd=current)
    except FileExistsError:
        pass  # another step made it at the same moment, or it is no directory: the open below tells
    except OSError as error:
        raise file_error(error, path) from error
    return open_beneath(current, name, DIRECTORY)


def _below(path: str, root: str) -> str | None:
    """What is left of an absolute path inside `root`, as text; the kernel checks the rest."""
    if path == root:
        return ""
    prefix = root.rstrip("/") + "/"
    return path[len(prefix) :] if path.startswith(prefix) else None
