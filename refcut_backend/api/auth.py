"""Access to the server: HTTP Basic for Label Studio and people, a separate secret for webhooks.

Label Studio sends the password with every request except for webhooks, so these carry a header of their own.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import os
import pwd
from collections.abc import Iterable
from dataclasses import dataclass, field

from fastapi import HTTPException, Request
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from refcut_backend.logs import note
from refcut_backend.settings import Settings

log = logging.getLogger("refcut.access")

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
OPEN_TO_ALL = frozenset({"/livez", "/readyz"})
"""Paths for container probes, which carry no credentials; the responses hold no secrets."""
WEBHOOK = "/webhook"
SECRET_HEADER = "X-RefCut-Webhook-Secret"
WEBHOOK_HINT = (
    f"add the header {SECRET_HEADER} with the value of REFCUT_WEBHOOK_SECRET to the webhook in Label Studio "
    "(Settings > Webhooks)"
)
HINT = "enter REFCUT_BASIC_AUTH_USER and _PASSWORD in Label Studio's model settings (Basic authentication)"


@dataclass(frozen=True)
class Access:
    """Credentials that requests must carry. Without any, every request is allowed.

    Attributes:
        basic: `user:password` in each encoding that clients use: browsers send UTF-8, Label Studio sends Latin-1.
        webhook_secret: Value of the header X-RefCut-Webhook-Secret; None if no secret is set.
    """

    basic: frozenset[bytes] = field(default=frozenset(), repr=False)
    webhook_secret: bytes | None = field(default=None, repr=False)

    @classmethod
    def of(cls, settings: Settings) -> Access:
        """The credentials of the settings."""
        basic = frozenset[bytes]()
        if settings.basic_auth_user and settings.basic_auth_password:
            basic = _encodings(
                f"{settings.basic_auth_user}:{settings.basic_auth_password.get_secret_value()}"
            )
        secret = settings.webhook_secret
        return cls(basic, secret.get_secret_value().encode() if secret else None)

    def allows(self, path: str, headers: Headers) -> bool:
        """Whether a request is allowed. A webhook needs the secret or the password as soon as either is set."""
        if path in OPEN_TO_ALL:
            return True
        if path == WEBHOOK:
            return not (self.basic or self.webhook_secret) or self._secret(headers) or self._basic(headers)
        return not self.basic or self._basic(headers)

    def _basic(self, headers: Headers) -> bool:
        scheme, _, encoded = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            given = base64.b64decode(encoded.strip().encode("latin-1"), validate=True)
        except (binascii.Error, UnicodeEncodeError):
            return False
        return _is_one_of(given, self.basic)

    def _secret(self, headers: Headers) -> bool:
        given = headers.get(SECRET_HEADER, "").encode("latin-1")
        return self.webhook_secret is not None and _is_one_of(given, [self.webhook_secret])


def warn_when_open(settings: Settings) -> None:
    """Log a warning if the settings let anybody in, or keep webhooks out."""
    if settings.basic_auth_user is None and settings.host not in LOOPBACK:
        log.warning(
            "anybody who reaches this port can read and change references: set REFCUT_BASIC_AUTH_USER and _PASSWORD",
            extra={"host": settings.host},
        )
    elif settings.basic_auth_user is None and (others := other_accounts()):
        log.warning(
            "other users of this machine can read and change references: set REFCUT_BASIC_AUTH_USER and _PASSWORD",
            extra={"accounts": len(others)},
        )
    if settings.basic_auth_user is not None and settings.webhook_secret is None:
        log.warning(
            "references will not follow annotations: Label Studio sends webhooks without the password; "
            f"set REFCUT_WEBHOOK_SECRET and {WEBHOOK_HINT}"
        )


PEOPLE = range(1000, 60_000)
"""User ids that Linux gives to people. Programs have accounts below."""
NO_LOGIN = ("nologin", "false")


def other_accounts() -> list[str]:
    """Names of the accounts of this machine that belong to people other than this process's user."""
    return [
        account.pw_name
        for account in pwd.getpwall()
        if account.pw_uid in PEOPLE
        and account.pw_uid != os.getuid()
        and not account.pw_shell.endswith(NO_LOGIN)
    ]


class Guard:
    """ASGI middleware: responds 401 to requests without the credentials, before their body is read."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or respond 401."""
        if scope["type"] != "http" or self._access.allows(scope["path"], Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        hint = WEBHOOK_HINT if scope["path"] == WEBHOOK else HINT
        note(outcome="unauthorized", problem=hint)
        answer = JSONResponse(
            {"error": "unauthorized", "hint": hint},
            status_code=401,
            headers={"WWW-Authenticate": 'Basic realm="RefCut"'},
        )
        await answer(scope, receive, send)


class PageAccess:
    """Dependency of the pages' routes: without a password they are for people on this machine only."""

    def __init__(self, access: Access) -> None:
        self._has_password = bool(access.basic)

    def __call__(self, request: Request) -> None:
        """Respond 403 to a request from another machine if no password is set."""
        client = "" if request.client is None else request.client.host
        if not self._has_password and client not in LOOPBACK:
            note(outcome="page_refused")
            raise HTTPException(
                status_code=403,
                detail="Without a password the pages are shown on this machine only: set REFCUT_BASIC_AUTH_USER and "
                "REFCUT_BASIC_AUTH_PASSWORD",
            )


def _encodings(credentials: str) -> frozenset[bytes]:
    try:
        return frozenset({credentials.encode(), credentials.encode("latin-1")})
    except UnicodeEncodeError:
        return frozenset({credentials.encode()})


def _is_one_of(given: bytes, expected: Iterable[bytes]) -> bool:
    """Compares in constant time, so that a guess learns nothing from the duration."""
    return any([hmac.compare_digest(given, each) for each in expected])
