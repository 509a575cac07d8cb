from __future__ import annotations

import pytest

from refcut_backend.errors import ConfigError
from refcut_backend.label_studio.allowed_hosts import AllowedHosts, is_public


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.100.100.200",
        "0.0.0.0",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "198.18.0.1",
        "168.63.129.16",
        "::",
        "::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",
        "fec0::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "2002:7f00:1::",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::1",
    ],
)
def test_addresses_that_are_not_public_are_known(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "52.216.1.1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2606:4700:4700::1111"]
)
def test_public_addresses_are_known(address):
    assert is_public(address)


def test_label_studio_is_trusted_at_its_own_port_only():
    allowed = AllowedHosts.of(
        ["http://127.0.0.1:8080/labeling", "https://ls.example", "http://plain.example"]
    )
    assert allowed.trusts("127.0.0.1", 8080)
    assert allowed.trusts("LS.example.", 443)
    assert not allowed.trusts("127.0.0.1", 6379)
    assert not allowed.trusts("ls.example", 80)
    assert not allowed.trusts("127.0.0.1", 443)
    assert allowed.trusts("plain.example", 80)
    assert allowed.trusts("plain.example", 443)


def test_an_engineer_s_host_is_trusted_at_the_port_it_is_written_with_or_at_all():
    allowed = AllowedHosts.of([], ["minio:9000", "Files.example", "[fd00::1]:80", "bücher.example"])
    assert allowed.trusts("minio", 9000)
    assert not allowed.trusts("minio", 9001)
    assert allowed.trusts("files.example", 1)
    assert allowed.trusts("fd00::1", 80)
    assert allowed.trusts("xn--bcher-kva.example", 80)


@pytest.mark.parametrize("entry", ["http://host", "user@host", "host/path", "host:port", "two hosts", ""])
def test_an_entry_that_is_no_host_is_named_at_once(entry):
    with pytest.raises(ConfigError, match="REFCUT_IMAGE_HOSTS"):
        AllowedHosts.of([], [entry])
