"""Receives request bodies and reads their JSON, within limits of bytes, time, memory and disk.

A request reaches its route only when its body is complete. Until then, and while a webhook waits to be applied, a body
larger than `IN_MEMORY_BYTES` lies in an unnamed file in the folder for temporary files, so that half requests and waiting
webhooks take no memory. JSON is read on threads of its own, a few bodies at once.

    BodyLimit   the middleware that receives      -> Body          in memory, or on disk
    JsonReader  Body                              -> pydantic model, or a refusal
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from tempfile import SpooledTemporaryFile
from typing import TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from refcut_backend.label_studio.payloads import without_masks
from refcut_backend.logs import note

BODY = "refcut.body"
"""Key of the request's `Body` in its ASGI scope."""
IN_MEMORY_BYTES = 256 * 1024
ALL_IN_MEMORY_BYTES = 32 * 2**20
"""When the bodies in memory have this size together, further ones are stored on disk from their first byte on."""
ALL_BYTES = 2 * 2**30
"""Limit of all bodies together. It keeps the folder for temporary files from filling up."""
PAUSE_LIMIT_S = 10.0
"""Longest pause between two parts of a body."""
BODY_LIMIT_S = 60.0
"""Longest time for a whole body."""
OPEN_MAX_BYTES = 16 * 1024
"""Size limit of a body for which the caller need not know the password."""
BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})

P = TypeVar("P", bound=BaseModel)


class Body:
    """The body of a request. Close it when the request is done."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._file = SpooledTemporaryFile[bytes](IN_MEMORY_BYTES)
        self._is_on_disk = False
        self.size = 0

    def add(self, part: bytes) -> None:
        """Appends what has arrived. Raises OSError if there is no room on the disk."""
        self._room.take(len(part))
        self.size += len(part)
        if not self._is_on_disk and (self.size > IN_MEMORY_BYTES or self._room.memory_is_full):
            # Counted first: if the disk is full, `rollover` raises, and `close` then subtracts nothing.
            self._is_on_disk = True
            self._room.in_memory -= self.size - len(part)
            self._file.rollover()
        elif not self._is_on_disk:
            self._room.in_memory += len(part)
        self._file.write(part)

    def read(self) -> bytes:
        """Returns the whole body. May be called again, by one thread at a time."""
        self._file.seek(0)
        return self._file.read()

    def close(self) -> None:
        """Frees memory and disk."""
        self._file.close()
        self._room.taken -= self.size
        if not self._is_on_disk:
            self._room.in_memory -= self.size
        self.size = 0


class Room:
    """Counts the bytes of all bodies. Used by the event loop alone.

    Attributes:
        taken: Bytes of all bodies.
        in_memory: Those of them that are in memory.
    """

    def __init__(self) -> None:
        self.taken = 0
        self.in_memory = 0

    @property
    def memory_is_full(self) -> bool:
        """Whether further bodies belong on disk."""
        return self.in_memory >= ALL_IN_MEMORY_BYTES

    def take(self, size: int) -> None:
        """Counts bytes that have arrived. Raises OSError if there is no room for them."""
        if self.taken + size > ALL_BYTES:
            raise OSError("no room for further bodies")
        self.taken += size


class _RefusedError(Exception):
    """A body that is not taken."""

    def __init__(self, status: int, error: str, hint: str) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.hint = hint


class _DisconnectedError(Exception):
    """The caller went away before its body was complete."""


class BodyLimit:
    """ASGI middleware: receives the body, and refuses one that is too large (413), too slow (408) or one too many (503).

    Args:
        app: Gets the request with its `Body` in the scope, under the key `BODY`.
        max_bytes: Size limit of one body.
        is_open: Whether a path wants no password; its limit is `OPEN_MAX_BYTES`, so that strangers can fill neither the
            room for bodies nor the threads that read them.
        pause_limit_s: Longest pause between two parts of a body.
        limit_s: Longest time for a whole body.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_bytes: int,
        is_open: Callable[[str], bool] = lambda _path: False,
        pause_limit_s: float = PAUSE_LIMIT_S,
        limit_s: float = BODY_LIMIT_S,
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._is_open = is_open
        self._pause_limit_s = pause_limit_s
        self._limit_s = limit_s
        self._room = Room()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = Body(self._room)
        try:
            max_bytes = self._max_bytes_of(scope["path"])
            declared = dict(scope["headers"]).get(b"content-length", b"0")
            if not declared.isdigit() or int(declared) > max_bytes:
                raise self._too_large(max_bytes)
            if scope["method"] not in BODILESS:
                await self._receive(body, receive, max_bytes)
            await self._app({**scope, BODY: body}, receive, send)
        except _RefusedError as refused:
            note(outcome=refused.error, problem=refused.hint)
            answer = JSONResponse({"error": refused.error, "hint": refused.hint}, status_code=refused.status)
            if refused.status != 413:  # a caller that is still sending would see a broken connection instead
                answer.headers["Connection"] = "close"
            await answer(scope, receive, send)
        except _DisconnectedError:
            note(outcome="disconnected")
        finally:
            body.close()

    def _max_bytes_of(self, path: str) -> int:
        return min(OPEN_MAX_BYTES, self._max_bytes) if self._is_open(path) else self._max_bytes

    async def _receive(self, body: Body, receive: Receive, max_bytes: int) -> None:
        try:
            async with asyncio.timeout(self._limit_s):
                while await self._receive_part(body, receive, max_bytes):
                    pass
        except TimeoutError:
            raise _RefusedError(
                408,
                "body_too_slow",
                f"a body must arrive within {self._limit_s:g} s, and without a pause of {self._pause_limit_s:g} s",
            ) from None
        except OSError as error:
            raise _RefusedError(
                503, "no_room", f"too many large requests at once ({error}); check the disk of TMPDIR"
            ) from None

    async def _receive_part(self, body: Body, receive: Receive, max_bytes: int) -> bool:
        """Takes the next part of the body; returns whether more is to come."""
        async with asyncio.timeout(self._pause_limit_s):
            message = await receive()
        if message["type"] == "http.disconnect":
            raise _DisconnectedError
        part = message.get("body", b"")
        if body.size + len(part) > max_bytes:
            raise self._too_large(max_bytes)
        body.add(part)
        return bool(message.get("more_body", False))

    def _too_large(self, max_bytes: int) -> _RefusedError:
        setting = "; REFCUT_REQUEST_MAX_BYTES sets it" if max_bytes == self._max_bytes else ""
        return _RefusedError(413, "too_large", f"at most {max_bytes} bytes{setting}")


MAX_OBJECTS = 50_000
MAX_VALUES = 500_000
"""Limits of what a body contains, masks left out. All threads stand still while one becomes Python's objects: at these
limits for a quarter of a second."""
READ_AT_ONCE_BYTES = 64 * 1024
"""A body up to this size is read on the event loop: that takes less time than a thread would."""
READERS = 2
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""The escaped character NUL. A backslash before it may be escaped itself."""


class JsonReader:
    """Reads bodies as pydantic models, at most `READERS` large ones at once."""

    def __init__(self) -> None:
        self._threads = CapacityLimiter(READERS)

    async def read(self, model: type[P], request: Request) -> P:
        """Reads a request's body without the masks that come along with tasks and annotations.

        Raises:
            RequestValidationError: The body does not have the form that Label Studio sends. Values are not part of it.
        """
        body: Body = request.scope[BODY]
        if body.size <= READ_AT_ONCE_BYTES:
            return parsed(model, without_masks(body.read()))
        return await run_sync(lambda: parsed(model, without_masks(body.read())), limiter=self._threads)


def parsed(model: type[P], text: bytes) -> P:
    """Reads JSON as a pydantic model. Raises RequestValidationError as `JsonReader.read` does."""
    if text.count(b"{") > MAX_OBJECTS or text.count(b",") > MAX_VALUES:
        raise _bad_request(f"more than {MAX_OBJECTS} objects or {MAX_VALUES} values, masks left out")
    if _NUL.search(text):
        raise _bad_request("the character NUL, which no database stores")
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise RequestValidationError(error.errors(include_url=False, include_input=False)) from None


def _bad_request(fault: str) -> RequestValidationError:
    return RequestValidationError([{"loc": (), "msg": fault}])
