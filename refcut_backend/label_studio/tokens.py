"""Signs requests with either kind of Label Studio's tokens, as an `httpx.Auth`.

A legacy token is sent as it is. A personal access token is a JWT that is exchanged for access tokens, which are valid for
a few minutes (POST /api/token/refresh/). label-studio-sdk can do that too, but it renews an access token only when this
machine's clock says that it has expired, and never after a 401, so it fails if two clocks differ by a minute.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

import httpx
import jwt
from cachetools import LRUCache, cached

from refcut_backend.errors import TokenError

RENEW_BEFORE_S = 60.0
"""An access token is renewed this long before it expires, so that it never expires during a request."""
DEFAULT_LIFE_S = 300.0
CACHED_TOKENS = 256

Clock = Callable[[], float]


@dataclass(frozen=True)
class _Access:
    header: str
    good_until: float


class TokenAuth(httpx.Auth):
    """Signs requests to one Label Studio. Thread-safe.

    Redirects to other hosts are sent without the token, because httpx drops the header.
    """

    def __init__(self, label_studio: str, token: str, clock: Clock = time.monotonic) -> None:
        """Prepares the token.

        Args:
            label_studio: Address with its base path.
            token: Legacy token or personal access token.
            clock: Monotonic clock in seconds.

        Raises:
            TokenError: The token is empty or cannot be sent in a header.
        """
        self._label_studio = label_studio.rstrip("/")
        self._token = token.strip()
        self._clock = clock
        self._lock = threading.Lock()
        if not self._token or not self._token.isascii() or not self._token.isprintable():
            raise TokenError("there is no usable token for Label Studio", hint=_SET_ONE)
        self._personal = token_type(self._token) == "refresh"
        kind = "Token" if token_type(self._token) is None else "Bearer"
        self._access = (
            _Access("", float("-inf")) if self._personal else _Access(f"{kind} {self._token}", float("inf"))
        )

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Renews an access token that is about to expire, and once more if Label Studio still answers 401."""
        access = yield from self._current(stale=None)
        request.headers["Authorization"] = access.header
        response = yield request
        if response.status_code == 401 and self._personal:
            access = yield from self._current(stale=access)
            request.headers["Authorization"] = access.header
            yield request

    def _current(self, stale: _Access | None) -> Generator[httpx.Request, httpx.Response, _Access]:
        """Returns an access token other than `stale`. While one thread renews it, others wait for the result."""
        with self._lock:
            if self._access is stale or self._access.good_until < self._clock():
                response = yield self._refresh_request()
                response.read()
                self._access = self._read(response)
            return self._access

    def _refresh_request(self) -> httpx.Request:
        return httpx.Request(
            "POST", f"{self._label_studio}/api/token/refresh/", json={"refresh": self._token}
        )

    def _read(self, response: httpx.Response) -> _Access:
        if response.status_code in (400, 401, 403):
            raise TokenError(
                f"Label Studio refuses the personal access token ({response.status_code})",
                hint="it has expired or was revoked: make a new one under Account & Settings and set REFCUT_ACCESS_TOKEN",
            )
        if response.status_code != 200:
            raise TokenError(
                f"Label Studio answers {response.status_code} where access tokens are renewed",
                hint="check that REFCUT_LABEL_STUDIO_URL or Label Studio's own LABEL_STUDIO_HOST is right",
            )
        try:
            token = str(response.json()["access"])
            claims = jwt.decode(token, options={"verify_signature": False})
            # Both times are from Label Studio's clock, from which this machine's may differ.
            life_s = float(claims["exp"]) - float(claims["iat"]) if "iat" in claims else DEFAULT_LIFE_S
        except (ValueError, KeyError, TypeError, jwt.InvalidTokenError):
            raise TokenError(
                "Label Studio's answer holds no access token",
                hint="is it really Label Studio at that address?",
            ) from None
        margin_s = min(RENEW_BEFORE_S, life_s / 2)
        return _Access(f"Bearer {token}", self._clock() + life_s - margin_s)


_SET_ONE = "make a token in Label Studio under Account & Settings and set REFCUT_ACCESS_TOKEN"


def token_type(token: str) -> str | None:
    """Returns "refresh" for a personal access token, "access" for an access token, None for a legacy token."""
    try:
        return str(jwt.decode(token, options={"verify_signature": False}).get("token_type"))
    except jwt.InvalidTokenError:
        return None


@cached(LRUCache(CACHED_TOKENS), lock=threading.Lock())
def shared_auth(label_studio: str, token: str) -> TokenAuth:
    """Returns this process's TokenAuth for a token, so that its users share access tokens. Raises TokenError."""
    return TokenAuth(label_studio, token)
