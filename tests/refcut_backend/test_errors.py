from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from refcut_backend.cli.main import app
from refcut_backend.clicks.service import EMPTY_CONTEXT, EMPTY_MASK
from refcut_backend.errors import ImageError, RefCutError, all_reasons, reasons_table
from refcut_backend.prelabeling.batch import SEVERAL_REFUSED
from refcut_backend.references.selection import NoSuchReferenceError
from tests.support.recorded import REPOSITORY

DOCUMENT = (REPOSITORY / "docs" / "label-studio.md").read_text()


def test_the_documented_reasons_are_the_ones_in_the_code():
    assert reasons_table() + "\n" in DOCUMENT


def test_the_command_prints_the_documented_table():
    result = CliRunner().invoke(app, ["reasons"])
    assert (result.exit_code, result.stdout.strip()) == (0, reasons_table())


def test_every_reason_says_what_it_means():
    assert [reason.code for reason in all_reasons() if not reason.meaning] == []


def test_no_two_reasons_have_the_same_meaning():
    assert len({reason.meaning for reason in all_reasons()}) == len(all_reasons())


@pytest.mark.parametrize("code", [EMPTY_CONTEXT, EMPTY_MASK, SEVERAL_REFUSED, NoSuchReferenceError.code])
def test_codes_of_other_modules_are_explained(code):
    assert code in {reason.code for reason in all_reasons()}


def test_links_in_the_table_lead_to_documents():
    for target in re.findall(r"\]\((\w[\w-]*\.md)\)", reasons_table()):
        assert (REPOSITORY / "docs" / target).is_file()


def test_an_error_shows_its_hint_after_the_message():
    assert str(ImageError("no image", hint="look again")) == "no image; look again"
    assert str(RefCutError("failed")) == "failed"
