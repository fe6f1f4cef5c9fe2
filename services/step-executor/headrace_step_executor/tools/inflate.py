"""Compressed bodies, taken apart piece by piece: never more in memory than may be kept."""

import zlib
from typing import Final

from headrace_step_executor.tools.call import refuse, try_later

_WBITS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}


class Inflated:
    """Collects a body of at most `bytes_max`, decompressed.

    Raises (all of it):
        AttemptError: `too_large` at the first byte too many; `malformed` for what is not as it claims.
    """

    def __init__(self, encoding: str, *, bytes_max: int) -> None:
        self._max, self._size, self._chunks = bytes_max, 0, list[bytes]()
        name = encoding.strip().lower()
        if name in ("", "identity"):
            self._inflate: zlib._Decompress | None = None
        elif name in _WBITS:
            self._inflate = zlib.decompressobj(_WBITS[name])
        else:
            msg = "malformed"
            raise try_later(msg, f"content-encoding {name[:60]!r} was not asked for")

    def feed(self, data: bytes) -> None:
        """Take the next piece as it came."""
        if self._inflate is None:
            self._keep(data)
            return
        try:
            while data:
                # One byte more than there is room for tells too much from just enough.
                self._keep(self._inflate.decompress(data, self._max - self._size + 1))
                data = self._inflate.unconsumed_tail
        except zlib.error as error:
            msg = "malformed"
            raise try_later(msg, f"the compressed body is damaged: {error}") from error

    def finish(self) -> bytes:
        """The whole body."""
        if self._inflate is not None and not self._inflate.eof and self._size:
            msg = "malformed"
            raise try_later(msg, "the compressed body ends too early")
        return b"".join(self._chunks)

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._max:
            msg = "too_large"
            raise refuse(msg, f"the body is larger than {self._max} bytes")
        self._chunks.append(piece)
