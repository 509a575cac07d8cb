"""Which hosts the backend may connect to: public ones, and those that an engineer trusts by name."""

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
"""IPv6 ranges that carry an IPv4 address inside (compatible, translated, local NAT64, 6to4, Teredo)."""
_METADATA = tuple(
    ipaddress.ip_network(text)
    for text in ("169.254.0.0/16", "fd00:ec2::254/128", "100.100.100.200/32", "168.63.129.16/32")
)
"""Where clouds tell a machine its secrets: most of them, AWS over IPv6, Alibaba, and Azure, which is public by number."""
_DEFAULT_PORTS = {"http": 80, "https": 443}


def is_public(address: str) -> bool:
    """Whether an IP address, as a resolver returns it, belongs to the public internet.

    An IPv4 address inside an IPv6 one counts as the IPv4 one; ranges in which it could hide are never public.
    """
    ip = _innermost(address)
    if isinstance(ip, ipaddress.IPv6Address) and (
        ip.is_site_local or any(ip in network for network in _TRANSITION)
    ):
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or is_metadata(address))


def is_metadata(address: str) -> bool:
    """Whether an IP address is a cloud's metadata service. Nothing that a project needs is there: it is never connected
    to, even where whoever called /setup says that Label Studio is."""
    return any(_innermost(address) in network for network in _METADATA)


def _innermost(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The IPv4 address that an IPv6 one only wraps, else the address itself."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return ip.ipv4_mapped
        if ip in NAT64:
            return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip


@dataclass(frozen=True)
class AllowedHosts:
    """Hosts that may be connected to wherever they are; all others only at public addresses.

    trusted: (host, port) in lower case; port None stands for every port.
    """

    trusted: frozenset[tuple[str, int | None]]

    @classmethod
    def of(cls, label_studio: Iterable[str], further: Iterable[str] = ()) -> AllowedHosts:
        """label_studio: its addresses, each trusted at its own port (http also where it may redirect to https).
        further: `host` or `host:port`, as an engineer wrote them.

        Raises LabelStudioError for an address that is none, ConfigError for a host that is none.
        """
        own = {_host_and_port(address) for address in label_studio}
        secured = {(host, _DEFAULT_PORTS["https"]) for host, port in own if port == _DEFAULT_PORTS["http"]}
        return cls(frozenset(own | secured | {_named(entry) for entry in further}))

    def trusts(self, host: str, port: int) -> bool:
        """Whether an engineer vouches for this host."""
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
            "REFCUT_IMAGE_HOSTS holds an entry that is no host",
            hint="write host or host:port, comma separated",
        )
    return url.raw_host.decode().lower().rstrip("."), url.port
