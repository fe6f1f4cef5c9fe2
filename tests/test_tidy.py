"""Style as a test: sizes, names, reasons, links, and what must never be in a tracked file."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = sorted(path for top in ("libs", "services") for path in (ROOT / top).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 500
README_LINES_MAX = 180
DRAWERS = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager", "managers", "stuff"}

CONFIGURED = ("monitor", "scheduler", "session_store", "tool_registry")
TESTED_BY = {
    "headrace/cli/tool_words": "e2e/test_readme.py",
    "headrace/cli/tools": "integration/client/test_mcp_link.py",
    "headrace/client/mcp_servers": "integration/client/test_mcp_link.py",
    "headrace/contracts/tools": "unit/tool_registry/test_state.py",
    "headrace/contracts/rounds": "integration/executor/test_model_loop.py",
    "headrace_step_executor/model_tools": "integration/executor/test_model_loop.py",
    "headrace_step_executor/round_log": "integration/executor/test_model_loop.py",
    "headrace/client/service_protocol": "integration/client/test_worker.py",
    # the parts of the importer are tested by what becomes of old files
    "headrace/pipeline/importer/cel_forms": "unit/pipeline/importer/test_formula.py",
    "headrace/pipeline/importer/claude_options": "unit/pipeline/importer/test_model_steps.py",
    "headrace/pipeline/importer/outputs": "unit/pipeline/importer/test_templates.py",
    "headrace/pipeline/importer/scope": "unit/pipeline/importer/test_templates.py",
    "headrace/pipeline/importer/sources": "unit/pipeline/importer/test_value_steps.py",
    "headrace/pipeline/importer/unit": "unit/pipeline/importer/test_steps.py",
    # parts of one pure core, tested as the one thing that they are
    "headrace_scheduler/asking": "unit/scheduler/test_nesting.py",
    "headrace_scheduler/containers": "unit/scheduler/test_nesting.py",
    "headrace_scheduler/ends": "unit/scheduler/test_nesting.py",
    "headrace_scheduler/answering": "unit/scheduler/test_approvals.py",
    "headrace_scheduler/approval_intake": "integration/scheduler/test_approve_command.py",
    "headrace_scheduler/emits": "unit/scheduler/test_emitting.py",
    "headrace_scheduler/outbox": "unit/scheduler/test_emitting.py",
    "headrace_scheduler/questions": "unit/scheduler/test_approvals.py",
    "headrace_scheduler/reuse": "unit/scheduler/test_caching.py",
    "headrace_scheduler/signalling": "unit/scheduler/test_signals.py",
    "headrace_scheduler/instances": "unit/scheduler/test_state.py",
    # reasons and the index that they are told from have no meaning but in what is explained
    "headrace/client/chronicle": "unit/client/test_explain.py",
    "headrace/client/explain_steps": "unit/client/test_explain.py",
    "headrace/client/reasons": "unit/client/test_explain.py",
    # a command that is refused for several reasons is seen in its answer
    "headrace_scheduler/refusal": "integration/scheduler/test_intake.py",
    "headrace_scheduler/fork_intake": "integration/services/test_forking.py",
    # the command line is tested as a command, because that is what it is
    "headrace/cli/admin": "e2e/test_exit_codes.py",
    "headrace/cli/app": "e2e/test_exit_codes.py",
    "headrace/cli/check": "e2e/test_exit_codes.py",
    "headrace/cli/app_history": "e2e/test_explaining.py",
    "headrace/cli/branching": "e2e/test_explaining.py",
    "headrace/cli/connection": "e2e/test_exit_codes.py",
    "headrace/cli/control": "e2e/test_up.py",
    "headrace/cli/generating": "e2e/test_generate.py",
    "headrace/cli/here": "e2e/test_run.py",
    "headrace/cli/primer": "e2e/test_generate.py",
    "headrace/cli/schedule_words": "e2e/test_triggers.py",
    "headrace/cli/doctor": "e2e/test_up.py",
    "headrace/cli/explaining": "e2e/test_explaining.py",
    "headrace/cli/importing": "e2e/test_import.py",
    "headrace/cli/inspect": "e2e/test_up.py",
    "headrace/cli/interrupt": "e2e/test_run.py",
    "headrace/cli/local": "e2e/test_up.py",
    "headrace/cli/budgets": "e2e/test_budget.py",
    "headrace/cli/pricing": "e2e/test_budget.py",
    "headrace/cli/progress": "e2e/test_terminal.py",
    "headrace/cli/run": "e2e/test_run.py",
    "headrace/cli/watching": "e2e/test_run.py",
    "headrace/cli/words": "e2e/test_exit_codes.py",
    "headrace/local/child": "e2e/test_kill.py",
    "headrace/local/embedded": "e2e/test_run.py",
    "headrace/local/files": "e2e/test_run.py",
    "headrace/local/procs": "e2e/test_up.py",
    "headrace/runtime/loop": "e2e/test_run.py",
    # messages are tested as what they are on the wire: examples, schemas, round trips
    "headrace/contracts/channels": "contracts/test_schemas.py",
    "headrace/contracts/commands": "contracts/test_codec.py",
    "headrace/contracts/conversations": "contracts/test_codec.py",
    "headrace/contracts/decisions": "contracts/test_codec.py",
    "headrace/contracts/envelope": "contracts/test_codec.py",
    "headrace/contracts/events": "contracts/test_codec.py",
    "headrace/contracts/failure": "contracts/test_errors.py",
    "headrace/contracts/instants": "unit/runtime/test_clock.py",
    "headrace/contracts/live": "contracts/test_schemas.py",
    "headrace/contracts/money": "unit/pipeline/test_prices.py",
    "headrace/contracts/names": "contracts/test_schemas.py",
    "headrace/contracts/system": "contracts/test_codec.py",
    "headrace/contracts/pseudo": "contracts/test_codec.py",
    "headrace/contracts/run_inputs": "contracts/test_codec.py",
    # the language's table, what checking gives, and which names are known where, show in what is accepted and refused
    "headrace/pipeline/checked": "unit/pipeline/test_numbering.py",
    "headrace/pipeline/cache_rules": "unit/pipeline/test_bad_files.py",
    "headrace/pipeline/cycles": "unit/pipeline/test_graph.py",
    "headrace/pipeline/price_files": "unit/pipeline/test_prices.py",
    "headrace/pipeline/published_schema": "unit/pipeline/test_schema.py",
    "headrace/pipeline/scopes": "unit/pipeline/test_lookups.py",
    "headrace/pipeline/shapes": "unit/pipeline/test_schema.py",
    # one suite holds every event log to its contract
    "headrace/runtime/eventlog": "conformance/test_event_log.py",
    "headrace/runtime/memory": "conformance/test_event_log.py",
    "headrace/runtime/memory_readers": "conformance/test_event_log.py",
    "headrace/runtime/memory_server": "conformance/test_event_log.py",
    "headrace/runtime/memory_streams": "conformance/test_event_log.py",
    "headrace/runtime/jetstream_publish": "conformance/test_event_log.py",
    "headrace/runtime/jetstream_tail": "conformance/test_event_log.py",
    "headrace/runtime/jetstream_pull": "conformance/test_work_queues.py",
    "headrace/runtime/jetstream_queue": "conformance/test_work_queues.py",
    "headrace/runtime/jetstream_admin": "e2e/test_exit_codes.py",
    "headrace/runtime/entropy": "unit/runtime/test_clock.py",
    "headrace/runtime/lease_records": "simulation/test_recovery.py",
    "headrace/runtime/crashpoints": "e2e/test_kill.py",
    "headrace/runtime/health": "integration/runtime/test_harness.py",
    # the shells of the services run over a real nats-server, and what they decide shows there
    "headrace_monitor/decide": "integration/services/test_monitor.py",
    "headrace_monitor/service": "integration/services/test_monitor.py",
    "headrace_session_store/decide": "unit/session_store/test_state.py",
    "headrace_session_store/service": "integration/services/test_session_store.py",
    "headrace_tool_registry/decide": "unit/tool_registry/test_state.py",
    "headrace_tool_registry/service": "integration/services/test_tool_registry.py",
    **{f"headrace_{name}/config": "unit/services/test_configs.py" for name in CONFIGURED},
    # parts of a shell are tested through it
    "headrace_scheduler/pseudo_effects": "simulation/test_simulation.py",
    "headrace_scheduler/pseudo_messages": "unit/scheduler/test_cron.py",
    "headrace_scheduler/pseudos": "integration/scheduler/test_schedules.py",
    "headrace_scheduler/schedule_intake": "integration/scheduler/test_schedules.py",
    "headrace/cli/approving": "e2e/test_approve.py",
    "headrace/cli/deploying": "e2e/test_triggers.py",
    "headrace/client/schedules": "e2e/test_triggers.py",
    "headrace_scheduler/definitions": "integration/scheduler/test_intake.py",
    "headrace_scheduler/service": "chaos/test_takeover.py",
    "headrace_step_executor/presence": "integration/executor/test_service.py",
    "headrace_scheduler/children": "unit/scheduler/test_decide.py",
    "headrace_scheduler/serving": "integration/services/test_secrets.py",
    "headrace_scheduler/draft": "unit/scheduler/test_decide.py",
    "headrace_scheduler/entries": "unit/scheduler/test_decide.py",
    "headrace_scheduler/handback": "simulation/test_recovery.py",
    "headrace_scheduler/messages": "unit/scheduler/test_decide.py",
    "headrace_scheduler/partition": "chaos/test_takeover.py",
    "headrace_scheduler/appending": "simulation/test_simulation.py",
    "headrace_scheduler/publishing": "simulation/test_simulation.py",
    "headrace_scheduler/timers": "simulation/test_simulation.py",
    "headrace_scheduler/plans": "integration/scheduler/test_intake.py",
    "headrace_scheduler/records": "unit/scheduler/test_state.py",
    "headrace_scheduler/snapshots": "chaos/test_takeover.py",
    "headrace_scheduler/triggers": "integration/scheduler/test_intake.py",
    "headrace_step_executor/artifacts": "integration/executor/test_service.py",
    "headrace_step_executor/attempt": "integration/executor/test_service.py",
    "headrace_step_executor/ends": "integration/executor/test_service.py",
    "headrace_step_executor/owners": "integration/executor/test_service.py",
    "headrace_step_executor/parts": "integration/executor/test_service.py",
    "headrace_step_executor/render": "integration/executor/test_service.py",
    "headrace_step_executor/render_worker": "integration/executor/test_service.py",
    "headrace_step_executor/reporting": "integration/executor/test_service.py",
    "headrace_step_executor/tool_calls": "integration/executor/test_service.py",
    "headrace_step_executor/providers/anthropic_messages": "unit/step_executor/test_provider_contract.py",
    "headrace_step_executor/providers/anthropic_wire": "unit/step_executor/test_provider_contract.py",
    "headrace_step_executor/providers/google_messages": "unit/step_executor/test_provider_contract.py",
    "headrace_step_executor/providers/google_wire": "unit/step_executor/test_provider_contract.py",
    "headrace_step_executor/providers/keys": "unit/step_executor/test_providers.py",
    "headrace_step_executor/providers/connection": "unit/step_executor/test_provider_contract.py",
    "headrace_step_executor/providers/echo": "unit/step_executor/test_provider_contract.py",
    "headrace_step_executor/providers/failures": "unit/step_executor/test_provider_contract.py",
    "headrace_step_executor/providers/messages": "unit/step_executor/test_provider_contract.py",
    "headrace_step_executor/providers/openai_messages": "unit/step_executor/test_provider_contract.py",
    "headrace_step_executor/providers/openai_wire": "unit/step_executor/test_provider_contract.py",
    "headrace_step_executor/providers/protocol": "unit/step_executor/test_provider_contract.py",
    "headrace_step_executor/providers/quota": "unit/step_executor/test_provider_contract.py",
    "headrace_step_executor/providers/registry": "unit/step_executor/test_providers.py",
    "headrace_step_executor/providers/script": "unit/step_executor/test_providers.py",
    "headrace_step_executor/tools/beneath": "unit/step_executor/test_fs.py",
    "headrace_step_executor/tools/call": "unit/step_executor/test_fs.py",
    "headrace_step_executor/tools/catalogue": "unit/step_executor/test_fs.py",
    "headrace_step_executor/tools/convert": "unit/step_executor/test_fs.py",
    "headrace_step_executor/tools/fs_read": "unit/step_executor/test_fs.py",
    "headrace_step_executor/tools/fs_write": "unit/step_executor/test_fs.py",
    "headrace_step_executor/tools/inflate": "unit/step_executor/test_http.py",
    "headrace_step_executor/tools/jsons": "unit/step_executor/test_text.py",
}
"""Modules whose tests don't carry their name: where they are instead."""


def module_name(path: Path) -> str:
    """`headrace/runtime/lease`, `headrace_scheduler/decide`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return "/".join(parts[1:] if parts[0] == "libs" else parts[2:])


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def tracked() -> list[Path]:
    """Files under version control that can be read as text."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no version control here")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_functions_are_short() -> None:
    """At most 70 lines from `def` to the end."""
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for path in PRODUCT
        for node in functions(path)
        if node.end_lineno is not None and node.end_lineno - node.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert not long


def test_modules_are_short_and_named_after_something() -> None:
    """At most 500 lines, and no drawer for things that have no name."""
    long = {str(path.relative_to(ROOT)): count for path in PRODUCT if (count := lines_of(path)) > MODULE_LINES_MAX}
    assert not long
    drawers = [path for path in (*PRODUCT, *TESTS) if DRAWERS & set(path.relative_to(ROOT).with_suffix("").parts)]
    assert not drawers


def lines_of(path: Path) -> int:
    """Number of lines."""
    return len(path.read_text(encoding="utf-8").splitlines())


def is_test_of(test: Path, name: str) -> bool:
    """It carries the module's name, and lies in its package's folder or imports from its package."""
    package, _, module = name.rpartition("/")
    if test.stem != f"test_{module}" and not test.stem.startswith(f"test_{module}_"):
        return False
    folder = package.rpartition("/")[2].removeprefix("headrace_")
    return folder in test.parts or f"from {package.replace('/', '.')}" in test.read_text(encoding="utf-8")


def test_every_module_has_its_test_module() -> None:
    """One that carries its name and imports from its package, or the one that TESTED_BY says."""
    missing, needless = [], set(TESTED_BY)
    for path in PRODUCT:
        if path.name in ("__init__.py", "__main__.py"):
            continue
        name = module_name(path)
        if any(is_test_of(path, name) for path in TESTS):
            continue
        needless.discard(name)
        if name not in TESTED_BY:
            missing.append(name)
    assert not missing, "add a test module, or say in TESTED_BY where the tests are"
    assert not needless, "these have a test module of their own by now, or are gone"
    gone = [test for test in TESTED_BY.values() if not (ROOT / "tests" / test).exists()]
    assert not gone


def test_every_exception_to_a_rule_has_a_code_and_a_reason() -> None:
    """`# type: ignore[code]  # why`, `# noqa: CODE why`."""
    bare = []
    for path in PRODUCT:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if re.search(r"#\s*type:\s*ignore", line) and not re.search(
                r"type: ignore\[[a-z-]+(, ?[a-z-]+)*\]\s+# \S", line
            ):
                bare.append(f"{path.relative_to(ROOT)}:{number}")
            if re.search(r"#\s*noqa", line) and not re.search(r"noqa: [A-Z]+[0-9]+\s+[#\-–]?\s*\S", line):
                bare.append(f"{path.relative_to(ROOT)}:{number}")
    assert not bare


def test_no_tracked_file_names_a_registry_or_a_path_of_one_machine() -> None:
    """Set-up works wherever a configured index is, and nothing depends on where it was written."""
    hosts = ["pypi." + "org", "files.python" + "hosted.org", "registry.npm" + "js.org"]
    places = ["/ro" + "ot/", "/wo" + "rk/", "/ho" + "me/", "/t" + "mp/"]
    banned = re.compile("|".join(re.escape(word) for word in (*hosts, *places)))
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [
            f"{path.relative_to(ROOT)}:{number}"
            for number, line in enumerate(text.splitlines(), 1)
            if banned.search(line)
        ]
    assert not found


def test_requirements_name_packages_and_nothing_of_one_machine() -> None:
    """Names, versions and hashes: where packages come from is configured where they are installed."""
    options = [
        f"{path.name}:{number}: {line}"
        for path in sorted((ROOT / "requirements").glob("*.txt"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if line.startswith("-")
    ]
    assert not options


def test_the_readme_is_a_page() -> None:
    """At most 180 lines."""
    assert lines_of(ROOT / "README.md") <= README_LINES_MAX


def test_every_link_in_the_documents_leads_somewhere() -> None:
    """Relative links and the paths of the tree."""
    broken = []
    for path in [ROOT / "README.md", ROOT / "proto/README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
            if "://" in target or target.startswith("#"):
                continue
            if not (path.parent / target.partition("#")[0]).exists():
                broken.append(f"{path.relative_to(ROOT)}: {target}")
    assert not broken


def test_every_event_type_has_an_example() -> None:
    """A type that nobody can look at is not part of the contract."""
    missing = [
        path.stem
        for path in sorted((ROOT / "proto/schemas").glob("io.headrace.*.json"))
        if not any((ROOT / "proto/examples" / path.stem).glob("*.json"))
    ]
    assert not missing


def test_every_test_says_what_it_shows() -> None:
    """The name is the behaviour, the docstring a sentence."""
    silent = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in TESTS
        if path.stem.startswith("test_")
        for node in functions(path)
        if node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert not silent
