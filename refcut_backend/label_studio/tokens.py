"""Label Studio's two kinds of token, as an `httpx.Auth`.

A legacy token is sent as it is. A personal access token is a JWT that only buys access tokens of a few minutes
(POST /api/token/refresh/). label-studio-sdk can do that too, but it renews an access token only once the machine's own
clock says that it has expired, and never after a 401: two clocks that disagree by a minute would break it.
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
"""An access token is renewed this long before its end, so that none expires under way."""
DEFAULT_LIFE_S = 300.0
KEPT_TOKENS = 256

Clock = Callable[[], float]


@dataclass(frozen=True)
class _Access:
    header: str
    good_until: float


class TokenAuth(httpx.Auth):
    """Signs requests to one Label Studio; for several threads at once.

    Redirects to other hosts go out without the token: httpx drops the header.
    """

    def __init__(self, label_studio: str, token: str, clock: Clock = time.monotonic) -> None:
        """label_studio: address with its base path. Raises TokenError for a token that no header can carry."""
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
        """Renews an access token that is about to end, and once more when Label Studio answers 401 all the same."""
        access = yield from self._current(stale=None)
        request.headers["Authorization"] = access.header
        response = yield request
        if response.status_code == 401 and self._personal:
            access = yield from self._current(stale=access)
            request.headers["Authorization"] = access.header
            yield request

    def _current(self, stale: _Access | None) -> Generator[httpx.Request, httpx.Response, _Access]:
        """An access token other than `stale`. Threads that come while one renews it wait for that one."""
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
            # Both times are Label Studio's: this machine's clock may differ from them.
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
    """ "refresh" for a personal access token, "access" for what it buys, None for a legacy token."""
    try:
        return str(jwt.decode(token, options={"verify_signature": False}).get("token_type"))
    except jwt.InvalidTokenError:
        return None


@cached(LRUCache(KEPT_TOKENS), lock=threading.Lock())
def shared_auth(label_studio: str, token: str) -> TokenAuth:
    """The process's one TokenAuth for a token: all its users share what it buys. Raises TokenError."""
    return TokenAuth(label_studio, token)
