"""Enough threads that callers which wait for workers leave some for everybody else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI


def room_for(waiting_callers: int) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """A lifespan that adds a thread for each caller that may wait to those that the server has anyway."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        current_default_thread_limiter().total_tokens += waiting_callers
        yield

    return lifespan
