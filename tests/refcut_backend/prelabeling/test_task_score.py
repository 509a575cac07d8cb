from __future__ import annotations

from refcut_backend.prelabeling.task import task_score


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
