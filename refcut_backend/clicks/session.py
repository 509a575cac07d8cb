"""Decides which object a click request is about. This is the hardest part of answering a click.

Label Studio sends the prompts (dots or boxes) that lie on the canvas, for one label at a time, and no object id
(contract, section 3, rules 1 and 4). A list of dots that has grown is simple: its dots are the object's clicks. The
history decides the other cases:

    the request has                              the object is                                           method
    -------------------------------------------  ------------------------------------------------------  -----------------
    a context that was answered before           the same object again, unchanged                        understand
    a dot that a known object has                that object, with the dots as they are now              _of_dots
    one new dot, on the mask of the last object  that object, refined (*)                                _refines
    only new negative dots                       the last object, refined (*)                            _refines
    a new dot inside the box of the last object  that object, refined                                    _of_dots
    any other new dots                           a new object                                            _new_object
    a new or moved box                           a new object, or the object of that box                 _of_boxes
    dots of a negative label                     the object clicked last when each dot was new         _of_negative_label
    dots of the label Smaller or Larger          the same; each new dot is one step to another mask    _of_step_label

(*) Only if every request about the last object had a single prompt (`single_prompt`). "Auto accept" is then on: it
removes the dots after each answer, and the list never grows. "The last object" is the newest one of the same label
and image tag.

An undo needs no case of its own: the next list of dots simply lacks one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from refcut_backend.clicks.context import REGION_ID_PREFIX, ClickContext, check_count
from refcut_backend.errors import NoObjectError, NoPositiveClickError
from refcut_backend.label_studio.prompts import PercentBox, PercentClick

OnMask = Callable[[str, float, float], bool]
"""(region id, x, y) -> whether that point lies on the latest mask of that region; x, y in percent of the image's size."""


@dataclass(frozen=True)
class ClickedObject:
    """An object that is to be segmented.

    Attributes:
        label: Its label.
        to_name: Name of the image that it lies on (`image_name`).
        region_id: Id of the region to return. It stays the same for all clicks of an object, because Label Studio
            replaces an accepted region that has the same id (contract, section 3, rules 4 and 6).
        clicks: Clicks in the order in which they apply, in percent of the image's size.
        box: The rectangle that the object began with; None if it began with a click.
        negative_label_clicks: Ids of those clicks that are dots of a negative label. No list of this label repeats them.
        single_prompt: Whether every request so far had a single prompt, as with "Auto accept".
        extent: Steps from the network's own choice to a larger mask, negative for a smaller one. A further click begins
            at the network's choice again.
        step_dots: Ids of the dots of the labels Smaller and Larger that have been counted. They are not clicks.
    """

    label: str
    to_name: str
    region_id: str
    clicks: tuple[PercentClick, ...] = ()
    box: PercentBox | None = None
    negative_label_clicks: frozenset[str] = frozenset()
    single_prompt: bool = False
    extent: int = 0
    step_dots: frozenset[str] = frozenset()

    def click(self, click_id: str) -> PercentClick | None:
        """Return the click with an id; None if the object has no such click."""
        return next((click for click in self.clicks if click.id == click_id), None)


@dataclass(frozen=True)
class RememberedObject:
    """An object as it was last answered.

    Attributes:
        clicked: The object.
        accepted: Whether its region has been seen in an annotation or a draft.
        clicked_at_s: When the answered click came in, seconds since 1970.
        context_key: Key of the context that was answered (`ClickContext.key`).
    """

    clicked: ClickedObject
    accepted: bool
    clicked_at_s: float
    context_key: str = ""


@dataclass(frozen=True)
class ClickSession:
    """The earlier clicks on a task.

    Attributes:
        objects: Objects that were clicked lately, newest first.
        polarities: Dot id to whether it is positive, for dots whose polarity Label Studio has forgotten.
        on_mask: Tests whether a point lies on an object's latest mask.
    """

    objects: Sequence[RememberedObject] = ()
    polarities: Mapping[str, bool] = field(default_factory=dict)
    on_mask: OnMask = lambda _region_id, _x, _y: False

    def understand(
        self, context: ClickContext, *, is_negative_label: bool = False, step: int = 0
    ) -> ClickedObject:
        """Find the object that a context is about. The same context again gives the same object.

        Args:
            context: Dots or boxes of one label.
            is_negative_label: Whether the label is a negative one, whose dots belong to the object clicked last.
            step: 1 for the label Larger, -1 for Smaller: its dots step the mask of the object clicked last. 0 for others.

        Raises:
            NoPositiveClickError: If the object has neither a box nor a positive click.
            NoObjectError: If a label that belongs to the object clicked last is clicked, and there is no such object.
            BadRequestError: If the object has more clicks than are allowed.
        """
        key = context.key()
        again = next((o.clicked for o in self.objects if o.context_key == key), None)
        if again is not None:
            return again
        if step:
            return self._of_step_label(context, step)
        if is_negative_label:
            clicked = self._of_negative_label(context)
        elif context.boxes:
            clicked = self._of_boxes(context)
        else:
            clicked = self._of_dots(context)
        check_count(len(clicked.clicks))
        if clicked.box is None and not any(click.positive for click in clicked.clicks):
            raise NoPositiveClickError(
                "nothing was clicked that belongs to the object", hint="begin with a click without Alt"
            )
        return clicked if self._was_answered(clicked) else replace(clicked, extent=0)

    def _was_answered(self, clicked: ClickedObject) -> bool:
        prompts = clicked.clicks, clicked.box
        return any((o.clicked.clicks, o.clicked.box) == prompts for o in self.objects)

    def _of_dots(self, context: ClickContext) -> ClickedObject:
        clicks = [dot.as_click(self.polarities.get(dot.id)) for dot in context.dots]
        of_label = [o for o in self.objects if _same_label(o, context)]
        known = next((o.clicked for o in of_label if any(o.clicked.click(c.id) for c in clicks)), None)
        if known is not None:
            repeated = len(clicks) == 1 and known.single_prompt and _unmoved(known, clicks[0])
            return _up_to(known, clicks[0]) if repeated else _with_dots(known, clicks)
        if of_label:
            last = of_label[0]
            if self._refines(last.clicked, clicks):
                return replace(last.clicked, clicks=(*last.clicked.clicks, *clicks))
            if not last.accepted and self._on_box(last.clicked, clicks[0]):
                return _with_dots(last.clicked, clicks)
        return _new_object(context.label, context.to_name, clicks, single_prompt=len(clicks) == 1)

    def _refines(self, last: ClickedObject, clicks: list[PercentClick]) -> bool:
        """Whether new clicks refine an object whose dots have left the canvas ("Auto accept").

        Several at once do so only if all are negative: those cannot begin an object.
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

    def _of_boxes(self, context: ClickContext) -> ClickedObject:
        """Every box is an object of its own.

        The new or moved one is meant; if there is none, the object answered last.
        """
        present = {box.id for box in context.boxes}
        known = {
            o.clicked.box.id: o.clicked
            for o in reversed(self.objects)
            if _same_label(o, context) and o.clicked.box is not None and o.clicked.box.id in present
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
        """Every dot of a negative label belongs to the object that was clicked last when the dot was new."""
        clicks = [replace(dot.as_click(), positive=False) for dot in context.dots]
        on_image = self._on_image(context)
        owners = {
            c.id: o.clicked
            for c in clicks
            for o in reversed(on_image)
            if c.id in o.clicked.negative_label_clicks
        }
        new = [click for click in clicks if click.id not in owners]
        moved = [click for click in clicks if click.id in owners and not _unmoved(owners[click.id], click)]
        if new:
            target = _clicked_last(on_image)
        elif moved:
            target = owners[moved[-1].id]
        else:
            target = next(
                (o.clicked for o in on_image if o.clicked.negative_label_clicks & owners.keys()), None
            )
        if target is None:
            raise _no_object(f"a click of '{context.label}' takes away from the object clicked last")
        return _with_negative_label(target, clicks, new, moved)

    def _of_step_label(self, context: ClickContext, step: int) -> ClickedObject:
        """Every new dot of Smaller or Larger is one step; a dot that was dragged or is gone changes nothing."""
        on_image = self._on_image(context)
        new = frozenset(context.ids).difference(*(o.clicked.step_dots for o in on_image))
        if not new:
            return next(o.clicked for o in on_image if o.clicked.step_dots & set(context.ids))
        target = _clicked_last(on_image)
        if target is None:
            raise _no_object(f"'{context.label}' changes the mask of the object clicked last")
        return replace(target, extent=target.extent + step * len(new), step_dots=target.step_dots | new)

    def _on_image(self, context: ClickContext) -> list[RememberedObject]:
        return [o for o in self.objects if o.clicked.to_name == context.to_name]


def _clicked_last(objects: Sequence[RememberedObject]) -> ClickedObject | None:
    """The newest object that another click can still change."""
    return next((o.clicked for o in objects if o.clicked.single_prompt or not o.accepted), None)


def _no_object(what: str) -> NoObjectError:
    return NoObjectError(f"{what}, and there is none", hint="click an object of another label first")


def _same_label(remembered: RememberedObject, context: ClickContext) -> bool:
    clicked = remembered.clicked
    return (clicked.label, clicked.to_name) == (context.label, context.to_name)


def _unmoved(clicked: ClickedObject, click: PercentClick) -> bool:
    known = clicked.click(click.id)
    return known is not None and (known.x_percent, known.y_percent) == (click.x_percent, click.y_percent)


def _new_object(
    label: str, to_name: str, clicks: Sequence[PercentClick], *, single_prompt: bool
) -> ClickedObject:
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


def _with_dots(known: ClickedObject, clicks: Sequence[PercentClick]) -> ClickedObject:
    """The object with these dots, and with what no list of dots repeats: its box and the dots of other labels."""
    if known.box is None and not known.negative_label_clicks:
        began = _new_object(known.label, known.to_name, clicks, single_prompt=False)
        return replace(began, extent=known.extent, step_dots=known.step_dots)
    left = {click.id: click for click in clicks}
    remaining = [
        left.pop(click.id, click)
        for click in known.clicks
        if click.id in left or click.id in known.negative_label_clicks
    ]
    return replace(known, clicks=(*remaining, *left.values()), single_prompt=False)


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
    remaining = [
        now.get(click.id, click)
        for click in target.clicks
        if click.id not in target.negative_label_clicks or click.id in now
    ]
    added = [click for click in new if click.id not in {k.id for k in remaining}]
    negative_label_clicks = (target.negative_label_clicks & now.keys()) | {click.id for click in new}
    return replace(
        target, clicks=(*remaining, *added), negative_label_clicks=negative_label_clicks, single_prompt=False
    )
