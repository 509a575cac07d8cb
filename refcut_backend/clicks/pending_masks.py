"""Masks that the annotator has not accepted yet.

An answer replaces all suggestions on the canvas (contract, section 3, rule 3), so the masks of other labels that are
still pending must come along with it. No request says what was accepted or thrown away: what was seen in an annotation
or a draft is accepted, and the rest is a matter of evidence and age.
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
    """The objects of a task whose masks go along with the answer to a context, newest first.

    Of each label the one clicked last counts, since a new list of dots means that the earlier one was accepted or
    dropped; boxes say by themselves that they are still there. objects: newest first. clicked: what the context is
    about, None when it could not be answered. pending_s: longest age.
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
    """Whether single clicks refined it: then its earlier dots had left the canvas, as "Auto accept" makes them."""
    return one.single_prompt and (
        len(one.negative_label_clicks) > 1 or len(one.clicks) - len(one.negative_label_clicks) > 1
    )
