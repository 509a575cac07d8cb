"""Sessions of people who logged in with the form, and the limit of attempts to guess the password.

A session is a signed cookie, so that every web process knows it without asking another. The key is derived from the
password: whoever changes the password ends all sessions, and no key has to be stored.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
import time
from collections import deque
from collections.abc import Callable, Collection

from cachetools import LRUCache
from itsdangerous import BadSignature, TimestampSigner

COOKIE = "refcut_session"
LASTS_S = 12 * 3600
ATTEMPTS = 20
WINDOW_S = 60.0
MOST_ADDRESSES = 10_000
_SALT = b"refcut session"
IPV6_NETWORK_BITS = 64
"""One person has at least so many addresses of IPv6."""


class Sessions:
    """Makes and checks the cookies of sessions.

    Args:
        credentials: What is needed to log in. Without any, no session is valid.
    """

    def __init__(self, credentials: Collection[bytes]) -> None:
        self._signer = (
            TimestampSigner(_key(credentials), digest_method=hashlib.sha256) if credentials else None
        )

    def new(self) -> str:
        """Return the cookie of a new session.

        Raises:
            RuntimeError: If no password is set.
        """
        if self._signer is None:
            raise RuntimeError("without a password there are no sessions")
        return self._signer.sign(secrets.token_urlsafe(12)).decode()

    def is_valid(self, cookie: str | None) -> bool:
        """Whether a cookie belongs to a session that was begun less than `LASTS_S` ago with the present password."""
        if self._signer is None or not cookie:
            return False
        try:
            self._signer.unsign(cookie, max_age=LASTS_S)
        except BadSignature:
            return False
        return True


def _key(credentials: Collection[bytes]) -> bytes:
    """Slow on purpose: a stolen cookie must not be of use for guessing the password."""
    return hashlib.scrypt(b"\0".join(sorted(credentials)), salt=_SALT, n=2**14, r=8, p=1)


class LoginAttempts:
    """Counts wrong passwords per caller. After `ATTEMPTS` within `WINDOW_S` every further one is refused unread.

    Args:
        now: Monotonic seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._failed: LRUCache[str, deque[float]] = LRUCache(MOST_ADDRESSES)

    def may_try(self, address: str) -> bool:
        """Whether a password from this address is looked at."""
        failed = self._failed.get(_caller(address))
        return failed is None or len(failed) < ATTEMPTS or failed[0] < self._now() - WINDOW_S

    def note_failure(self, address: str) -> None:
        """Count a wrong password."""
        caller = _caller(address)
        failed = self._failed.get(caller)
        if failed is None:
            failed = self._failed[caller] = deque(maxlen=ATTEMPTS)
        failed.append(self._now())


def _caller(address: str) -> str:
    """The address, or for IPv6 its network."""
    try:
        read = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(read, ipaddress.IPv6Address) and read.ipv4_mapped is None:
        return str(ipaddress.ip_network((read, IPV6_NETWORK_BITS), strict=False))
    return str(read)
