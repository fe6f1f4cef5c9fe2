"""Which addresses may be reached. Row 35 of the bad inputs, without a network."""

import ipaddress
from collections.abc import Sequence

import pytest

from headrace.contracts.errors import AttemptError
from headrace_step_executor.tools.addresses import admitted, allow_list, denied, parse_target

BLOCKED_URLS = (
    "http://169.254.169.254/latest/meta-data/", "http://2130706433/", "http://0x7f000001/", "http://0x7f.1/",
    "http://017700000001/", "http://0177.0.0.1/", "http://127.1/", "http://127.0.1/", "http://127.0.0.1/",
    "http://127.0.0.1./", "http://127.000.000.001/", "http://0/", "http://0.0.0.0/", "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/", "http://[::1]/", "http://[::]/", "http://[fe80::1]/", "http://[fe80::1%25eth0]/",
    "http://[fc00::1]/", "http://[fd00:ec2::254]/", "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/",
    "http://[2001::1]/", "http://[fec0::1]/", "http://[3fff::1]/", "http://[ff02::1]/",
    "http://10.0.0.1/", "http://172.16.0.1/", "http://172.31.255.255/",
    "http://192.168.1.1/", "http://100.64.0.1/", "http://100.100.100.200/", "http://168.63.129.16/",
    "http://192.0.0.192/", "http://192.0.2.1/", "http://198.18.0.1/", "http://198.51.100.1/", "http://203.0.113.1/",
    "http://224.0.0.1/", "http://239.255.255.255/", "http://240.0.0.1/", "http://255.255.255.255/",
    "http://192.88.99.1/", "http://[::127.0.0.1]/", "http://[::ffff:0:127.0.0.1]/", "http://[2001:db8::1]/",
    "http://①②⑦.0.0.1/", "http://１２７.0.0.1/", "http://127。0。0。1/", "ftp://example.com/", "file:///etc/passwd",
    "gopher://example.com/", "http://4294967296/", "http://1.2.3/", "http://0x7f000001:80/",
)  # fmt: skip
REFUSED_URLS = (
    "http://user:pw@example.com/", "http://example.com\\@10.0.0.1/", "http://exa mple.com/", "http://", "http:///x",
    "http://example.com:99999/", "http://[::1", "http://ex\nample.com/", "http://-./", "http://a..b/",
)  # fmt: skip


async def nothing(_host: str, _port: int) -> Sequence[str]:
    pytest.fail("an address written out is not looked up")


@pytest.mark.parametrize("url", BLOCKED_URLS)
async def test_input_35_addresses_inside_are_blocked_however_they_are_written(url: str) -> None:
    """Private, local, metadata and reserved addresses, decimal, octal, hexadecimal, mapped and wide forms."""
    with pytest.raises(AttemptError) as raised:
        await admitted(parse_target(url), nothing, allow_list(()))
    assert raised.value.attempt_code == "ssrf_blocked", raised.value
    assert not raised.value.attempt_retryable


@pytest.mark.parametrize("url", REFUSED_URLS)
async def test_input_35_what_is_no_address_is_refused(url: str) -> None:
    """Credentials, backslashes, control characters and broken hosts never reach a resolver."""
    with pytest.raises(AttemptError) as raised:
        await admitted(parse_target(url), nothing, allow_list(()))
    assert raised.value.attempt_code in ("url_invalid", "ssrf_blocked")


async def test_input_35_one_private_address_among_many_blocks_the_name() -> None:
    """Every address of a name is checked, not only the first."""

    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return ("93.184.216.34", "2606:4700::1111", "10.0.0.7")

    with pytest.raises(AttemptError, match=r"10\.0\.0\.7"):
        await admitted(parse_target("https://example.com/"), resolve, allow_list(()))


async def test_public_addresses_are_admitted_as_they_were_checked() -> None:
    """What is connected to is what was checked, in order, each once."""

    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return ("93.184.216.34", "93.184.216.34", "2606:4700::1111")

    found = await admitted(parse_target("https://EXAMPLE.com/a?b=c d".replace(" ", "+")), resolve, allow_list(()))
    assert found == ("93.184.216.34", "2606:4700::1111")
    assert parse_target("https://Bücher.example:443/ä").url == "https://xn--bcher-kva.example/%C3%A4"


def test_the_operators_list_allows_exactly_what_it_names() -> None:
    """A host with its port, or a network; nothing near it."""
    allowed = allow_list(("127.0.0.1:8080", "10.1.0.0/16", "Internal.example:443", "[::1]:90"))
    loopback = ipaddress.ip_address("127.0.0.1")
    assert allowed.allows(parse_target("http://127.0.0.1:8080/"), loopback)
    assert not allowed.allows(parse_target("http://127.0.0.1:8081/"), loopback)
    assert allowed.allows(parse_target("http://any.example/"), ipaddress.ip_address("10.1.2.3"))
    assert not allowed.allows(parse_target("http://any.example/"), ipaddress.ip_address("10.2.2.3"))
    assert allowed.allows(parse_target("https://internal.example/"), ipaddress.ip_address("192.168.0.1"))
    assert allowed.allows(parse_target("http://[::1]:90/"), ipaddress.ip_address("::1"))
    for wrong in ("example.com", "10.0.0.1/33", "host:port"):
        with pytest.raises(ValueError, match=r".+"):
            allow_list((wrong,))


@pytest.mark.parametrize("text", ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700::1111", "2a00:1450::8a"])
def test_public_addresses_have_no_reason_against_them(text: str) -> None:
    """The rules don't block the internet."""
    assert denied(ipaddress.ip_address(text)) == ""
