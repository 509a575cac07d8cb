"""Finds the masks that an answer must repeat: those that the request itself shows to be on the asking browser's canvas.

An answer replaces all suggestions on the canvas (contract, section 3, rule 3). What a request shows decides which masks
go along with the answer:

    on the canvas                    in the request                           its mask
    -------------------------------  ---------------------------------------  ----------------------------------
    another box of the same label    the box, with its id                     goes along
    anything of another label        nothing: a request has the prompts of    stays out: nobody can know whether
                                     the clicked label alone                  it was rejected, or whose it is

A browser draws the ids of its boxes at random, so a box in a request was drawn by the browser that asks. Time alone is no
reason: without the rule, an annotator would be shown masks of a colleague on the same task, and masks that they had
rejected. A mask of another label is therefore lost unless it is accepted before the label is changed.
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

    Args:
        objects: The task's objects, newest first.
        context: Dots or boxes of the clicked label.
        clicked: The object that the click is about; None if that is unknown. It is never part of the result.
        now_s: Seconds since 1970.
        pending_s: Longest age of a pending mask in seconds; 0 turns pending masks off.

    Returns:
        Objects whose masks belong into the answer, newest first.
    """
    shown = {box.id for box in context.boxes}
    return [
        known
        for known in objects
        if known.clicked.box is not None
        and known.clicked.box.id in shown
        and (known.clicked.label, known.clicked.to_name) == (context.label, context.to_name)
        and (clicked is None or known.clicked.region_id != clicked.region_id)
        and not known.accepted
        and now_s - known.clicked_at_s <= pending_s
    ]
