"""Settings of a fine-tuning."""

from __future__ import annotations

from model.finetuning.config import FineTuneSettings


def test_settings_of_version_0_1_are_read() -> None:
    settings = FineTuneSettings.model_validate_json('{"origin_share": 0.25}')
    assert settings == FineTuneSettings(anchor_share=0.25)
    assert FineTuneSettings.model_validate_json(settings.model_dump_json()) == settings
