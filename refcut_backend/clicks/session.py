"""Which object a click is about, given what was clicked before.

A list of several dots says it by itself: the dots on the canvas are the object's clicks, and undo is whatever the next
list says. What was clicked before matters where Label Studio sends less than the annotator sees (contract, section 3):

- with "Auto accept" on, dots go after each answer, and every context has a single click (rule 4);
- boxes and dots are never in one context, nor are dots of two labels (rule 1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from refcut_backend.clicks.context import REGION_ID_PREFIX, ClickContext, check_count
from refcut_backend.errors import NoObjectError, NoPositiveClickError
from refcut_backend.label_studio.prompts import PercentBox, PercentClick

OnMask = Callable[[str, float, float], bool]
"""Whether a place (x, y in percent) lies on the mask last given as the region with this id."""


@dataclass(frozen=True)
class ClickedObject:
    """What is to be segmented.

    region_id: id of the mask to return. One an object, the same for all its clicks: Label Studio replaces an accepted
        region that has the same id (rules 4 and 6).
    clicks: in the order in which they apply. box: the rectangle that the object began with.
    borrowed: ids of those clicks that are dots of a negative label, which no list of this label repeats.
    lone: whether every context so far had a single prompt, as with "Auto accept".
    """

    label: str
    to_name: str
    region_id: str
    clicks: tuple[PercentClick, ...] = ()
    box: PercentBox | None = None
    negative_label_clicks: frozenset[str] = frozenset()
    single_prompt: bool = False

    def click(self, click_id: str) -> PercentClick | None:
        return next((click for click in self.clicks if click.id == click_id), None)


@dataclass(frozen=True)
class RememberedObject:
    """An object as it was last answered.

    accepted: its region has been seen in an annotation or a draft. asked: key of the context that it answered.
    """

    clicked: ClickedObject
    accepted: bool
    clicked_at_s: float
    context_key: str = ""


@dataclass(frozen=True)
class ClickSession:
    """What is known of a task's earlier clicks.

    objects: newest first. polarities: of dots whose polarity Label Studio has forgotten, by id.
    """

    objects: Sequence[RememberedObject] = ()
    polarities: Mapping[str, bool] = field(default_factory=dict)
    on_mask: OnMask = lambda _region_id, _x, _y: False

    def understand(self, context: ClickContext, *, is_negative_label: bool = False) -> ClickedObject:
        """The object that a context is about. Asked again at once, it is the same.

        takes_away: the context's label is a negative one, whose dots belong to the object clicked last.
        Raises NoPositiveClickError or NoObjectError when there is nothing to segment.
        """
        key = context.key()
        again = next((o.clicked for o in self.objects if o.context_key == key), None)
        if again is not None:
            return again
        if is_negative_label:
            clicked = self._of_negative_label(context)
        elif context.boxes:
            clicked = self._boxed(context)
        else:
            clicked = self._pointed_at(context)
        check_count(len(clicked.clicks))
        if clicked.box is None and not any(click.positive for click in clicked.clicks):
            raise NoPositiveClickError(
                "nothing was clicked that belongs to the object", hint="begin with a click without Alt"
            )
        return clicked

    def _pointed_at(self, context: ClickContext) -> ClickedObject:
        clicks = [dot.as_click(self.polarities.get(dot.id)) for dot in context.dots]
        of_label = [o for o in self.objects if _same_label(o, context)]
        known = next((o.clicked for o in of_label if any(o.clicked.click(c.id) for c in clicks)), None)
        if known is not None:
            repeated = len(clicks) == 1 and known.single_prompt and _unmoved(known, clicks[0])
            return _up_to(known, clicks[0]) if repeated else _listed(known, clicks)
        if of_label:
            last = of_label[0]
            if self._refines(last.clicked, clicks):
                return replace(last.clicked, clicks=(*last.clicked.clicks, *clicks))
            if not last.accepted and self._on_box(last.clicked, clicks[0]):
                return _listed(last.clicked, clicks)
        return _fresh(context.label, context.to_name, clicks, single_prompt=len(clicks) == 1)

    def _refines(self, last: ClickedObject, clicks: list[PercentClick]) -> bool:
        """Whether new clicks refine an object whose dots have left the canvas ("Auto accept").

        Several at once do so only when all take away: those cannot begin an object.
        """
        if not last.single_prompt:
            return False
        if not any(click.positive for click in clicks):
            return True
        return len(clicks) == 1 and (self._on_box(last, clicks[0]) or self._on_mask(last, clicks[0]))

    def _on_box(self, clicked: ClickedObject, click: PercentClick) -> bool:
        if clicked.box is None:
            return False
        return clicked.box.holds(click.x_percent, click.y_percent) or self._on_mask(clicked, click)

    def _on_mask(self, clicked: ClickedObject, click: PercentClick) -> bool:
        return self.on_mask(clicked.region_id, click.x_percent, click.y_percent)

    def _boxed(self, context: ClickContext) -> ClickedObject:
        """Every box is an object of its own. The new or moved one is meant; without one, the object answered last."""
        here = {box.id for box in context.boxes}
        known = {
            o.clicked.box.id: o.clicked
            for o in reversed(self.objects)
            if _same_label(o, context) and o.clicked.box is not None and o.clicked.box.id in here
        }
        changed = [box for box in context.boxes if box.id not in known or known[box.id].box != box]
        if not changed:
            return known[list(known)[-1]]
        box = changed[-1]
        if box.id in known:
            return replace(known[box.id], box=box)
        region_id = REGION_ID_PREFIX + box.id
        return ClickedObject(
            context.label, context.to_name, region_id, box=box, single_prompt=len(context.boxes) == 1
        )

    def _of_negative_label(self, context: ClickContext) -> ClickedObject:
        """Dots of a negative label: each belongs to the object that was clicked last when it was new."""
        clicks = [replace(dot.as_click(), positive=False) for dot in context.dots]
        here = [o for o in self.objects if o.clicked.to_name == context.to_name]
        owners = {
            c.id: o.clicked for c in clicks for o in reversed(here) if c.id in o.clicked.negative_label_clicks
        }
        new = [click for click in clicks if click.id not in owners]
        moved = [click for click in clicks if click.id in owners and not _unmoved(owners[click.id], click)]
        if new:
            target = next((o.clicked for o in here if o.clicked.single_prompt or not o.accepted), None)
        elif moved:
            target = owners[moved[-1].id]
        else:
            target = next((o.clicked for o in here if o.clicked.negative_label_clicks & owners.keys()), None)
        if target is None:
            raise NoObjectError(
                f"a click of '{context.label}' takes away from the object clicked last, and there is none",
                hint="click an object of another label first",
            )
        return _with_negative_label(target, clicks, new, moved)


def _same_label(remembered: RememberedObject, context: ClickContext) -> bool:
    clicked = remembered.clicked
    return (clicked.label, clicked.to_name) == (context.label, context.to_name)


def _unmoved(clicked: ClickedObject, click: PercentClick) -> bool:
    known = clicked.click(click.id)
    return known is not None and (known.x_percent, known.y_percent) == (click.x_percent, click.y_percent)


def _fresh(label: str, to_name: str, clicks: Sequence[PercentClick], *, single_prompt: bool) -> ClickedObject:
    return ClickedObject(
        label, to_name, REGION_ID_PREFIX + clicks[0].id, tuple(clicks), single_prompt=single_prompt
    )


def _up_to(clicked: ClickedObject, click: PercentClick) -> ClickedObject:
    """The object as it was when this click was new."""
    count = [known.id for known in clicked.clicks].index(click.id) + 1
    clicks = clicked.clicks[:count]
    return replace(
        clicked,
        clicks=clicks,
        negative_label_clicks=clicked.negative_label_clicks & {known.id for known in clicks},
    )


def _listed(known: ClickedObject, clicks: Sequence[PercentClick]) -> ClickedObject:
    """The object whose dots are these now, with what no list of them repeats: its box and borrowed clicks."""
    if known.box is None and not known.negative_label_clicks:
        return _fresh(known.label, known.to_name, clicks, single_prompt=False)
    left = {click.id: click for click in clicks}
    kept = [
        left.pop(click.id, click)
        for click in known.clicks
        if click.id in left or click.id in known.negative_label_clicks
    ]
    return replace(known, clicks=(*kept, *left.values()), single_prompt=False)


def _with_negative_label(
    target: ClickedObject,
    clicks: Sequence[PercentClick],
    new: Sequence[PercentClick],
    moved: Sequence[PercentClick],
) -> ClickedObject:
    """The object with the dots of a negative label as they are now."""
    if target.single_prompt and len(clicks) == 1 and not moved:
        if not new:
            return _up_to(target, clicks[0])
        return replace(
            target,
            clicks=(*target.clicks, *new),
            negative_label_clicks=target.negative_label_clicks | {new[0].id},
        )
    now = {click.id: click for click in clicks}
    kept = [
        now.get(click.id, click)
        for click in target.clicks
        if click.id not in target.negative_label_clicks or click.id in now
    ]
    added = [click for click in new if click.id not in {k.id for k in kept}]
    negative_label_clicks = (target.negative_label_clicks & now.keys()) | {click.id for click in new}
    return replace(
        target, clicks=(*kept, *added), negative_label_clicks=negative_label_clicks, single_prompt=False
    )
