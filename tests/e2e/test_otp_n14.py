"""N14: which provider answers is never in doubt, and offline ones stay offline; SDKs are loaded when they are used."""

import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.e2e.command import environ, headrace, lines

GREET: Final = (
    "pipeline: greet\nsteps:\n  say: {llm: {prompt: hello}}\noutputs: {said: '${{ steps.say.output.text }}'}\n"
)
GUARD: Final = """
import ipaddress, os, sys

def watch(event, args):
    if event == "socket.connect" and isinstance(args[1], tuple) and not ipaddress.ip_address(args[1][0]).is_loopback:
        complain(args[1])
    if event == "socket.getaddrinfo" and args[0] not in (None, "localhost", "127.0.0.1", "::1", "", b"127.0.0.1"):
        complain(args[0])

def complain(what):
    with open(os.environ["OUTBOUND"], "a") as file:
        file.write(f"{what}\\n")
    raise ConnectionRefusedError(f"outbound sockets are blocked: {what}")

sys.addaudithook(watch)
"""
SDKS: Final = ("openai", "anthropic", "google.genai", "httpx2", "httpx")
IMPORT_MS_MAX: Final = 300
"""Of the command line without a provider: issue 4's figure."""


def test_otp_n14_the_default_is_said_in_one_line_and_asks_nobody(tmp_path: Path) -> None:
    """No key, no configuration, every socket but loopback blocked: it runs, and says who answers."""
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(GUARD)
    (tmp_path / "greet.yaml").write_text(GREET)
    tried = tmp_path / "outbound.txt"
    done = headrace(tmp_path, "run", "greet.yaml", PYTHONPATH=str(tmp_path / "guard"), OUTBOUND=str(tried))
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if "echo/echo" in line]
    assert said == ["model echo/echo: answers with what it was asked; needs no key and no network"]
    assert not tried.exists(), tried.read_text()


def test_otp_n14_the_guard_blocks_what_it_should(tmp_path: Path) -> None:
    """A check that cannot fail is none: a connection out of this machine is refused and written down."""
    (tmp_path / "sitecustomize.py").write_text(GUARD)
    tried = tmp_path / "outbound.txt"
    code = "import socket; socket.create_connection(('192.0.2.1', 9), timeout=1)"
    env = environ(PYTHONPATH=str(tmp_path), OUTBOUND=str(tried))
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "192.0.2.1" in tried.read_text()


def test_otp_n14_a_provider_without_a_key_is_refused_at_start(tmp_path: Path) -> None:
    """Every model that cannot be asked, with what is missing; 78, and no run exists."""
    text = (
        "pipeline: ask\ninputs: {model: {type: string, default: google/m}}\nsteps:\n"
        "  a: {llm: {model: openai/gpt-5, prompt: hi}}\n  b: {llm: {model: anthropic/claude-sonnet-4-5, prompt: hi}}\n"
        "  c: {llm: {model: '${{ inputs.model }}', prompt: hi}}\n"
        "  d: {llm: {model: nobody/m, prompt: hi, allow_unpriced: true}}\n"
    )
    (tmp_path / "ask.yaml").write_text(text)
    done = headrace(tmp_path, "run", "ask.yaml")
    assert done.returncode == 78, done
    for variable in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "no provider `nobody`"):
        assert variable in done.stderr, done.stderr
    assert not list(tmp_path.glob(".headrace/**/*.blk")), "a stream was begun"
    kept = headrace(tmp_path, "run", "ask.yaml", "--json", OPENAI_API_KEY="k", ANTHROPIC_API_KEY="k")
    assert kept.returncode == 78
    assert lines(kept.stdout)[-1].get("event") != "result"


def test_sdks_are_imported_when_used_and_the_command_line_is_light() -> None:
    """Neither the command line nor the executor's providers load one; the command line loads in 300 ms."""
    code = f"import sys, MODULE; print([name for name in {SDKS!r} if name in sys.modules])"
    for module in ("headrace.cli.app", "headrace.cli.run", "headrace_step_executor.parts"):
        done = subprocess.run(
            [sys.executable, "-c", code.replace("MODULE", module)],
            env=environ(), capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        assert done.stdout.strip() == "[]", module
    took_ms = min(_import_ms("headrace.cli.app") for _ in range(3))  # of this process: others' work is not ours
    assert took_ms <= IMPORT_MS_MAX


def _import_ms(module: str) -> float:
    code = f"import time; began = time.process_time(); import {module}; print((time.process_time() - began) * 1000)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ(), capture_output=True, text=True, timeout=60, check=True
    )
    return float(done.stdout)
