"""A task's way from its references to a prediction; only the workers are fake."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from refcut_backend.clicks.options import AnswerRules
from refcut_backend.database.engine import open_database
from refcut_backend.errors import ImageError, NoReferenceError, RefCutError
from refcut_backend.images.hidden_urls import Addresses
from refcut_backend.label_studio import brush_rle
from refcut_backend.label_studio.payloads import Timestamp
from refcut_backend.prelabeling.task import TaskPrelabeller, TaskToPrelabel, task_score
from refcut_backend.queue.messages import (
    FoundLabel,
    FoundMask,
    LeftOutReference,
    PrelabelAnswer,
    PrelabelJob,
)
from refcut_backend.references.annotation_states import AnnotationUpdate
from refcut_backend.references.parse import LabelReference
from refcut_backend.references.registry import References
from tests.support.recorded import LABEL_CONFIG

RLES = {"Hood": brush_rle.encode(np.eye(4, dtype=bool)), "Wheel": brush_rle.encode(~np.eye(4, dtype=bool))}
SIGNED = "https://bucket.s3.amazonaws.com/a.png?X-Amz-Signature=canary"


class Queue:
    """Answers each job by `answers`, in turn; the last one again and again."""

    def __init__(self, *answers: Callable[[PrelabelJob], PrelabelAnswer]) -> None:
        self.jobs: list[PrelabelJob] = []
        self.continuations: list[bool] = []
        self._answers = list(answers)

    def workers(self) -> list[str]:
        return []

    def ask(
        self, job: PrelabelJob, _deadline: float, _is_cancelled: object, *, is_continuation: bool
    ) -> PrelabelAnswer:
        self.jobs.append(job)
        self.continuations.append(is_continuation)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return answer(job)


def finding(*scores: float, labels: int = 9, version: str = "s14"):
    """A worker that finds masks with these scores of the first few labels."""

    def answer(job: PrelabelJob) -> PrelabelAnswer:
        found = [
            FoundLabel(
                one.label,
                one.to_name,
                4,
                4,
                tuple(FoundMask(RLES[one.label], score) for score in scores),
                ("v",),
            )
            for one in job.labels[:labels]
        ]
        return PrelabelAnswer(tuple(found), version)

    return answer


@pytest.fixture
def engine(tmp_path):
    engine = open_database(f"sqlite:///{tmp_path / 'refcut.db'}")
    references = References(engine)
    for annotation, label in enumerate(("Wheel", "Hood", "Wheel", "Elsewhere"), start=1):
        reference = LabelReference(label, "image", np.eye(4, dtype=bool), None)
        updated_at = Timestamp(f"2026-01-{annotation:02}T00:00:00Z")
        update = AnnotationUpdate(7, annotation, annotation, updated_at, [(reference, "/r.png")])
        references.annotations.apply_webhook(update, "ANNOTATION_CREATED")
    yield engine
    engine.dispose()


def prelabel(
    engine, queue: Queue, image: object = "/a.png", labels: frozenset[str] | None = None, project: int = 7
):
    prelabeller = TaskPrelabeller(queue, References(engine), Addresses(engine), AnswerRules())
    return prelabeller.prelabel(TaskToPrelabel(project, 3, {"image": image}, LABEL_CONFIG, labels), 60)


def test_every_label_with_references_is_looked_for_with_its_newest_ones(engine):
    queue = Queue(finding(0.5))
    prelabel(engine, queue)
    (job,) = queue.jobs
    newest = {
        label: tuple(r.id for r in References(engine).newest(7, label, 4)) for label in ("Hood", "Wheel")
    }
    assert {one.label: one.reference_ids for one in job.labels} == newest


def test_masks_are_regions_as_a_click_gives_them_with_ids_of_their_own_and_scores(engine):
    found = prelabel(engine, Queue(finding(0.75, 0.5)))
    regions = found.prediction["result"]
    assert found.masks == len(regions) == 4
    assert len({region["id"] for region in regions}) == 4
    assert [region["value"]["brushlabels"] for region in regions] == [
        ["Hood"],
        ["Hood"],
        ["Wheel"],
        ["Wheel"],
    ]
    assert [region["score"] for region in regions] == [0.75, 0.5, 0.75, 0.5]
    (first, *_) = regions
    assert (first["from_name"], first["to_name"], first["type"], first["origin"]) == (
        "brush",
        "image",
        "brushlabels",
        "prediction",
    )
    assert first["meta"]["text"] == ["RefCut reference: v"]
    assert (found.prediction["model_version"], found.prediction["score"]) == ("s14", 0.5)


def test_labels_that_a_click_left_undone_are_requested_again_and_the_task_is_complete(engine):
    queue = Queue(finding(0.5, labels=0), finding(0.5, labels=1), finding(0.7))
    found = prelabel(engine, queue)
    assert [[one.label for one in job.labels] for job in queue.jobs] == [["Hood", "Wheel"]] * 2 + [["Wheel"]]
    assert queue.continuations == [False, False, True]
    assert found.masks == 2


def test_masks_of_two_model_versions_are_not_mixed(engine):
    queue = Queue(finding(0.5, labels=1, version="old"), finding(0.6, version="new"))
    found = prelabel(engine, queue)
    assert found.model_version == "new"
    assert [region["score"] for region in found.prediction["result"]] == [0.6, 0.6]


def test_a_label_that_is_found_nowhere_lowers_the_tasks_score(engine):
    def only_hood(job: PrelabelJob) -> PrelabelAnswer:
        found = finding(0.8)(job).found
        return PrelabelAnswer(
            tuple(FoundLabel(f.label, f.to_name, 4, 4, f.masks[: f.label == "Hood"], ("v",)) for f in found),
            "s14",
        )

    assert prelabel(engine, Queue(only_hood)).prediction["score"] == 0.4
    assert prelabel(engine, Queue(finding())).prediction == {
        "model_version": "s14",
        "score": 0.0,
        "result": [],
    }


def test_a_label_that_is_found_on_a_surer_one_is_left_out_and_counts_as_not_found(engine):
    def same(job: PrelabelJob) -> PrelabelAnswer:
        scores = {"Hood": 0.4, "Wheel": 0.8}
        found = [
            FoundLabel(one.label, one.to_name, 4, 4, (FoundMask(RLES["Hood"], scores[one.label]),), ("v",))
            for one in job.labels
        ]
        return PrelabelAnswer(tuple(found), "s14")

    found = prelabel(engine, Queue(same))
    assert [region["value"]["brushlabels"] for region in found.prediction["result"]] == [["Wheel"]]
    assert (found.masks, found.prediction["score"]) == (1, 0.4)


def test_only_the_labels_that_were_named_are_looked_for(engine):
    queue = Queue(finding(0.5))
    prelabel(engine, queue, labels=frozenset({"Wheel"}))
    assert [one.label for one in queue.jobs[0].labels] == ["Wheel"]


def test_without_references_or_image_there_is_a_reason_and_no_worker_is_asked(engine):
    queue = Queue(finding(0.5))
    with pytest.raises(NoReferenceError):
        prelabel(engine, queue, project=8)
    with pytest.raises(ImageError):
        prelabel(engine, queue, image=None)
    assert not queue.jobs


def test_a_workers_refusal_is_the_reason(engine):
    queue = Queue(lambda _job: PrelabelAnswer(error_code="image", error_message="the image is damaged"))
    with pytest.raises(RefCutError, match="the image is damaged") as refused:
        prelabel(engine, queue)
    assert refused.value.code == "image"


def losing(*labels: str):
    """A worker that finds a mask of every label, but cannot use a reference of these, their only one."""

    def answer(job: PrelabelJob) -> PrelabelAnswer:
        lost = LeftOutReference(job.labels[0].reference_ids[0], "w", 9, "image", "answers 404")
        found = [
            FoundLabel(one.label, one.to_name, 4, 4, (), (), (lost,))
            if one.label in labels
            else FoundLabel(one.label, one.to_name, 4, 4, (FoundMask(RLES[one.label], 0.5),), ("v",))
            for one in job.labels
        ]
        return PrelabelAnswer.from_json(PrelabelAnswer(tuple(found), "s14").to_json())

    return answer


def test_a_label_whose_references_are_lost_is_named_and_the_others_are_found(engine):
    found = prelabel(engine, Queue(losing("Hood")))
    assert [region["value"]["brushlabels"] for region in found.prediction["result"]] == [["Wheel"]]
    assert found.references_left_out == ("w (task 9): answers 404",)
    assert [one.problem for one in References(engine).newest(7, "Hood", 4)] == ["answers 404"]


def test_a_task_none_of_whose_references_can_be_used_is_refused_with_the_reason(engine):
    with pytest.raises(RefCutError, match=r"no reference can be used: w \(task 9\): answers 404") as error:
        prelabel(engine, Queue(losing("Hood", "Wheel")))
    assert error.value.code == "image"


def test_a_signed_link_does_not_reach_the_queue(engine):
    queue = Queue(finding(0.5))
    prelabel(engine, queue, image=SIGNED)
    assert "canary" not in str(queue.jobs)
    assert Addresses(engine).read(queue.jobs[0].labels[0].image_address) == SIGNED


def test_a_task_is_as_sure_as_its_labels_least_sure_masks_on_average():
    assert task_score([[0.9, 0.5], [0.7]]) == 0.6


def test_a_label_that_was_found_nowhere_counts_as_nothing():
    assert task_score([[0.8], []]) == 0.4


def test_the_more_doubt_the_earlier_in_the_list():
    tasks = {
        "sure": [[0.9], [0.9]],
        "one doubt": [[0.9], [0.9, 0.3]],
        "missing": [[0.9], []],
        "nothing": [[], []],
    }
    assert sorted(tasks, key=lambda name: task_score(tasks[name])) == [
        "nothing",
        "missing",
        "one doubt",
        "sure",
    ]


def test_without_labels_there_is_nothing_to_be_sure_of():
    assert task_score([]) == 0
