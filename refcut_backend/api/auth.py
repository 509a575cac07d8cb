"""Who may call: HTTP Basic as Label Studio sends it, and a secret of its own for webhooks, which carry no such header."""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from refcut_backend.logs import note
from refcut_backend.settings import Settings

log = logging.getLogger("refcut.access")

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
OPEN_TO_ALL = frozenset({"/livez", "/readyz"})
"""What container probes ask; they carry no credentials, and the answers hold no secrets."""
WEBHOOK = "/webhook"
SECRET_HEADER = "X-RefCut-Webhook-Secret"
WEBHOOK_HINT = (
    f"add the header {SECRET_HEADER} with the value of REFCUT_WEBHOOK_SECRET to the webhook in Label Studio "
    "(Settings > Webhooks)"
)
HINT = "enter REFCUT_BASIC_AUTH_USER and _PASSWORD in Label Studio's model settings (Basic authentication)"


@dataclass(frozen=True)
class Access:
    """What callers must know. Nothing set = everybody may call.

    basic: "user:password" in every encoding that clients use: browsers send UTF-8, Label Studio Latin-1.
    """

    basic: frozenset[bytes] = field(default=frozenset(), repr=False)
    webhook_secret: bytes | None = field(default=None, repr=False)

    @classmethod
    def of(cls, settings: Settings) -> Access:
        """As the settings say."""
        basic = frozenset[bytes]()
        if settings.basic_auth_user and settings.basic_auth_password:
            basic = _encodings(
                f"{settings.basic_auth_user}:{settings.basic_auth_password.get_secret_value()}"
            )
        secret = settings.webhook_secret
        return cls(basic, secret.get_secret_value().encode() if secret else None)

    def allows(self, path: str, headers: Headers) -> bool:
        """Whether a request may pass. A webhook needs the secret or Basic as soon as either is set."""
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
    """Says in the log what others could do, or what will not work, with these settings."""
    if settings.basic_auth_user is None and settings.host not in LOOPBACK:
        log.warning(
            "anybody who reaches this port can read and change references: set REFCUT_BASIC_AUTH_USER and _PASSWORD",
            extra={"host": settings.host},
        )
    if settings.basic_auth_user is not None and settings.webhook_secret is None:
        log.warning(
            "references will not follow annotations: Label Studio's webhooks carry no password; "
            f"set REFCUT_WEBHOOK_SECRET and {WEBHOOK_HINT}"
        )


class Guard:
    """ASGI middleware: 401 for whoever does not know what `access` asks for, before the body is read."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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


def _encodings(said: str) -> frozenset[bytes]:
    try:
        return frozenset({said.encode(), said.encode("latin-1")})
    except UnicodeEncodeError:
        return frozenset({said.encode()})


def _is_one_of(given: bytes, expected: Iterable[bytes]) -> bool:
    """In a time that does not tell how much was right."""
    return any([hmac.compare_digest(given, each) for each in expected])
