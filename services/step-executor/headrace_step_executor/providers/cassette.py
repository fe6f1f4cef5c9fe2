"""`cassette/FILE#PROVIDER/MODEL`: what a provider once answered, again, from a file of one JSON object a line.

Modes: `replay` answers from the file alone, `record` calls the provider and writes down what came, `auto` does so where
the file has no answer yet. A recording is found by the hash of its request: everything that the model would see, but
not the run, the step and the attempt that ask. Values of the provider's own options are kept as hashes, because keys
may be among them. A miss fails, and shows how the nearest recording differs.
"""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from headrace.contracts.canonical import canonical_json, sha256_hex
from headrace.contracts.errors import AttemptError
from headrace_step_executor.providers.failures import ProviderError, provider_error
from headrace_step_executor.providers.protocol import GenerateRequest, GenerateResponse, OnDelta, Provider

Mode = Literal["replay", "record", "auto"]
FILE_BYTES_MAX: Final = 32 * 1024 * 1024
FILES_MAX: Final = 8
"""Files held by one process; one that has grown is another."""
COMPARED_MAX: Final = 500
"""Recordings that a miss is compared with, the newest."""
DIFFERENCES_SHOWN: Final = 3
SHOWN_CHARS_MAX: Final = 60
WRITE_S: Final = 10.0
_FILE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


class RecordedError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A call that failed."""

    code: str
    message: str
    retryable: bool
    retry_after_ms: int = 0


class Recording(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of the file. Exactly one of `response` and `error` is there."""

    key: str
    request: dict[str, Any]
    response: GenerateResponse | None = None
    error: RecordedError | None = None
    pieces: tuple[str, ...] = ()
    """The words as they came, where they came in pieces."""


class CassetteProvider:
    """Answers from files, and writes them.

    Args:
        find: The provider of a name, for what is to be recorded.
        read: Name → bytes, confined to what the operator lets be read; raises AttemptError, `not_found` among them.
        append: (name, line) → written; None where nothing may be.
    """

    def __init__(
        self,
        find: Callable[[str], Provider],
        *,
        mode: Mode,
        read: Callable[[str], bytes],
        append: Callable[[str, bytes], Awaitable[None]] | None,
    ) -> None:
        self._find, self._mode, self._read, self._append = find, mode, read, append
        self._files: dict[tuple[str, int], dict[str, Recording]] = {}

    async def generate(
        self, request: GenerateRequest, *, deadline_s: float, on_delta: OnDelta | None = None
    ) -> GenerateResponse:
        """See Provider. `invalid_request` where nothing is recorded for the request."""
        file, _, model = request.model.partition("#")
        provider, _, rest = model.partition("/")
        if not file or not provider or not rest:
            msg = "invalid_request"
            raise provider_error(msg, f"cassette/{request.model[:100]}: expected cassette/FILE#PROVIDER/MODEL")
        asked = described(msgspec.structs.replace(request, model=model))
        key = sha256_hex(canonical_json(asked))
        if self._mode != "record":
            recordings = self._recordings(file, must_exist=self._mode == "replay")
            if key in recordings:
                return _again(recordings[key], request, on_delta)
            if self._mode == "replay":
                msg = "invalid_request"
                raise provider_error(msg, f"{file} has no answer to this request; {nearest(recordings, asked)}")
        return await self._recorded(
            file, key, asked, provider, msgspec.structs.replace(request, model=rest), deadline_s, on_delta
        )

    async def _recorded(  # what is written down and what is asked are two things
        self,
        file: str,
        key: str,
        asked: dict[str, Any],
        provider: str,
        request: GenerateRequest,
        deadline_s: float,
        on_delta: OnDelta | None,
    ) -> GenerateResponse:
        if self._append is None:
            msg = "invalid_request"
            raise provider_error(msg, "recording needs HEADRACE_CASSETTE_DIR, a folder to write into")
        pieces: list[str] = []

        def hear(piece: str) -> None:
            pieces.append(piece)
            if on_delta is not None:
                on_delta(piece)

        try:
            response = await self._find(provider).generate(
                request, deadline_s=deadline_s, on_delta=None if on_delta is None else hear
            )
        except ProviderError as error:
            failed = RecordedError(
                code=error.attempt_code,
                message=str(error)[:1000],
                retryable=error.attempt_retryable,
                retry_after_ms=error.retry_after_ms,
            )
            await self._append(file, _line(Recording(key=key, request=asked, error=failed, pieces=tuple(pieces))))
            raise
        await self._append(file, _line(Recording(key=key, request=asked, response=response, pieces=tuple(pieces))))
        return response

    def _recordings(self, name: str, *, must_exist: bool) -> dict[str, Recording]:
        try:
            data = self._read(name)
        except AttemptError as error:
            if must_exist or error.attempt_code != "not_found":
                raise
            return {}
        found = self._files.get((name, len(data)))  # lines are only ever added
        if found is None:
            found = parse_cassette(data, name)
            while len(self._files) >= FILES_MAX:
                del self._files[next(iter(self._files))]
            self._files[(name, len(data))] = found
        return found


def append_to(directory: Path) -> Callable[[str, bytes], Awaitable[None]]:
    """What adds lines to files in a folder, and nowhere else."""

    def write(name: str, line: bytes) -> None:
        if not _FILE_NAME.fullmatch(name):
            msg = "invalid_request"
            raise provider_error(msg, f"cassette {name[:100]!r}: recorded are plain file names, e.g. calls.jsonl")
        directory.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        found = os.open(directory / name, flags, 0o600)
        try:
            if os.fstat(found).st_size + len(line) > FILE_BYTES_MAX:
                msg = "invalid_request"
                raise provider_error(msg, f"cassette {name} is full at {FILE_BYTES_MAX} bytes")
            os.write(found, line)  # one write: lines of several processes do not mix
        finally:
            os.close(found)

    async def append(name: str, line: bytes) -> None:
        async with asyncio.timeout(WRITE_S):
            await asyncio.to_thread(write, name, line)

    return append


def parse_cassette(data: bytes, name: str) -> dict[str, Recording]:
    """Recordings by key; of two for one request the later.

    Raises:
        ProviderError: `invalid_request` with the line that is no recording.
    """
    found = {}
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            recording = msgspec.json.decode(line, type=Recording)
        except msgspec.MsgspecError as error:
            msg = "invalid_request"
            raise provider_error(msg, f"{name}:{number}: no recording: {error}") from error
        found[recording.key] = recording
    return found


def described(request: GenerateRequest) -> dict[str, Any]:
    """What of a request decides its answer, as JSON. Options are hashed."""
    whole: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(request, key="", attempt=1, options={}))
    options = {name: sha256_hex(canonical_json(value))[:16] for name, value in request.options.items()}
    return whole | ({"options": options} if options else {})


def nearest(recordings: dict[str, Recording], asked: dict[str, Any]) -> str:
    """How the recording that is most like a request differs from it, in words."""
    if not recordings:
        return "it has no recordings at all"
    wanted = dict(_leaves(asked, "$"))
    best: tuple[int, dict[str, Any]] | None = None
    for recording in list(recordings.values())[-COMPARED_MAX:]:
        leaves = dict(_leaves(recording.request, "$"))
        same = sum(1 for place, value in wanted.items() if leaves.get(place) == value)
        score = 2 * same - len(leaves)
        if best is None or score > best[0]:
            best = (score, leaves)
    assert best is not None
    places = [place for place in {**wanted, **best[1]} if wanted.get(place) != best[1].get(place)]
    shown = [
        f"{place}: recorded {_short(best[1].get(place))}, asked {_short(wanted.get(place))}"
        for place in places[:DIFFERENCES_SHOWN]
    ]
    more = f"; and {len(places) - DIFFERENCES_SHOWN} more" if len(places) > DIFFERENCES_SHOWN else ""
    return f"the nearest differs at {'; '.join(shown)}{more}"


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _leaves(item, f"{place}.{name}")
    elif isinstance(value, list | tuple) and value:
        for index, item in enumerate(value):
            yield from _leaves(item, f"{place}[{index}]")
    else:
        yield place, value


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return repr(text if len(text) <= SHOWN_CHARS_MAX else text[:SHOWN_CHARS_MAX] + "…")


def _again(recording: Recording, request: GenerateRequest, on_delta: OnDelta | None) -> GenerateResponse:
    if on_delta is not None:
        words = recording.pieces or ((recording.response.text,) if recording.response is not None else ())
        for piece in words:
            on_delta(piece)
    if recording.error is not None:
        failed = recording.error
        raise provider_error(
            failed.code, failed.message, retryable=failed.retryable, retry_after_ms=failed.retry_after_ms
        )
    if recording.response is None:
        msg = "invalid_request"
        raise provider_error(msg, f"{request.model[:100]}: a recording without an answer")
    model = f"cassette/{request.model}"
    usage = msgspec.structs.replace(recording.response.usage, model=model)
    return msgspec.structs.replace(recording.response, model=model, usage=usage, quota=None)


def _line(recording: Recording) -> bytes:
    return msgspec.json.encode(recording) + b"\n"
