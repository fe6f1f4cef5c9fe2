"""A process that renders, one job after the other, so that large ones neither stop the loop nor outlive
their attempt.

Frames on stdin and stdout: eight bytes of length, then msgpack. `python -m
headrace_step_executor.render_worker`.
"""

import os
import resource
import struct
import sys
from typing import Final

import msgspec

from headrace_step_executor.render import RenderJob, render

LENGTH: Final = struct.Struct(">Q")
FRAME_BYTES_MAX: Final = 512 * 1024 * 1024
"""Several of the largest values; more is no frame of ours."""
MEMORY_BYTES_MAX: Final = 4 * 1024 * 1024 * 1024
"""Address space. A rendering that wants more fails alone, instead of taking the executor with it."""


def main() -> int:
    """Work until stdin ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not damage a frame
    decoder = msgspec.msgpack.Decoder(RenderJob)
    while True:
        head = source.read(LENGTH.size)
        if len(head) < LENGTH.size:
            return 0
        (size,) = LENGTH.unpack(head)
        if size > FRAME_BYTES_MAX:
            return 1
        answer = msgspec.msgpack.encode(render(decoder.decode(source.read(size))))
        sink.write(LENGTH.pack(len(answer)) + answer)
        sink.flush()


if __name__ == "__main__":
    sys.exit(main())
