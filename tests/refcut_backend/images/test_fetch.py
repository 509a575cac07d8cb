from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from refcut_backend.errors import RefCutError, TokenError
from refcut_backend.images.fetch import ImageFetcher, Stamp, is_withdrawn
from refcut_backend.images.mounted_files import MountedFolders
from refcut_backend.label_studio import safe_http
from refcut_backend.label_studio.connection import Connection
from tests.support.fake_label_studio import LEGACY, PERSONAL, Answer, FakeLabelStudio, running

UPLOAD = "/data/upload/2/a.png"
PICTURE = b"x" * 10
SIGNATURE = "X-Amz-Signature=canary5160"
FETCHER = ImageFetcher(max_bytes=4000, limit_s=20)


@pytest.fixture
def label_studio() -> Iterator[FakeLabelStudio]:
    with running(FakeLabelStudio(files={UPLOAD: Answer(PICTURE)})) as fake:
        yield fake


@pytest.fixture
def storage() -> Iterator[FakeLabelStudio]:
    """Another server that wants no token."""
    with running(FakeLabelStudio()) as fake:
        fake.good.add(None)
        yield fake


def fetch(
    address: str,
    label_studio: FakeLabelStudio,
    token: str = LEGACY,
    fetcher: ImageFetcher = FETCHER,
    **more: object,
) -> bytes | None:
    return fetcher.fetch(address, 7, Connection(label_studio.url, token), **more).data  # type: ignore[arg-type]


def problem_of(address: str, label_studio: FakeLabelStudio, **more: object) -> RefCutError:
    with pytest.raises(RefCutError) as error:
        fetch(address, label_studio, **more)  # type: ignore[arg-type]
    assert error.value.hint
    for secret in (LEGACY, PERSONAL, "canary"):
        assert secret not in str(error.value)
    return error.value


@pytest.mark.parametrize("token", [LEGACY, PERSONAL])
def test_an_upload_is_fetched_with_either_kind_of_token(label_studio, token):
    assert fetch(UPLOAD, label_studio, token) == PICTURE


def test_a_disabled_token_says_what_to_set(label_studio):
    label_studio.legacy = None
    problem = problem_of(UPLOAD, label_studio)
    assert problem.code == "token"
    assert "REFCUT_ACCESS_TOKEN" in problem.hint
    assert is_withdrawn(problem)


def test_an_expired_personal_token_says_what_to_do(label_studio):
    label_studio.refresh = Answer(b'{"detail": "Token is invalid or expired"}', 401)
    with pytest.raises(TokenError, match="make a new one"):
        fetch(UPLOAD, label_studio, PERSONAL)


def test_a_token_revoked_under_way_is_renewed_once(label_studio):
    fetch(UPLOAD, label_studio, PERSONAL)
    label_studio.good.clear()
    assert fetch(UPLOAD, label_studio, PERSONAL) == PICTURE


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_label_studio_is_asked_again_within_the_deadline(label_studio, status):
    label_studio.before = [Answer(status=status, headers={"Retry-After": "0"}), Answer(status=status)]
    assert fetch(UPLOAD, label_studio) == PICTURE


def test_a_label_studio_that_asks_to_wait_past_the_deadline_is_not_waited_for(label_studio):
    label_studio.before = [Answer(status=429, headers={"Retry-After": "600"})]
    assert "overloaded" in problem_of(UPLOAD, label_studio).message


@pytest.mark.parametrize(
    "address",
    [
        "/data/upload/2/a.png",
        "/labeling/data/upload/2/a.png",
        "upload/2/a.png",
        "http://localhost:8080/labeling/data/upload/2/a.png",
    ],
)
def test_the_base_path_of_label_studio_is_kept(address):
    with running(FakeLabelStudio(base="/labeling", files={UPLOAD: Answer(PICTURE)})) as fake:
        connection = Connection(fake.url, LEGACY, known_as="http://localhost:8080/labeling")
        assert FETCHER.fetch(address, 7, connection).data == PICTURE


ALIAS = "http://label-studio.invalid:8080"


@pytest.mark.parametrize("path", [UPLOAD, "/data/local-files/?d=a.png"])
def test_an_image_under_another_name_of_label_studio_says_which_alias_to_add_and_then_loads(
    label_studio, path
):
    label_studio.files[path] = Answer(PICTURE)
    private = dataclasses.replace(FETCHER, resolve=lambda _host, _port: ["127.0.0.1"])
    problem = problem_of(ALIAS + path, label_studio, fetcher=private)
    assert problem.code == "address_refused"
    assert f"add {ALIAS} to REFCUT_LABEL_STUDIO_ALIASES" in problem.hint
    aliased = dataclasses.replace(private, aliases=(ALIAS,))
    assert fetch(ALIAS + path, label_studio, fetcher=aliased) == PICTURE


def test_label_studio_as_an_image_host_without_its_token_says_that_it_needs_an_alias(label_studio):
    other_name = label_studio.url.replace("127.0.0.1", "localhost")
    trusting = dataclasses.replace(FETCHER, trusted_hosts=frozenset({other_name.removeprefix("http://")}))
    problem = problem_of(other_name + UPLOAD, label_studio, fetcher=trusting)
    assert problem.hint == (
        f"if that is Label Studio under another name, add {other_name} to REFCUT_LABEL_STUDIO_ALIASES"
    )
    aliased = dataclasses.replace(trusting, aliases=(other_name,))
    assert fetch(other_name + UPLOAD, label_studio, fetcher=aliased) == PICTURE


def test_a_cloud_file_below_a_base_path_is_signed_there(storage):
    storage.files["/k?" + SIGNATURE] = Answer(PICTURE)
    link = Answer(status=303, headers={"Location": f"{storage.url}/k?{SIGNATURE}"})
    path = "/tasks/7/presign/?fileuri=czM6Ly9iL2s="
    with running(FakeLabelStudio(base="/labeling", files={path: link})) as fake:
        trusting = ImageFetcher(4000, 20, frozenset({f"127.0.0.1:{storage.port}"}))
        assert fetch("s3://b/k", fake, fetcher=trusting) == PICTURE


def test_an_upload_that_label_studio_keeps_in_a_cloud_is_found(label_studio):
    label_studio.files["/storage-data/uploaded/?filepath=upload%2F2%2Fb.png"] = Answer(PICTURE)
    assert fetch("/data/upload/2/b.png", label_studio) == PICTURE


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_loads_and_gets_no_token(label_studio, storage, monkeypatch, status):
    monkeypatch.setattr(safe_http, "is_public", lambda _address: True)
    storage.files["/bucket/a.png?" + SIGNATURE] = Answer(PICTURE)
    link = f"http://storage.invalid:{storage.port}/bucket/a.png?{SIGNATURE}"
    label_studio.files["/tasks/7/presign/?fileuri=czM6Ly9iL2s="] = Answer(
        status=status, headers={"Location": link}
    )
    reachable = ImageFetcher(4000, 20, resolve=lambda *_: ["127.0.0.1"])
    for token in (LEGACY, PERSONAL):
        assert fetch("s3://b/k", label_studio, token, reachable) == PICTURE
    for seen in storage.seen:
        sent = str(seen.headers)
        assert seen.authorization is None
        assert not any(secret in sent for secret in (LEGACY, PERSONAL, "Bearer"))
    assert len(storage.seen) == 2


def test_a_public_image_is_fetched_without_a_token(label_studio, storage, monkeypatch):
    monkeypatch.setattr(safe_http, "is_public", lambda _address: True)
    storage.files["/a.png"] = Answer(PICTURE)
    reachable = ImageFetcher(4000, 20, resolve=lambda *_: ["127.0.0.1"])
    assert fetch(f"http://pictures.invalid:{storage.port}/a.png", label_studio, fetcher=reachable) == PICTURE
    assert [seen.authorization for seen in storage.seen] == [None]
    assert label_studio.seen == []


@pytest.mark.parametrize("named", ["127.0.0.1", "127.0.0.1:{port}"])
def test_a_private_host_is_asked_only_when_an_engineer_named_it(label_studio, storage, named):
    storage.files["/a.png"] = Answer(PICTURE)
    address = f"{storage.url}/a.png"
    assert problem_of(address, label_studio).code == "address_refused"
    assert storage.seen == []
    trusting = ImageFetcher(4000, 20, frozenset({named.format(port=storage.port)}))
    assert fetch(address, label_studio, fetcher=trusting) == PICTURE


def test_a_redirect_from_label_studio_into_the_private_network_is_refused(label_studio, storage):
    label_studio.files[UPLOAD] = Answer(status=302, headers={"Location": f"{storage.url}/?{SIGNATURE}"})
    problem = problem_of(UPLOAD, label_studio)
    assert (problem.code, storage.seen) == ("address_refused", [])
    assert f"127.0.0.1:{storage.port}" in problem.hint


@pytest.mark.parametrize("location", ["file:///etc/passwd", "gopher://x/", "http://[", "ftp://x/"])
def test_a_redirect_to_what_is_not_http_is_refused(label_studio, location):
    label_studio.files[UPLOAD] = Answer(status=302, headers={"Location": location})
    problem_of(UPLOAD, label_studio)


def test_redirects_in_a_circle_end(label_studio):
    label_studio.files[UPLOAD] = Answer(status=302, headers={"Location": UPLOAD})
    problem_of(UPLOAD, label_studio)
    assert len(label_studio.seen) < 10


class Endless:
    """Two gigabytes, as far as they are taken."""

    def __init__(self) -> None:
        self.sent = 0

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        for _ in range(2048):
            handler.wfile.write(b"x" * 2**20)
            self.sent += 2**20


def dripping(handler: BaseHTTPRequestHandler) -> None:
    """A byte now and then: never silent, never done."""
    for _ in range(600):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.1)


def dripping_headers(handler: BaseHTTPRequestHandler) -> None:
    handler.flush_headers()
    for number in range(600):
        handler.wfile.write(f"X-{number}: x\r\n".encode())
        handler.wfile.flush()
        time.sleep(0.1)


@pytest.mark.parametrize("status", [200, 302, 401])
def test_an_endless_body_is_not_read_to_its_end(label_studio, status):
    body = Endless()
    label_studio.files[UPLOAD] = Answer(body, status, {"Location": "/elsewhere"})
    assert problem_of(UPLOAD, label_studio, token=PERSONAL).code in ("image", "token")
    assert body.sent < 200 * 2**20


def test_a_file_over_the_limit_says_which_setting_bounds_it(label_studio):
    label_studio.files[UPLOAD] = Answer(b"x" * 4001)
    assert "REFCUT_IMAGE_MAX_BYTES" in problem_of(UPLOAD, label_studio).hint
    label_studio.files[UPLOAD] = Answer(b"x" * 4000)
    assert fetch(UPLOAD, label_studio) == b"x" * 4000


@pytest.mark.parametrize("answer", [Answer(dripping), Answer(dripping_headers, open_headers=True)])
def test_a_server_that_sends_a_byte_now_and_then_is_left_at_the_deadline(label_studio, answer):
    label_studio.files[UPLOAD] = answer
    started = time.monotonic()
    problem = problem_of(UPLOAD, label_studio, limit_s=1.0)
    assert "REFCUT_IMAGE_TIMEOUT_S" in problem.hint
    assert time.monotonic() - started < 20


def test_a_compressed_answer_is_refused_before_it_is_decompressed(label_studio):
    label_studio.files[UPLOAD] = Answer(b"\x1f\x8b", headers={"Content-Encoding": "gzip"})
    assert "compresses the image" in problem_of(UPLOAD, label_studio).message


def test_an_unreachable_label_studio_is_named():
    with pytest.raises(RefCutError, match=r"127\.0\.0\.1:9 cannot be reached") as error:
        FETCHER.fetch(UPLOAD, 7, Connection("http://127.0.0.1:9", LEGACY), limit_s=1.0)
    assert "REFCUT_LABEL_STUDIO_URL" in error.value.hint


@pytest.mark.parametrize(
    ("address", "status", "says"),
    [
        (UPLOAD, 404, "does the file still exist"),
        (UPLOAD, 500, "does the file still exist"),
        ("/data/local-files/?d=gone.png", 404, "REFCUT_LOCAL_FILES_DIR"),
        ("/data/local-files/?d=gone.png", 403, "LOCAL_FILES_SERVING_ENABLED"),
        ("s3://b/k", 404, "cloud storage"),
        (UPLOAD, 403, "REFCUT_ACCESS_TOKEN"),
    ],
)
def test_an_image_that_label_studio_does_not_give_says_where_to_look(label_studio, address, status, says):
    path = "/tasks/7/presign/?fileuri=czM6Ly9iL2s=" if address.startswith("s3") else address
    label_studio.files[path] = Answer(status=status)
    problem = problem_of(address, label_studio)
    assert str(status) in problem.message
    assert says in problem.hint
    assert is_withdrawn(problem) == (status != 500)


def test_a_login_page_in_the_way_is_named(label_studio):
    label_studio.files[UPLOAD] = Answer(b"<html>", headers={"Content-Type": "text/html; charset=utf-8"})
    assert "login page" in problem_of(UPLOAD, label_studio).hint


@pytest.mark.parametrize("address", ["ls.example:8080", "http://[", "file:///", "http://"])
def test_a_label_studio_without_a_usable_address_says_which_setting_helps(address):
    with pytest.raises(RefCutError, match="REFCUT_LABEL_STUDIO_URL"):
        FETCHER.fetch(UPLOAD, 7, Connection(address, LEGACY))


def test_an_expired_link_is_named_by_its_host_only(label_studio, storage):
    trusting = ImageFetcher(4000, 20, frozenset({"127.0.0.1"}))
    storage.files["/k?" + SIGNATURE] = Answer(status=403)
    problem = problem_of(
        f"http://user:canary@127.0.0.1:{storage.port}/k?{SIGNATURE}", label_studio, fetcher=trusting
    )
    assert "signed link" in problem.hint
    assert not is_withdrawn(problem)


def test_a_mounted_file_is_read_without_asking_label_studio(label_studio, tmp_path: Path):
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "a.png").write_bytes(b"mounted")
    mounted = ImageFetcher(4000, 20, folders=MountedFolders(uploads=tmp_path))
    assert fetch(UPLOAD, label_studio, fetcher=mounted) == b"mounted"
    assert fetch(f"{label_studio.url}{UPLOAD}", label_studio, fetcher=mounted) == b"mounted"
    assert label_studio.seen == []
    (tmp_path / "2" / "a.png").unlink()
    assert fetch(UPLOAD, label_studio, fetcher=mounted) == PICTURE


def test_an_unchanged_image_is_not_sent_again(label_studio):
    label_studio.files[UPLOAD] = Answer(
        PICTURE, headers={"ETag": '"v1"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
    )
    connection = Connection(label_studio.url, LEGACY)
    first = FETCHER.fetch(UPLOAD, 7, connection)
    assert first.stamp == Stamp(etag='"v1"', last_modified="Mon, 01 Jan 2024 00:00:00 GMT")
    label_studio.files[UPLOAD] = Answer(status=304)
    assert FETCHER.fetch(UPLOAD, 7, connection, first.stamp).data is None
    assert label_studio.seen[-1].headers["If-None-Match"] == '"v1"'
