"""A run is started without any Python of ours: the raw protocol, bash, and perl, node, ruby where there are such."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from headrace.contracts import codec, subjects
from headrace.contracts import events as ev
from headrace.local.nats_server import NatsServer
from headrace.runtime.jetstream import JetStreamBroker
from tests.conftest import until
from tests.engine import finished, outcome, outputs, put, running_scheduler

DOUBLE = """
pipeline: double
inputs: {n: {type: integer}}
outputs: {twice: "${{ steps.twice.output }}"}
steps:
  twice: {transform: "${{ inputs.n * 2 }}"}
"""
SUBJECT = "hr.cmd.default.run-start"
CONNECT = '{"verbose":false,"pedantic":false,"headers":true,"lang":"any","version":"0"}'


def structured(event_id: str, data: Any, **more: Any) -> tuple[dict[str, str], bytes]:
    """Headers and body as SDKs of CloudEvents write them, with the optional attributes that they like to add."""
    event = {
        "specversion": "1.0",
        "id": event_id,
        "source": "https://ci.example/pipelines/7",
        "type": "io.headrace.run.start.v1",
        "time": "2026-01-31T06:00:00Z",
        "datacontenttype": "application/json",
        "data": data,
    }
    return {"content-type": "application/cloudevents+json; charset=UTF-8"}, json.dumps(event | more).encode()


def binary(event_id: str, data: Any, **more: str) -> tuple[dict[str, str], bytes]:
    """Attributes as headers, the data as body."""
    headers = {
        "ce-specversion": "1.0",
        "ce-id": event_id,
        "ce-source": "/ci",
        "ce-type": "io.headrace.run.start.v1",
        "ce-time": "2026-01-31T06:00:00Z",
        "content-type": "application/json",
    }
    return headers | more, json.dumps(data).encode()


def on_the_wire(headers: dict[str, str], body: bytes) -> bytes:
    """What a client of NATS sends to publish this, and to be told that it arrived."""
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    block = f"NATS/1.0\r\n{head}\r\n".encode()
    line = f"HPUB {SUBJECT} _INBOX.other.1 {len(block)} {len(block) + len(body)}\r\n".encode()
    return f"CONNECT {CONNECT}\r\nSUB _INBOX.other.1 1\r\n".encode() + line + block + body + b"\r\nPING\r\n"


BASH = """
exec 3<>"/dev/tcp/$1/$2"
read -r info <&3
cat "$3" >&3
while read -r -t 5 line <&3; do case "$line" in *'"stream"'*) echo "$line"; exit 0;; esac; done
exit 1
"""
PERL = """
use strict; use IO::Socket::INET;
my ($host, $port, $file) = @ARGV;
my $s = IO::Socket::INET->new(PeerAddr => $host, PeerPort => $port, Timeout => 5) or die "connect: $!";
alarm 10;
my $info = <$s>;
open(my $f, '<:raw', $file) or die; { local $/; print {$s} <$f>; } $s->flush;
while (my $line = <$s>) { if ($line =~ /"stream"/) { print $line; exit 0; } }
exit 1;
"""
NODE = """
const [host, port, file] = process.argv.slice(2);
const s = require('net').connect(+port, host, () => s.write(require('fs').readFileSync(file)));
let said = '';
s.on('data', d => { said += d; const m = /.*"stream".*/.exec(said); if (m) { console.log(m[0]); process.exit(0); } });
setTimeout(() => process.exit(1), 8000);
"""
RUBY = """
require 'socket'
host, port, file = ARGV
s = TCPSocket.new(host, port.to_i)
s.gets
s.write(File.binread(file))
while (line = s.gets) do if line.include?('"stream"') then puts line; exit 0 end end
exit 1
"""
LANGUAGES = {"bash": BASH, "perl": PERL, "node": NODE, "ruby": RUBY}
"""bash runs what checks this repository, so it is wherever this is run; the others join where they are installed."""


async def sent(server: NatsServer, tmp_path: Path, language: str, headers: dict[str, str], body: bytes) -> None:
    """Publish by that language, and see that the stream has it."""
    host, port = server.url.removeprefix("nats://").split(":")
    wire = on_the_wire(headers, body)
    if language == "socket":
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(host, int(port))
            await reader.readline()
            writer.write(wire)
            await reader.readuntil(b'"stream":')
            answer = await reader.readuntil(b",")
            writer.close()
            await writer.wait_closed()
        assert answer.strip() == b'"HR_COMMANDS",'
        return
    (tmp_path / "wire").write_bytes(wire)
    (tmp_path / "program").write_text(LANGUAGES[language])
    process = await asyncio.create_subprocess_exec(
        language, str(tmp_path / "program"), host, port, str(tmp_path / "wire"), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(20):
        said, _ = await process.communicate()
    assert process.returncode == 0
    assert b"HR_COMMANDS" in said


INSTALLED = [name for name in LANGUAGES if name == "bash" or shutil.which(name)]


@pytest.mark.parametrize("language", ["socket", *INSTALLED])
async def test_a_start_from_another_language_runs_and_a_malformed_one_is_answered_and_parked(
    nats_server: NatsServer, broker: JetStreamBroker, tmp_path: Path, language: str
) -> None:
    """CloudEvents JSON, structured and binary. What is wrong is parked with its bytes and the reason; where it has an
    id, whoever waits under it hears the reason, too. Nothing is dropped: each message has one of the three fates."""
    start = {"pipeline": "double", "inputs": {"n": 21}}
    async with running_scheduler(broker):
        await put(broker, DOUBLE)
        for mode in (structured, binary):
            event_id = f"{language}-{mode.__name__}"
            await sent(nats_server, tmp_path, language, *mode(event_id, start))
            answer = await outcome(broker, event_id)
            assert isinstance(answer, ev.CommandAccepted), answer
            assert answer.data.runid == event_id
            assert outputs(await finished(broker, event_id)) == {"twice": 42}

        wrong = {
            "data": structured("w-data", {"pipelin": "double"}),
            "type": structured("w-type", start, type="com.example.other.v1"),
            "specversion": binary("w-version", start, **{"ce-specversion": "0.3"}),
            "not JSON": ({"ce-id": "w-json", "ce-specversion": "1.0"}, b"\xff{"),
            "no id": ({}, b'{"pipelin": "double"}'),
        }
        for headers, body in wrong.values():
            await sent(nats_server, tmp_path, language, headers, body)
        parked = await _parked(broker, len(wrong))
        assert [kept.body for kept in parked] == [body for _, body in wrong.values()]
        assert all(kept.failure.code == "malformed_message" and kept.failure.message for kept in parked)
        assert all(kept.subject == SUBJECT for kept in parked)
        for event_id, says in (("w-data", "pipelin"), ("w-type", "com.example.other.v1"), ("w-version", "0.3")):
            answer = await outcome(broker, event_id)
            assert isinstance(answer, ev.CommandRefused)
            assert says in answer.data.reasons[0].message
        assert isinstance(await outcome(broker, "w-json"), ev.CommandRefused)
        state = await broker.consumer_state(subjects.COMMANDS, subjects.INTAKE_CONSUMER)
        assert (state.pending, state.ack_pending) == (0, 0)


async def _parked(broker: JetStreamBroker, wanted: int) -> list[ev.Parked]:
    async def read() -> list[ev.Parked]:
        found = []
        async for stored in broker.read(subjects.DEAD, ("hr.dead.>",)):
            message = codec.decode(stored.body)
            assert isinstance(message, ev.MessageParked)
            found.append(message.data)
        return sorted(found, key=lambda kept: kept.seq)

    async def all_there() -> bool:
        return len(await read()) >= wanted

    await until(all_there, within_s=10, what="parked messages")
    return await read()
