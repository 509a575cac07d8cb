"""Refuses requests that name another host: a page whose name was rebound to this machine could otherwise do everything.

A browser treats `http://evil.example:9090` as one origin, whichever address that name resolves to. Its owner can rebind
the name to 127.0.0.1 after the page has loaded; the page then sends JSON here and reads the answers, past the protection
against forms of other sites. Its requests say `Host: evil.example:9090`, and that is checked.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from refcut_backend.logs import note
from refcut_backend.settings import Settings

NOT_PUBLIC = ("localhost", "local", "internal", "home.arpa", "test")
"""Top domains in which nobody can register a name that the browser of somebody else would resolve."""


@dataclass(frozen=True)
class AllowedNames:
    """Host names that requests may use.

    Without a list these are allowed: IP addresses, names without a dot (of containers and machines of the local network),
    and names below `NOT_PUBLIC`. None of them can be rebound by somebody else.

    Attributes:
        names: Further names, in lower case.
        any_name: Every name is allowed.
    """

    names: frozenset[str] = frozenset()
    any_name: bool = False

    @classmethod
    def of(cls, settings: Settings) -> AllowedNames:
        """The names of the settings. With a password every name is allowed, unless the settings list some.

        The page of a rebound name has no password: browsers store one for each origin.
        """
        named = {name.strip().lower().rstrip(".") for name in settings.allowed_hosts.split(",")} - {""}
        own = {settings.host.lower(), socket.gethostname().lower()}
        return cls(frozenset(named | own), settings.basic_auth_user is not None and not named)

    def allows(self, header: str) -> bool:
        """Whether a request may have this value of the header Host. Every browser sends it; an old probe may not."""
        name = name_in(header)
        if self.any_name or not header or name in self.names or _is_address(name):
            return True
        return bool(name) and ("." not in name or any(name.endswith(f".{top}") for top in NOT_PUBLIC))


def name_in(header: str) -> str:
    """Returns the name in a Host header, without port, brackets and final dot, in lower case."""
    host = header.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class HostCheck:
    """ASGI middleware: responds 421 to requests for a host name that is not allowed."""

    def __init__(self, app: ASGIApp, allowed: AllowedNames) -> None:
        self._app = app
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or respond 421."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).getlist("host")
        if len(given) < 2 and all(self._allowed.allows(header) for header in given):
            await self._app(scope, receive, send)
            return
        hint = (
            "this server does not answer to the host name of the request: if it is the server's, add it to "
            "REFCUT_ALLOWED_HOSTS, or set REFCUT_BASIC_AUTH_USER and _PASSWORD"
        )
        note(outcome="host_refused", problem=hint, host=name_in(",".join(given))[:100])
        await JSONResponse({"error": "host_refused", "hint": hint}, status_code=421)(scope, receive, send)
