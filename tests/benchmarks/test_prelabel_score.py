"""What the benchmark measures is what `refcut prelabel` proposes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from benchmarks import prelabel_score
from model.data.annotated_objects import AnnotatedObject
from model.data.readers import SetDescription
from model.predictor import RefCutPredictor
from model.predictor_config import SERVING
from model.proposal_score import ProposalFeatures
from model.proposals import Proposal, find_candidates
from tests.support.colour_world import make_annotated_object
from tests.support.synthetic import TINY_READING, random_network


@pytest.fixture
def annotated_objects(tmp_path: Path) -> list[AnnotatedObject]:
    """Two photographs with two parts each, of which they share one."""
    parts = {"a": ["wheel", "door"], "b": ["wheel", "roof"]}
    return [make_annotated_object(tmp_path / f"{name}.png", names) for name, names in parts.items()]


@pytest.fixture
def looked(
    annotated_objects: list[AnnotatedObject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[prelabel_score.Looked, list[Proposal]]]:
    """What the benchmark has in its file, with what was proposed at that moment."""
    proposed: list[list[Proposal]] = []

    def noted(predictor: RefCutPredictor, locations: int) -> list[Proposal]:
        proposed.append(find_candidates(predictor, locations) or [])
        return proposed[-1]

    monkeypatch.setattr(prelabel_score, "find_candidates", noted)
    monkeypatch.setattr(SetDescription, "read", lambda _: annotated_objects)
    settings = dataclasses.replace(SERVING, network_px=112, resampling="area", threshold=0.2)
    predictor = RefCutPredictor(random_network(TINY_READING, 0), settings)
    out = tmp_path / "found.jsonl"
    prelabel_score.look(SetDescription.parse("coco:x,name=cars"), 2, predictor, out)
    return list(zip(prelabel_score.read(out), proposed, strict=True))


def test_labels_that_are_on_a_photograph_and_labels_that_are_not_are_looked_for(looked) -> None:
    found = {(one.photograph, one.label): one.target_hw.any() for one, _ in looked}
    assert found == {
        ("a.png", "wheel"): True,
        ("a.png", "roof"): False,
        ("b.png", "wheel"): True,
        ("b.png", "door"): False,
    }


def test_every_mask_has_the_score_with_which_it_was_proposed(looked) -> None:
    for one, proposed in looked:
        assert proposed
        assert [found.proposal.score for found in one.found] == pytest.approx([p.score for p in proposed])


def test_a_mask_of_a_label_that_is_not_there_has_no_iou_with_it(looked) -> None:
    assert all(found.iou == 0 for one, _ in looked if not one.target_hw.any() for found in one.found)


def test_the_curve_is_fitted_to_the_ious(looked) -> None:
    """One feature says everything: the fitted curve follows it, and leaves the others out."""
    random = np.random.default_rng(0)
    ious = random.uniform(0.1, 0.9, 400)
    names = [field.name for field in dataclasses.fields(ProposalFeatures)]
    (first, _), *_ = looked
    result = first.found[0].proposal.result

    def found(iou: float) -> prelabel_score.Found:
        values = dict(zip(names, random.normal(size=len(names)), strict=True))
        features = ProposalFeatures(**values | {"coverage": float(np.log(iou / (1 - iou)))})
        return prelabel_score.Found(Proposal(result, features, 0.5), float(iou))

    one = dataclasses.replace(first, found=[found(iou) for iou in ious])
    bias, weights = prelabel_score.fit([one], ridge=1e-3)
    assert bias == pytest.approx(0, abs=0.05)
    assert weights.coverage == pytest.approx(1, abs=0.05)
    assert max(abs(getattr(weights, name)) for name in names if name != "coverage") < 0.05
