"""Fetches the file of a task's image: from a mounted folder, Label Studio, cloud storage or the web."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from refcut_backend import __version__
from refcut_backend.errors import AddressRefusedError, ImageError, RefCutError, TooLargeError
from refcut_backend.images.address import (
    LOCAL_FILES,
    UPLOADS,
    CloudFile,
    LabelStudioFile,
    Location,
    locate,
    upload_key,
)
from refcut_backend.images.mounted_files import MountedFolders
from refcut_backend.label_studio.allowed_hosts import AllowedHosts
from refcut_backend.label_studio.client import explain, origin, refusal
from refcut_backend.label_studio.connection import Connection
from refcut_backend.label_studio.safe_http import (
    Budget,
    CompressedError,
    GuardedTransport,
    Resolve,
    RetryingTransport,
    refuse_compressed,
    resolve,
)
from refcut_backend.label_studio.tokens import shared_auth

OVERHEAD_BYTES = 1 << 20
"""Allowance for headers, redirects and a token renewal in addition to the image's bytes."""
MAX_REDIRECTS = 5
NOT_MODIFIED = 304


@dataclass(frozen=True)
class Stamp:
    """Identifies a state of a file for its source, which is asked with it whether the file has changed.

    Attributes:
        etag: HTTP `ETag`.
        last_modified: HTTP `Last-Modified`.
        file: Stamp of a file in a mounted folder.
    """

    etag: str = ""
    last_modified: str = ""
    file: str = ""

    def as_headers(self) -> dict[str, str]:
        """Returns request headers that ask for a body only if the file has changed."""
        conditions = {"If-None-Match": self.etag, "If-Modified-Since": self.last_modified}
        return {name: value for name, value in conditions.items() if value}


UNKNOWN = Stamp()
NOT_MOUNTED = MountedFolders()


@dataclass(frozen=True)
class Fetched:
    """A file and its stamp. `data` is None if the file has not changed since the known stamp."""

    data: bytes | None
    stamp: Stamp


@dataclass(frozen=True)
class ImageFetcher:
    """Fetches images within limits.

    Attributes:
        max_bytes: Limit for the size of a file.
        limit_s: Longest time for one fetch, in seconds.
        trusted_hosts: Hosts besides Label Studio that may be in a private network: `host` or `host:port`.
        aliases: Further URLs of Label Studio, with which images in tasks may begin. They are never contacted.
        folders: Folders that are shared with Label Studio.
        resolve: Resolves host names; tests replace it.
    """

    max_bytes: int
    limit_s: float
    trusted_hosts: frozenset[str] = frozenset()
    aliases: tuple[str, ...] = ()
    folders: MountedFolders = NOT_MOUNTED
    resolve: Resolve = resolve

    def fetch(
        self,
        address: str,
        task_id: int,
        connection: Connection,
        known: Stamp = UNKNOWN,
        limit_s: float | None = None,
    ) -> Fetched:
        """Fetches an image unless it has not changed since a known state.

        Args:
            address: Address in the task's data.
            task_id: The task, for which Label Studio signs links to cloud storage.
            connection: Address and token of Label Studio.
            known: Stamp of the known state, or UNKNOWN.
            limit_s: Longest time for the whole fetch in seconds; None for the usual limit.

        Raises:
            RefCutError: The image cannot be fetched. The message says what to do, without token or query.
        """
        allowed = AllowedHosts.of([connection.label_studio], self.trusted_hosts)
        location = locate(address, (connection.label_studio, connection.known_as, *self.aliases))
        if isinstance(location, LabelStudioFile):
            found = self.folders.read(location, self.max_bytes, known.file or None)
            if found is not None:
                return Fetched(found.data, Stamp(file=found.stamp))
        request = _ImageRequest(self, connection, allowed, limit_s or self.limit_s)
        with request.client:
            return request.run(location, task_id, known)


def _is_like_label_studio(url: str) -> bool:
    """Whether a URL has a path that only Label Studio has."""
    return any(path in urlsplit(url).path for path in (LOCAL_FILES.rstrip("/"), UPLOADS))


def _alias_hint(url: str) -> str:
    return f"if that is Label Studio under another name, add {origin(url)} to REFCUT_LABEL_STUDIO_ALIASES"


class _ImageRequest:
    """All requests for one image, with one budget."""

    def __init__(
        self, fetcher: ImageFetcher, connection: Connection, allowed: AllowedHosts, limit_s: float
    ) -> None:
        self._max_bytes = fetcher.max_bytes
        self._limit_s = limit_s
        self._connection = connection
        budget = Budget(limit_s, fetcher.max_bytes + OVERHEAD_BYTES)
        guarded = GuardedTransport(allowed, budget, fetcher.resolve)
        self.client = httpx.Client(
            transport=RetryingTransport(guarded, budget.time_left_s),
            timeout=limit_s,
            follow_redirects=True,
            max_redirects=MAX_REDIRECTS,
            trust_env=False,
            # Without compression, so that no body unpacks to more bytes than were counted.
            headers={
                "User-Agent": f"RefCut/{__version__}",
                # Label Studio 1.23 answers 406 to "image/*", even for an image.
                "Accept": "*/*",
                "Accept-Encoding": "identity",
            },
            event_hooks={"response": [refuse_compressed]},
        )

    def run(self, location: Location, task_id: int, known: Stamp) -> Fetched:
        if isinstance(location, CloudFile):
            return self._from_label_studio(location.signing_path(task_id), known)
        if isinstance(location, LabelStudioFile):
            return self._file(location, known)
        try:
            return self._get(location.url, None, known)
        except AddressRefusedError as error:
            if not _is_like_label_studio(location.url):
                raise
            raise AddressRefusedError(
                error.message, hint=f"{_alias_hint(location.url)}; otherwise {error.hint}"
            ) from None

    def _file(self, file: LabelStudioFile, known: Stamp) -> Fetched:
        """Requests an upload at the address in the task, then at the storage in which Label Studio keeps uploads."""
        try:
            return self._from_label_studio(file.path, known)
        except _StatusError as missing:
            key = upload_key(file)
            if key is None or missing.status not in (404, 500):
                raise
            stored = httpx.QueryParams({"filepath": f"upload/{key}"})
            try:
                return self._from_label_studio(f"/storage-data/uploaded/?{stored}", known)
            except _StatusError:
                raise missing from None

    def _from_label_studio(self, path: str, known: Stamp) -> Fetched:
        home = self._connection.label_studio.rstrip("/")
        return self._get(home + path, shared_auth(home, self._connection.access_token), known)

    def _get(self, url: str, auth: httpx.Auth | None, known: Stamp) -> Fetched:
        try:
            request = self.client.build_request("GET", url, headers=known.as_headers())
            response = self.client.send(request, auth=auth, stream=True)
            try:
                return self._read(response)
            finally:
                response.close()
        except TooLargeError:
            raise _too_large(self._max_bytes) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._error_of(error, url) from None

    def _read(self, response: httpx.Response) -> Fetched:
        stamp = Stamp(response.headers.get("ETag", ""), response.headers.get("Last-Modified", ""))
        if response.status_code == NOT_MODIFIED:
            return Fetched(None, stamp)
        if response.status_code != httpx.codes.OK:
            raise self._refused(response)
        if response.headers.get("Content-Type", "").lower().startswith("text/html"):
            raise ImageError(
                f"{origin(str(response.url))} answers with a web page instead of the image",
                hint="if it is a login page, the backend needs access without it",
            )
        data = bytearray()
        for chunk in response.iter_raw():
            data += chunk
            if len(data) > self._max_bytes:
                raise _too_large(self._max_bytes)
        return Fetched(bytes(data), stamp)

    def _refused(self, response: httpx.Response) -> RefCutError:
        status = response.status_code
        if origin(str(response.url)) != origin(self._connection.label_studio):
            return _StatusError(
                status,
                f"{origin(str(response.url))} answers {status} for the image",
                hint=_alias_hint(str(response.url))
                if _is_like_label_studio(str(response.url))
                else "open the task's image in a browser: a signed link may have expired",
            )
        hint = _storage_hint(response.request.url.path, status)
        if hint:
            return _StatusError(
                status,
                f"Label Studio at {origin(self._connection.label_studio)} answers {status} for the image",
                hint=hint,
                withdrawn=status != 500,
            )
        known = refusal(status, self._connection.label_studio)
        return _StatusError(
            status, known.message, hint=known.hint, code=known.code, withdrawn=known.code == "token"
        )

    def _error_of(self, error: httpx.HTTPError | httpx.InvalidURL, url: str) -> RefCutError:
        where = _requested_from(error, url)
        if isinstance(error, CompressedError):
            return ImageError(
                f"{where} compresses the image although the request forbids it",
                hint="switch off compression of image files on that server",
            )
        if isinstance(error, httpx.TimeoutException):
            return ImageError(
                f"the image did not arrive from {where} within {self._limit_s:g} s",
                hint="REFCUT_IMAGE_TIMEOUT_S sets the limit",
            )
        if isinstance(error, httpx.HTTPError) and where == origin(self._connection.label_studio):
            return explain(error, self._connection.label_studio)
        return ImageError(
            f"the image cannot be fetched from {where} ({type(error).__name__})",
            hint="open the task's image in a browser on the machine that runs RefCut",
        )


class _StatusError(ImageError):
    """An HTTP status instead of an image. `withdrawn`: Label Studio itself denies the image."""

    def __init__(
        self, status: int, message: str, *, hint: str, code: str = ImageError.code, withdrawn: bool = False
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code
        self.withdrawn = withdrawn


def is_withdrawn(error: RefCutError) -> bool:
    """Whether Label Studio denies an image, as opposed to a failed request."""
    return isinstance(error, _StatusError) and error.withdrawn


def _storage_hint(path: str, status: int) -> str:
    """Says what to do if Label Studio accepts the token but lacks the file; empty if the token is the problem."""
    if LOCAL_FILES.rstrip("/") in path and status in (403, 404):
        return (
            "Label Studio needs LOCAL_FILES_SERVING_ENABLED, and in the project a Local files storage whose path holds "
            "the file; or set REFCUT_LOCAL_FILES_DIR"
        )
    if status not in (404, 410, 500):
        return ""
    if "/presign/" in path:
        return "check the project's cloud storage in Label Studio: does its connection still work?"
    return "open the task's image in a browser: does the file still exist?"


def _too_large(max_bytes: int) -> TooLargeError:
    return TooLargeError(
        f"the image file is larger than {max_bytes} bytes", hint="REFCUT_IMAGE_MAX_BYTES sets the limit"
    )


def _requested_from(error: httpx.HTTPError | httpx.InvalidURL, url: str) -> str:
    """Returns scheme and host of the failed request, which after a redirect is not the first one."""
    try:
        return origin(str(error.request.url)) if isinstance(error, httpx.HTTPError) else origin(url)
    except RuntimeError:  # httpx raises it if the error has no request
        return origin(url)
