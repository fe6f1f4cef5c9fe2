"""`deploy`, `retire` and `triggers` as people type them, against one system."""

import datetime
import re
from pathlib import Path

from tests.e2e.command import Started, headrace, lines, until
from tests.e2e.pipelines import written

DAILY = """
pipeline: daily
triggers:
  - {cron: "30 2 * * *", timezone: Europe/Berlin, catch_up: none}
  - {event: pushed}
  - {cron: "*/5 * * * *"}
steps: {rest: {wait: {for: 1ms}}}
"""


def test_schedules_are_deployed_listed_paused_resumed_backfilled_and_retired(tmp_path: Path) -> None:
    """Each command says what it did; the list shows what follows; what makes no sense is 64, what is not there 65."""
    file = written(tmp_path, "daily.yaml", DAILY)
    with Started(tmp_path, "up") as system:
        system.until(lambda: any(line.startswith("ready: ") for line in system.lines), what="up")
        done = headrace(tmp_path, "deploy", str(file))
        assert re.fullmatch(r"deployed daily@[0-9a-f]{12}: 1 event triggers, 2 schedules\n", done.stdout), done
        until(lambda: _statuses(tmp_path) == ["armed", "armed"], within_s=20, what="armed")
        first, second = lines(headrace(tmp_path, "triggers", "--json").stdout)
        assert (first["cron"], first["timezone"], first["catch_up"]) == ("30 2 * * *", "Europe/Berlin", "none")
        assert (second["trigger"], second["timezone"], second["catch_up"]) == (1, "UTC", "once")
        assert datetime.datetime.fromisoformat(second["next"]).minute % 5 == 0

        assert (
            headrace(tmp_path, "triggers", "pause", "daily", "0").stdout == "pause of schedule 0 of daily is accepted\n"
        )
        until(lambda: _statuses(tmp_path) == ["paused", "armed"], within_s=20, what="paused")
        assert "all schedules of daily" in headrace(tmp_path, "triggers", "resume", "daily").stdout
        until(lambda: _statuses(tmp_path) == ["armed", "armed"], within_s=20, what="resumed")

        span = ("--from", "2026-03-01T00:00:00Z", "--to", "2026-03-03T00:00:00+01:00")
        assert headrace(tmp_path, "triggers", "backfill", "daily", "0", *span, "--json").returncode == 0
        until(lambda: _runs(tmp_path) == 2, within_s=30, what="backfilled")
        naive = headrace(tmp_path, "triggers", "backfill", "daily", "--from", "2026-03-01", "--to", "2026-03-02")
        assert (naive.returncode, "expected an instant with its offset" in naive.stderr) == (64, True), naive
        unknown = headrace(tmp_path, "triggers", "pause", "weekly")
        assert (unknown.returncode, "no schedule" in unknown.stderr) == (65, True), unknown

        assert headrace(tmp_path, "retire", "daily").stdout == "daily is retired\n"
        assert _statuses(tmp_path) == []
        gone = headrace(tmp_path, "submit", "daily")
        assert (gone.returncode, "daily" in gone.stderr) == (65, True), gone
        system.interrupt()
        assert system.wait(30) == 0


def _statuses(folder: Path) -> list[str]:
    return [row["status"] for row in lines(headrace(folder, "triggers", "--json").stdout)]


def _runs(folder: Path) -> int:
    return len(lines(headrace(folder, "runs", "--pipeline", "daily", "--status", "completed", "--json").stdout))
