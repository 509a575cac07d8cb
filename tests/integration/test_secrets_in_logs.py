"""tests/integration/test_secrets_in_logs.py."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from refcut_backend.errors import RefCutError
from refcut_backend.images.fetch import ImageFetcher
from refcut_backend.label_studio.client import connect, explain
from refcut_backend.label_studio.connection import Connection
from refcut_backend.logs import INDISCREET, set_up_logging
from tests.support.fake_label_studio import LEGACY, PERSONAL, Answer, FakeLabelStudio, running

SIGNED = "/bucket/a.png?X-Amz-Signature=canary5160"
UPLOAD = "/data/upload/1/a.png"


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """Everything that is logged at any level, after the program's own set-up."""
    root = logging.getLogger()
    named = [root, *map(logging.getLogger, (*INDISCREET, "refcut"))]
    before = [(logger, logger.level, list(logger.handlers)) for logger in named]
    set_up_logging()
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG)
    logging.getLogger("refcut").setLevel(logging.DEBUG)
    yield text
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers


@pytest.mark.parametrize("token", [LEGACY, PERSONAL])
def test_no_token_and_no_signature_is_in_a_log_at_any_level_or_in_an_error(written, token):
    logging.getLogger("another").debug("the log is open")
    problems: list[RefCutError] = []
    with running(FakeLabelStudio()) as storage, running(FakeLabelStudio()) as label_studio:
        storage.good.add(None)
        fetcher = ImageFetcher(1000, 20, frozenset({f"127.0.0.1:{storage.port}"}))
        label_studio.files[UPLOAD] = Answer(status=302, headers={"Location": storage.url + SIGNED})
        connection = Connection(label_studio.url, token)
        packed = Answer(b"", headers={"Content-Encoding": "br"})
        for answer in (Answer(b"x"), Answer(status=403), Answer(b"x" * 2000), packed):
            storage.files[SIGNED] = answer
            for address in (UPLOAD, storage.url + SIGNED):
                try:
                    fetcher.fetch(address, 1, connection)
                except RefCutError as error:
                    problems.append(error)
        for path in ("/api/projects/1/", "/api/projects/2/"):
            label_studio.files[path] = Answer(status=401)
            try:
                connect(connection, limit_s=5).projects.get(int(path[-2]))
            except Exception as error:
                problems.append(explain(error, connection.label_studio))
    assert len(problems) == 8
    written_text = written.getvalue() + "".join(map(str, problems)) + repr(connection)
    assert "the log is open" in written_text
    for secret in (LEGACY, PERSONAL, PERSONAL.rsplit(".", 1)[1], "canary", "Bearer e"):
        assert secret not in written_text
