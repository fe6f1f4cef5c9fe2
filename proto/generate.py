"""Write `asyncapi.json` and `schemas/` from the contracts, or say what differs.

python proto/generate.py            write
python proto/generate.py --check    write nothing; exit 1 when a file differs, is missing or is too many
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from headrace.contracts.schemas import asyncapi, schemas

HERE = Path(__file__).resolve().parent


def wanted() -> dict[Path, str]:
    """The text of every generated file."""
    files = {HERE / "asyncapi.json": _text(asyncapi())}
    for name, schema in schemas().items():
        files[HERE / "schemas" / f"{name}.json"] = _text(schema)
    return files


def _text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def differences(files: dict[Path, str]) -> list[str]:
    """One line for each file that is not as it should be."""
    found = []
    for path, text in files.items():
        name = path.relative_to(HERE)
        if not path.exists():
            found.append(f"{name} is missing")
        elif path.read_text() != text:
            found.append(f"{name} differs")
    found += [f"schemas/{path.name} is of no type" for path in (HERE / "schemas").glob("*.json") if path not in files]
    return sorted(found)


def main(arguments: list[str]) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description="Write proto/ from the contracts.")
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 on a difference")
    files = wanted()
    if parser.parse_args(arguments).check:
        found = differences(files)
        for line in found:
            print(line, file=sys.stderr)  # noqa: T201 - what a command says
        if found:
            print("run `python proto/generate.py` and commit the result", file=sys.stderr)  # noqa: T201 - as above
        return 1 if found else 0
    (HERE / "schemas").mkdir(exist_ok=True)
    for path in (HERE / "schemas").glob("*.json"):
        if path not in files:
            path.unlink()
    for path, text in files.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
