"""Decides which hosts the backend may connect to: public ones, and those that an engineer trusts by name."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from refcut_backend.errors import ConfigError, LabelStudioError

NAT64 = ipaddress.ip_network("64:ff9b::/96")
_TRANSITION = tuple(
    ipaddress.ip_network(text)
    for text in ("::/96", "::ffff:0:0:0/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")
)
"""IPv6 ranges that contain an IPv4 address (compatible, translated, local NAT64, 6to4, Teredo)."""
_METADATA = tuple(
    ipaddress.ip_network(text)
    for text in ("169.254.0.0/16", "fd00:ec2::254/128", "100.100.100.200/32", "168.63.129.16/32")
)
"""Metadata services of clouds: most clouds, AWS over IPv6, Alibaba, and Azure, whose address is a public one."""
_DEFAULT_PORTS = {"http": 80, "https": 443}


def is_public(address: str) -> bool:
    """Whether an IP address, as a resolver returns it, belongs to the public internet.

    An IPv4 address inside an IPv6 address counts as the IPv4 address. Other IPv6 ranges that may contain one are never
    public.
    """
    ip = _innermost(address)
    if isinstance(ip, ipaddress.IPv6Address) and (
        ip.is_site_local or any(ip in network for network in _TRANSITION)
    ):
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or is_metadata(address))


def is_metadata(address: str) -> bool:
    """Whether an IP address is a cloud's metadata service.

    No project needs it, so it is never connected to, even if a caller of /setup gives it as Label Studio's address.
    """
    return any(_innermost(address) in network for network in _METADATA)


def _innermost(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Returns the IPv4 address that an IPv6 address wraps, or else the address itself."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return ip.ipv4_mapped
        if ip in NAT64:
            return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip


@dataclass(frozen=True)
class AllowedHosts:
    """Hosts that may be connected to at any address. All other hosts only at public addresses.

    Attributes:
        trusted: (host, port) in lower case; port None stands for every port.
    """

    trusted: frozenset[tuple[str, int | None]]

    @classmethod
    def of(cls, label_studio: Iterable[str], further: Iterable[str] = ()) -> AllowedHosts:
        """Builds the rules.

        Args:
            label_studio: Addresses of Label Studio, each trusted at its own port; http on port 80 also at 443, to which
                it may redirect.
            further: `host` or `host:port` entries of REFCUT_IMAGE_HOSTS.

        Raises:
            LabelStudioError: An address of Label Studio is invalid.
            ConfigError: An entry of REFCUT_IMAGE_HOSTS is invalid.
        """
        own = {_host_and_port(address) for address in label_studio}
        secured = {(host, _DEFAULT_PORTS["https"]) for host, port in own if port == _DEFAULT_PORTS["http"]}
        return cls(frozenset(own | secured | {_named(entry) for entry in further}))

    def trusts(self, host: str, port: int) -> bool:
        """Whether a host is trusted at a port."""
        name = host.lower().rstrip(".")
        return (name, port) in self.trusted or (name, None) in self.trusted


def _host_and_port(address: str) -> tuple[str, int | None]:
    try:
        urlsplit(address)  # stricter than httpx about brackets
        url = httpx.URL(address)
    except (httpx.InvalidURL, ValueError):
        url = httpx.URL("")
    if url.scheme not in _DEFAULT_PORTS or not url.host:
        raise LabelStudioError(
            "Label Studio's own address is not valid",
            hint="set its LABEL_STUDIO_HOST to http://... or https://..., or set REFCUT_LABEL_STUDIO_URL",
        )
    return url.raw_host.decode().lower().rstrip("."), url.port or _DEFAULT_PORTS[url.scheme]


def _named(entry: str) -> tuple[str, int | None]:
    try:
        url = httpx.URL(f"any://{entry}")
    except httpx.InvalidURL:
        url = httpx.URL("")
    if not url.host or url.userinfo or url.path not in ("", "/") or any(map(str.isspace, entry)):
        raise ConfigError(
            "REFCUT_IMAGE_HOSTS contains an invalid entry",
            hint="write host or host:port, comma separated",
        )
    return url.raw_host.decode().lower().rstrip("."), url.port
