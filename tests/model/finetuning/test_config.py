"""Settings of a fine-tuning."""

from __future__ import annotations

from model.finetuning.config import FineTuneSettings
from model.predictor_config import SERVING


def test_settings_of_version_0_1_are_read() -> None:
    settings = FineTuneSettings.model_validate_json('{"origin_share": 0.25}')
    assert settings == FineTuneSettings(anchor_share=0.25)
    assert FineTuneSettings.model_validate_json(settings.model_dump_json()) == settings


def test_by_default_everything_that_a_project_can_teach_learns_at_the_size_of_its_clicks() -> None:
    settings = FineTuneSettings()
    assert settings.size_px == SERVING.network_px
    assert min(settings.rate_head, settings.rate_prompts, settings.rate_blocks, settings.rate_reader) > 0
