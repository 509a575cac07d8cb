"""label-studio-sdk's client for a project, with this package's token handling and connection rules underneath."""

from __future__ import annotations

import httpx
from label_studio_sdk import LabelStudio
from label_studio_sdk.core.api_error import ApiError

from refcut_backend.errors import LabelStudioError, RefCutError, TokenError
from refcut_backend.label_studio.allowed_hosts import AllowedHosts
from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.safe_http import Budget, GuardedTransport, RetryingTransport
from refcut_backend.label_studio.tokens import shared_auth

READ_LIMIT_S = 30.0
_SIGNED_BELOW = "signed-by-refcut"
"""The SDK wants a token and signs with it; TokenAuth then overwrites that header."""


def connect(
    connection: Connection, *, limit_s: float = READ_LIMIT_S, http: httpx.Client | None = None
) -> LabelStudio:
    """An authorised client for the Label Studio of a project, whichever kind of token there is.

    limit_s, http: as for `open_http`, and what that gave, for callers that close it themselves.
    Calls raise the SDK's ApiError, httpx.HTTPError, and TokenError; `explain` says in one line what each means.
    Raises TokenError when there is no token at all. The client may be used from several threads.
    """
    return LabelStudio(
        base_url=connection.label_studio,
        api_key=_SIGNED_BELOW,
        httpx_client=http or open_http(connection, limit_s),
        max_retries=0,
    )


def open_http(connection: Connection, limit_s: float, *, tries_again: bool = True) -> httpx.Client:
    """What the SDK's client sends with: token, retries, and the rules of whom may be called.

    limit_s: longest wait for Label Studio to start or go on answering, and for it to be less busy (429, 5xx).
    tries_again: false for requests that must not come twice: a busy server may have done what it did not confirm.
    """
    transport = GuardedTransport(AllowedHosts.of([connection.label_studio]), Budget())
    return httpx.Client(
        transport=RetryingTransport(transport, lambda: limit_s) if tries_again else transport,
        auth=shared_auth(connection.label_studio, connection.access_token),
        timeout=limit_s,
        follow_redirects=True,
        max_redirects=5,
        trust_env=False,
    )


def explain(error: Exception, label_studio: str) -> RefCutError:
    """What an exception of a call to Label Studio means and what to do, without token or address details.

    error: RefCutError (returned as it is), the SDK's ApiError, httpx.HTTPError, or anything else.
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
        f"Label Studio at {where} answers what is not understood ({type(error).__name__})"
    )


def refusal(status: int, label_studio: str) -> LabelStudioError:
    """What an HTTP status of Label Studio means and what to do."""
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
        f"Label Studio at {where} answers {status}", hint="does what was asked for still exist?"
    )


def origin(label_studio: str) -> str:
    """Scheme, host and port: what of an address may be shown."""
    try:
        url = httpx.URL(label_studio)
    except httpx.InvalidURL:
        return "an address that is none"
    return f"{url.scheme}://{url.netloc.decode()}"
