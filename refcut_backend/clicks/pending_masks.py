"""Finds the masks that are on the canvas but not accepted yet, so that an answer can repeat them.

An answer replaces all suggestions on the canvas (contract, section 3, rule 3), so it must contain the pending masks
of other labels too. No request tells what was accepted or thrown away: a mask that was seen in an annotation or a
draft is accepted, and the others are judged by later clicks and by their age.
"""

from __future__ import annotations

from collections.abc import Sequence

from refcut_backend.clicks.context import ClickContext
from refcut_backend.clicks.session import ClickedObject, RememberedObject


def still_pending(
    objects: Sequence[RememberedObject],
    context: ClickContext,
    clicked: ClickedObject | None,
    *,
    now_s: float,
    pending_s: float,
) -> list[RememberedObject]:
    """Find the objects whose masks are still pending.

    Only the object of each label that was clicked last counts: a new list of dots means that the earlier object was
    accepted or dropped. A box on the canvas shows that its object is still pending.

    Args:
        objects: The task's objects, newest first.
        context: Dots or boxes of the clicked label.
        clicked: The object that the click is about; None if that is unknown. It is never part of the result.
        now_s: Seconds since 1970.
        pending_s: Longest age of a pending mask in seconds; 0 turns pending masks off.

    Returns:
        Objects whose masks belong into the answer, newest first.
    """
    boxes = {box.id for box in context.boxes}
    taken = {(context.label, context.to_name)}
    if clicked is not None:
        taken.add((clicked.label, clicked.to_name))
    pending = []
    for known in objects:
        one = known.clicked
        if clicked is not None and one.region_id == clicked.region_id:
            continue
        boxed = one.box is not None and one.box.id in boxes
        current = boxed or (one.label, one.to_name) not in taken
        taken.add((one.label, one.to_name))
        young = now_s - known.clicked_at_s <= pending_s
        if current and young and not known.accepted and not _has_left(one):
            pending.append(known)
    return pending


def _has_left(one: ClickedObject) -> bool:
    """Whether single clicks refined it: "Auto accept" had then taken its earlier dots off the canvas, and accepted it."""
    return one.single_prompt and (
        len(one.negative_label_clicks) > 1 or len(one.clicks) - len(one.negative_label_clicks) > 1
    )
