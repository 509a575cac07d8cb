"""Access to the server: the password of Label Studio, programs and people, and a separate secret for webhooks.

Label Studio, programs    HTTP Basic with every request
people                    a form, then the cookie of a session, for pages only (`sessions.py`, `pages/login.py`)
webhooks                  a header of their own: Label Studio sends them without the password
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
from urllib.parse import urlencode

from fastapi import HTTPException, Request
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from refcut_backend.api.sessions import COOKIE, WINDOW_S, LoginAttempts, Sessions
from refcut_backend.logs import note
from refcut_backend.settings import Settings

log = logging.getLogger("refcut.access")

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
OPEN_TO_ALL = frozenset({"/livez", "/readyz"})
"""Paths for container probes, which carry no credentials; the responses hold no secrets."""
LOGIN = "/login"
STATIC = "/static/"
"""Scripts and styles hold no secrets, and the login form needs them."""
PAGES = ("/status", "/projects", "/playground", "/logout", "/docs", "/openapi.json")
"""First parts of the paths for which a session is enough, besides / itself. Label Studio's routes are not among them."""
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

    def is_password(self, user: str, password: str) -> bool:
        """Whether this user name and password are the ones that are set."""
        return _is_one_of(f"{user}:{password}".encode(), self.basic)

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


def is_page(path: str) -> bool:
    """Whether a path is that of a page, or of what a page asks for."""
    return path == "/" or any(path == first or path.startswith(f"{first}/") for first in PAGES)


def is_open(path: str) -> bool:
    """Whether a path wants neither password nor session."""
    return path == LOGIN or path in OPEN_TO_ALL or path.startswith(STATIC)


def caller_of(scope: Scope) -> str:
    """The address that a request comes from."""
    return str(scope["client"][0]) if scope.get("client") else ""


class Guard:
    """ASGI middleware: responds 401 to requests without the credentials, before their body is read.

    A browser that opens a page is sent to the login form instead.

    Args:
        app: Gets the requests that are allowed.
        access: The credentials.
        sessions: Of people who logged in.
        attempts: Counts wrong credentials.
    """

    def __init__(self, app: ASGIApp, access: Access, sessions: Sessions, attempts: LoginAttempts) -> None:
        self._app = app
        self._access = access
        self._sessions = sessions
        self._attempts = attempts
        # Of their own: a webhook with a wrong secret must not keep the clicks of its Label Studio out.
        self._webhook_attempts = LoginAttempts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        refusal = None if scope["type"] != "http" else self._refusal(scope, Headers(scope=scope))
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        path: str = scope["path"]
        session = cookie_parser(headers.get("cookie", "")).get(COOKIE)
        if is_open(path):
            return None
        if is_page(path) and self._sessions.is_valid(session):
            return None
        attempts = self._webhook_attempts if path == WEBHOOK else self._attempts
        is_attempt = "authorization" in headers or SECRET_HEADER in headers
        if is_attempt and not attempts.may_try(caller_of(scope)):
            return too_many_attempts()
        if self._access.allows(path, headers):
            return None
        if is_attempt:
            attempts.note_failure(caller_of(scope))
        if scope["method"] in ("GET", "HEAD") and is_page(path) and "text/html" in headers.get("accept", ""):
            query = scope["query_string"].decode("latin-1")
            return RedirectResponse(
                f"{LOGIN}?{urlencode({'next': f'{path}?{query}' if query else path})}", 303
            )
        hint = WEBHOOK_HINT if path == WEBHOOK else HINT
        note(outcome="unauthorized", problem=hint)
        # A browser would ask for the password in a window of its own, over the page whose session has ended.
        is_script = session is not None or headers.get("sec-fetch-mode", "navigate") != "navigate"
        asks = {} if is_script else {"WWW-Authenticate": 'Basic realm="RefCut"'}
        return JSONResponse({"error": "unauthorized", "hint": hint}, status_code=401, headers=asks)


def too_many_attempts() -> Response:
    """The answer to a caller that has sent too many wrong passwords."""
    hint = f"too many wrong passwords came from this address: wait {WINDOW_S:.0f} s"
    note(outcome="too_many_attempts", problem=hint)
    return JSONResponse(
        {"error": "too_many_attempts", "message": "Too many attempts", "hint": hint},
        status_code=429,
        headers={"Retry-After": f"{WINDOW_S:.0f}"},
    )


class PageAccess:
    """Dependency of the pages' routes: without a password they are for people on this machine only."""

    def __init__(self, access: Access) -> None:
        self._has_password = bool(access.basic)

    def allows(self, request: Request) -> bool:
        """Whether a request may see pages."""
        client = "" if request.client is None else request.client.host
        return self._has_password or client in LOOPBACK

    def __call__(self, request: Request) -> None:
        """Respond 403 to a request from another machine if no password is set."""
        if not self.allows(request):
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
