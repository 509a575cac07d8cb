"""The login form, and the session that it begins. Programs and Label Studio send the password with each request."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from pydantic import BaseModel, Field, SecretStr

from refcut_backend.api.auth import LOGIN, Access, caller_of, too_many_attempts
from refcut_backend.api.bodies import JsonReader
from refcut_backend.api.pages.files import page
from refcut_backend.api.sessions import COOKIE, LASTS_S, LoginAttempts, Sessions
from refcut_backend.logs import note

MARK = "refcut_logged_in"
"""A cookie that scripts can read, unlike the session: it shows the button that ends the session."""


class Credentials(BaseModel):
    """What the form sends."""

    user: Annotated[str, Field(max_length=1000)]
    password: Annotated[SecretStr, Field(max_length=1000)]


def own_path(path: str) -> str:
    """Returns a path of this server unchanged, and / for anything that a browser would take for another server."""
    is_own = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return path if is_own else "/"


def login_routes(
    access: Access, sessions: Sessions, attempts: LoginAttempts, bodies: JsonReader
) -> APIRouter:
    """The routes of form, login and logout.

    Args:
        access: The password.
        sessions: Makes sessions.
        attempts: Counts wrong passwords, those of programs included.
        bodies: Reads the requests.
    """
    router = APIRouter()

    @router.api_route(LOGIN, methods=["GET", "HEAD"])
    async def form(http: Request) -> Response:
        following = own_path(http.query_params.get("next", "/"))
        has_session = sessions.is_valid(http.cookies.get(COOKIE))
        if has_session or not access.basic:
            return RedirectResponse(following, 303)
        return page("login.html", None, following=following)

    @router.post(LOGIN)
    async def login(http: Request) -> Response:
        if not attempts.may_try(caller_of(http.scope)):
            return too_many_attempts()
        given = await bodies.read(Credentials, http)
        if not access.is_password(given.user, given.password.get_secret_value()):
            attempts.note_failure(caller_of(http.scope))
            note(outcome="wrong_password", caller=caller_of(http.scope))
            body = {"error": "wrong_password", "message": "User name or password is wrong", "hint": ""}
            return JSONResponse(body, status_code=403)
        answer = JSONResponse({"status": "logged in"})
        _set(answer, http, COOKIE, sessions.new(), is_readable=False)
        _set(answer, http, MARK, "1", is_readable=True)
        return answer

    @router.post("/logout")
    async def logout() -> Response:
        answer = JSONResponse({"status": "logged out"})
        answer.delete_cookie(COOKIE)
        answer.delete_cookie(MARK)
        return answer

    return router


def _set(answer: Response, http: Request, name: str, value: str, *, is_readable: bool) -> None:
    # A proxy that ends TLS says so in this header. A caller who lies makes only its own cookie stricter.
    is_https = "https" in (http.url.scheme, http.headers.get("x-forwarded-proto", ""))
    answer.set_cookie(
        name, value, max_age=LASTS_S, httponly=not is_readable, samesite="strict", secure=is_https
    )
