from __future__ import annotations

import json

import numpy as np
import pytest

from refcut_backend.clicks.log import ClickLog
from refcut_backend.clicks.preload import MAX_LABELS, TaskPreloader
from refcut_backend.clicks.service import AddressHidingSender
from refcut_backend.clicks.session import ClickedObject
from refcut_backend.database.engine import open_database
from refcut_backend.images.hidden_urls import Addresses
from refcut_backend.label_studio.payloads import Timestamp
from refcut_backend.queue.messages import ClickAnswer, ClickJob, PreloadJob
from refcut_backend.references.annotation_states import AnnotationUpdate
from refcut_backend.references.parse import LabelReference
from refcut_backend.references.registry import References
from tests.support.recorded import LABEL_CONFIG

SIGNED = "https://bucket.s3.amazonaws.com/a.png?X-Amz-Signature=canary"


class Queue:
    def __init__(self) -> None:
        self.jobs: list[PreloadJob] = []

    def ask(self, job: PreloadJob) -> bool:
        self.jobs.append(PreloadJob.from_json(json.loads(json.dumps(job.to_json()))))
        return True


@pytest.fixture
def engine(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path / 'refcut.db'}")
    yield engine
    engine.dispose()


def opened(engine, data: dict[str, object], config: str = LABEL_CONFIG) -> list[PreloadJob]:
    queue = Queue()
    preloader = TaskPreloader(queue, References(engine), ClickLog(engine), Addresses(engine), 4)
    preloader.prepare(7, 3, data, config)
    return queue.jobs


def refer(engine, label: str, annotation: int) -> None:
    mask_hw = np.eye(4, dtype=bool)
    reference = LabelReference(label, "image", mask_hw, None)
    updated_at = Timestamp(f"2026-01-{annotation:02}T00:00:00Z")
    update = AnnotationUpdate(7, annotation, annotation, updated_at, [(reference, "/r.png")])
    References(engine).annotations.apply_webhook(update, "ANNOTATION_CREATED")


def test_an_opened_task_asks_for_its_image_and_its_labels_newest_references(engine):
    for annotation, label in enumerate(["Wheel", "Wheel", "Hood", "Elsewhere"], start=1):
        refer(engine, label, annotation)
    (job,) = opened(engine, {"image": "/data/upload/7/a.png"})
    assert (job.project_id, job.task_id, job.image_addresses) == (7, 3, ("/data/upload/7/a.png",))
    assert job.reference_ids_by_label == (of_label(engine, "Hood"), of_label(engine, "Wheel"))
    assert len(of_label(engine, "Wheel")) == 2


def of_label(engine, label: str) -> tuple[int, ...]:
    """What a click on the label uses."""
    return tuple(reference.id for reference in References(engine).newest(7, label, 4))


def test_labels_that_were_clicked_last_are_prepared_first(engine):
    for annotation, label in enumerate(["Wheel", "Hood", "Door"], start=1):
        refer(engine, label, annotation)
    for label in ("Wheel", "Door", "Wheel", "Gone"):
        clicked = ClickedObject(label, "image", "rc-a", ())
        ClickLog(engine).add(7, 2, clicked, model_version="s14", reference_versions=(), milliseconds=1)
    (job,) = opened(engine, {"image": "/data/upload/7/a.png"})
    assert job.reference_ids_by_label == tuple(of_label(engine, label) for label in ("Wheel", "Door", "Hood"))


def test_no_more_labels_are_prepared_than_a_worker_has_time_for(engine):
    labels = [f"Part {number}" for number in range(10, 10 + MAX_LABELS + 2)]
    for annotation, label in enumerate(labels, start=1):
        refer(engine, label, annotation)
    values = "".join(f'<Label value="{label}"/>' for label in labels)
    config = (
        '<View><Image name="image" value="$image"/><KeyPointLabels name="dot" toName="image" smart="true">'
        f'{values}</KeyPointLabels><BrushLabels name="mask" toName="image">{values}</BrushLabels></View>'
    )
    (job,) = opened(engine, {"image": "/data/upload/7/a.png"}, config)
    assert job.reference_ids_by_label == tuple(of_label(engine, label) for label in labels[:MAX_LABELS])


@pytest.mark.parametrize("data", [{}, {"image": 3}, {"text": "no picture"}])
def test_a_task_without_an_image_asks_for_nothing(engine, data):
    assert opened(engine, data) == []


def test_a_broken_label_config_is_logged_and_asks_for_nothing(engine, caplog):
    assert opened(engine, {"image": "/a.png"}, "<View") == []
    assert "not prepared" in caplog.text


def test_a_signed_link_does_not_get_into_redis(engine):
    (job,) = opened(engine, {"image": SIGNED})
    assert "canary" not in str(job)
    assert Addresses(engine).read(job.image_addresses[0]) == SIGNED


def test_a_click_on_a_signed_link_takes_only_its_number_to_the_queue(engine):
    seen: list[ClickJob] = []

    class Clicks:
        def ask(self, job: ClickJob) -> ClickAnswer:
            seen.append(job)
            return ClickAnswer()

    AddressHidingSender(Clicks(), Addresses(engine)).ask(ClickJob(7, 3, SIGNED, "Wheel", ()))
    assert "canary" not in str(seen[0].to_json())
    assert Addresses(engine).read(seen[0].image_address) == SIGNED
