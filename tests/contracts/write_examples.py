"""Add the examples that are missing: `python -m tests.contracts.write_examples`. What is there is never touched.

Examples are append-only from the first tagged release on, because every version ever released must decode for ever.
Until then a changed wire format may delete an example and its line in SHA256SUMS, and run this again.
"""

import json
import sys
from pathlib import Path

from tests.builders import examples

from headrace.contracts.canonical import sha256_hex
from headrace.contracts.codec import encode

EXAMPLES = Path(__file__).resolve().parents[2] / "proto" / "examples"
SUMS = EXAMPLES / "SHA256SUMS"


def recorded() -> dict[str, str]:
    """Path below `proto/examples` → sha256, as written down."""
    lines = SUMS.read_text().splitlines() if SUMS.exists() else []
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def main() -> int:
    """Write what is missing."""
    for kind, example in examples().items():
        folder = EXAMPLES / kind
        if folder.exists() and any(folder.glob("*.json")):
            continue
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(json.loads(encode(example)), indent=2, ensure_ascii=False) + "\n"
        (folder / "0001.json").write_text(text)
    found = {path.relative_to(EXAMPLES).as_posix(): sha256_hex(path.read_bytes()) for path in EXAMPLES.glob("*/*.json")}
    sums = found | recorded()
    SUMS.write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
