"""Which clicks ask for the same object: the newest of them wins."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping


def older_clicks(newest_ids: Iterable[str], unanswered: Mapping[str, Collection[str]]) -> list[str]:
    """Keys of the unanswered clicks that a newer click of the same object supersedes.

    newest_ids: ids of the dots of the newer click. unanswered: the dots' ids of every earlier click on the same task.
    Label Studio names no user and no object. Every request repeats the dots that are still on the canvas, and a browser
    draws ids at random: two requests that share an id come from one annotator and ask for one object, two that share none
    never concern each other. A dragged dot keeps its id.
    """
    ids = frozenset(newest_ids)
    return [key for key, others in unanswered.items() if not ids.isdisjoint(others)]
