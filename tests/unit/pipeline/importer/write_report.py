"""Writes the golden report as it is said now: `python -m tests.unit.pipeline.importer.write_report`. Read the diff."""

from tests.unit.pipeline.importer.test_files import GOLDEN, converted, report

if __name__ == "__main__":
    GOLDEN.write_text(report(converted()), encoding="utf-8")
