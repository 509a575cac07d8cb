"""What references are worth, from annotations in Label Studio over the real queue and a real worker to the figures."""

from __future__ import annotations

from refcut_backend.images.hidden_urls import Addresses
from refcut_backend.queue.measure_queue import MeasureQueue
from refcut_backend.queue.redis import connect_redis
from refcut_backend.worth.measure import ReferenceWorths, WorthRules
from refcut_backend.worth.store import Outcome
from tests.support.label_studio_api import LabelStudioApi, serving
from tests.support.registry import DOOR, marked, open_registry
from tests.support.worker_farm import WorkerFarm, click, wait_for


def test_a_measurement_is_completed_although_clicks_go_first(farm: WorkerFarm, tmp_path) -> None:
    with serving(LabelStudioApi()) as api, open_registry(tmp_path) as registry:
        registry.connect(api)
        api.add_task(2, "/data/upload/wait for")
        registry.follow(api.annotate(101, 1, DOOR, marked(DOOR)))
        registry.follow(*(api.annotate(100 + task_id, task_id, DOOR) for task_id in range(2, 8)))
        worths = ReferenceWorths(
            registry.engine,
            registry.projects,
            registry.references,
            Addresses(registry.engine),
            MeasureQueue(connect_redis(farm.redis_url)),
            WorthRules(4, tmp_path / "training", "shared"),
        )
        farm.start_worker("--queues", "clicks,measure")
        worths.start(7)
        wait_for(lambda: "mask 2 1" in farm.computed(), "a click with the reference is in work")
        assert farm.ask_and_wait(click("mask", "a", name="click")).reason == "answered"
        (farm.folder / "for").touch()
        wait_for(lambda: worths.store.latest(7).has_ended, "the measurement has ended")
        ended = worths.store.latest(7)
        assert (ended.outcome, ended.message) == (Outcome.DONE, "1 reference measured on 6 annotated masks")
        ((figures,),) = worths.store.of_project(7).values()
        assert {task.task_id for task in figures.tasks} == set(range(2, 8))
        computed = farm.computed()
        assert computed.index("click") < len(computed) - 1 - computed[::-1].index("mask 2 0")
