"""Builds label-studio-sdk's client for a project, on top of our token handling, retries and connection rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
from label_studio_sdk.core.api_error import ApiError

from refcut_backend.errors import LabelStudioError, RefCutError, TokenError
from refcut_backend.label_studio.allowed_hosts import AllowedHosts
from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.safe_http import (
    BudgetPerRequest,
    GuardedTransport,
    RetryingTransport,
    refuse_compressed,
)
from refcut_backend.label_studio.tokens import shared_auth

if TYPE_CHECKING:
    from label_studio_sdk.base_client import LabelStudioBase

READ_LIMIT_S = 30.0
WHOLE_TO_READ_LIMIT = 4
"""A whole request may take this many times as long as Label Studio may be silent."""
MAX_ANSWER_BYTES = 64 * 2**20
"""Longest answer of Label Studio's API. A list of tasks with annotations that is longer is read task by task."""
_SIGNED_BELOW = "signed-by-refcut"
"""The SDK requires a token and signs with it; TokenAuth then overwrites that header."""


def connect(
    connection: Connection, *, limit_s: float = READ_LIMIT_S, http: httpx.Client | None = None
) -> LabelStudioBase:
    """Builds an authorised client for a project's Label Studio, for both kinds of token. Thread-safe.

    Calls of the client raise the SDK's ApiError, httpx.HTTPError and TokenError; `explain` describes each in one line.
    It is the SDK's client without its extensions, which import pandas. A pager of tasks ends with a 404 of Label Studio:
    read its `items`.

    Args:
        connection: Address and token.
        limit_s: As for `open_http`.
        http: The result of `open_http`, for callers that close it themselves. None opens one.

    Raises:
        TokenError: There is no token.
    """
    from label_studio_sdk.base_client import LabelStudioBase  # 0.2 s, which few commands need

    return LabelStudioBase(
        base_url=connection.label_studio,
        api_key=_SIGNED_BELOW,
        httpx_client=http or open_http(connection, limit_s),
        max_retries=0,
    )


class _LimitedClient(httpx.Client):
    """Begins a budget with each request, which its redirects, retries and token renewals share."""

    def __init__(self, budget: BudgetPerRequest, **options: Any) -> None:
        super().__init__(**options)
        self._budget = budget

    def send(self, *arguments: Any, **options: Any) -> httpx.Response:
        self._budget.begin()
        return super().send(*arguments, **options)


def open_http(
    connection: Connection, limit_s: float, *, retries: bool = True, total_s: float | None = None
) -> httpx.Client:
    """Opens the HTTP client that the SDK's client sends with: it signs, retries, checks addresses and keeps limits.

    An answer ends at `MAX_ANSWER_BYTES`, and a whole request after `WHOLE_TO_READ_LIMIT` times `limit_s`, because anybody
    who reaches /setup can name a server that answers for ever.

    Args:
        connection: Address and token.
        limit_s: Longest wait in seconds for Label Studio to begin or continue an answer, and for retries of 429 and 5xx.
        retries: False for requests that must not arrive twice: a busy server may have done what it did not confirm.
        total_s: Longest time in seconds for all requests of the client together; None for no limit.
    """
    budget = BudgetPerRequest(WHOLE_TO_READ_LIMIT * limit_s, MAX_ANSWER_BYTES, total_s)
    transport = GuardedTransport(AllowedHosts.of([connection.label_studio]), budget)
    return _LimitedClient(
        budget,
        transport=RetryingTransport(transport, lambda: limit_s) if retries else transport,
        auth=shared_auth(connection.label_studio, connection.access_token),
        timeout=limit_s,
        follow_redirects=True,
        max_redirects=5,
        trust_env=False,
        headers={"Accept-Encoding": "identity"},
        event_hooks={"response": [refuse_compressed]},
    )


def explain(error: Exception, label_studio: str) -> RefCutError:
    """Turns an exception from a call of Label Studio into an error that says what to do, without token or path.

    Args:
        error: A RefCutError (returned as it is), the SDK's ApiError, an httpx.HTTPError, or any other exception.
        label_studio: Address that was called.
    """
    if isinstance(error, RefCutError):
        return error
    where = origin(label_studio)
    if isinstance(error, ApiError) and error.status_code is not None:
        return refusal(int(error.status_code), label_studio)
    if isinstance(error, httpx.HTTPError):
        return LabelStudioError(
            f"Label Studio at {where} cannot be reached ({type(error).__name__})",
            hint="check that it runs and that this machine reaches its address; REFCUT_LABEL_STUDIO_URL overrides it",
        )
    return LabelStudioError(
        f"Label Studio at {where} gives an answer that is not understood ({type(error).__name__})"
    )


def refusal(status: int, label_studio: str) -> LabelStudioError:
    """Turns an HTTP status of Label Studio into an error that says what to do."""
    where = origin(label_studio)
    if status in (401, 403):
        return TokenError(
            f"Label Studio at {where} refuses the token ({status})",
            hint="enable legacy tokens in the organization, or set REFCUT_ACCESS_TOKEN to a token that works",
        )
    if status == 429 or status >= 500:
        return LabelStudioError(
            f"Label Studio at {where} is overloaded or broken ({status})", hint="try again later"
        )
    return LabelStudioError(
        f"Label Studio at {where} answers {status}", hint="does the task, annotation or file still exist?"
    )


def origin(label_studio: str) -> str:
    """Returns scheme, host and port: the part of an address that may be shown."""
    try:
        url = httpx.URL(label_studio)
    except httpx.InvalidURL:
        return "an invalid URL"
    return f"{url.scheme}://{url.netloc.decode()}"
