"""Compressed bodies, taken apart piece by piece: never more in memory than may be kept."""

import zlib
from typing import Final

from headrace_step_executor.tools.call import refuse, try_later

_GZIP_WBITS: Final = 31
_WIRE_SPARE: Final = 64 * 1024
"""Compressed bytes beyond twice the cap: nothing honest needs them, members without content could go on for ever."""
_WBITS: Final = {"gzip": _GZIP_WBITS, "x-gzip": _GZIP_WBITS, "deflate": 15}


class Inflated:
    """Collects a body of at most `bytes_max`, decompressed. Several gzip members, one after the other, are one body.

    Raises (all of it):
        AttemptError: `too_large` at the first byte too many; `malformed` for what is not as it claims.
    """

    def __init__(self, encoding: str, *, bytes_max: int) -> None:
        self._max, self._size, self._chunks = bytes_max, 0, list[bytes]()
        self._fed, self._wbits = 0, 0
        name = encoding.strip().lower()
        if name in ("", "identity"):
            self._inflate: zlib._Decompress | None = None
        elif name in _WBITS:
            self._wbits = _WBITS[name]
            self._inflate = zlib.decompressobj(self._wbits)
        else:
            msg = "malformed"
            raise try_later(msg, f"content-encoding {name[:60]!r} was not asked for")

    def feed(self, data: bytes) -> None:
        """Take the next piece as it came."""
        if self._inflate is None:
            self._keep(data)
            return
        self._fed += len(data)
        if self._fed > 2 * self._max + _WIRE_SPARE:
            msg = "too_large"
            raise refuse(msg, f"the compressed body is more than twice as large as the {self._max} bytes it may become")
        try:
            while data:
                if self._inflate.eof:  # what follows would be collected unread by the one that is done
                    self._inflate = self._next_member()
                # One byte more than there is room for tells too much from just enough.
                self._keep(self._inflate.decompress(data, self._max - self._size + 1))
                data = self._inflate.unconsumed_tail or self._inflate.unused_data
        except zlib.error as error:
            msg = "malformed"
            raise try_later(msg, f"the compressed body is damaged: {error}") from error

    def finish(self) -> bytes:
        """The whole body."""
        if self._inflate is not None and not self._inflate.eof and self._fed:
            msg = "malformed"
            raise try_later(msg, "the compressed body ends too early")
        return b"".join(self._chunks)

    def _next_member(self) -> "zlib._Decompress":
        if self._wbits != _GZIP_WBITS:
            msg = "malformed"
            raise try_later(msg, "the compressed body goes on after its end")
        return zlib.decompressobj(self._wbits)

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._max:
            msg = "too_large"
            raise refuse(msg, f"the body is larger than {self._max} bytes")
        self._chunks.append(piece)
