from __future__ import annotations

from refcut_backend.references.authors import RETRY_AFTER_S, UserEmails
from tests.support.label_studio_api import LabelStudioApi, serving
from tests.support.registry import open_registry


def test_users_are_asked_for_once_and_again_only_for_an_unknown_one_after_a_while(tmp_path):
    clock = [0.0]
    with serving(LabelStudioApi()) as api, open_registry(tmp_path) as registry:
        registry.connect(api)
        addresses = UserEmails(registry.projects, now=lambda: clock[0])
        for _ in range(3):
            assert addresses.email_of(7, 2) == "annotator@example.com"
            assert addresses.email_of(7, 3) is None
        assert len(api.requests) == 1
        api.users.append({"id": 3, "email": "new@example.com"})
        clock[0] += RETRY_AFTER_S + 1
        assert addresses.email_of(7, 3) == "new@example.com"
        api.fails_with = 500
        clock[0] += RETRY_AFTER_S + 1
        assert addresses.email_of(7, 4) is None
        assert addresses.email_of(7, 2) == "annotator@example.com"


def test_an_unknown_project_has_no_addresses(tmp_path):
    with open_registry(tmp_path) as registry:
        assert UserEmails(registry.projects).email_of(99, 1) is None
