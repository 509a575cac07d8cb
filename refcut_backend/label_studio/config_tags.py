"""Reads the tags of a label config (XML) in the way in which Label Studio's editor reads them.

`label-studio-sdk` reads fewer forms than the editor, and a project whose config it misreads works in the browser:

    in the config                           what the editor makes of it
    --------------------------------------  ------------------------------------------------------------------------
    <label VALUE="Wheel"/>, toname="..."    names of tags and attributes in any case
    <Label>Wheel</Label>                    a tag's text is its value
    <Repeater on="$pages">                  its tags once per item of the list; in their attributes {{idx}}, or what
                                            `indexFlag` says, becomes the item's index
    value="$photos[0].url"                  what the task's data has at that path
    value="http://host$image"               the same inside of other text
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from refcut_backend.errors import LabelConfigError

MAX_DEPTH = 100
"""Tags inside of each other."""
MAX_TAGS = 200_000
"""Tags of one task, those of repeaters included."""
MAX_CHARS = 2**25
"""Characters of the attributes into which repeaters of one task put their indexes."""
REPEATER = "repeater"
INDEX_FLAG = "{{idx}}"

TaskData = Mapping[str, Any]
_VARIABLE = re.compile(r"\$[\w\[\].{}]+", re.ASCII)
_STEP = re.compile(r"[^.\[\]]+")
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag of the label config.

    Attributes:
        kind: Its name in lower case, such as "brushlabels".
        attributes: Its attributes, their names in lower case. `value` is its text if it has one.
        children: The tags directly inside.
    """

    kind: str
    attributes: Mapping[str, str]
    children: tuple[Tag, ...] = ()

    def get(self, attribute: str) -> str:
        """Returns an attribute; empty text if the tag lacks it."""
        return self.attributes.get(attribute, "")

    def inside(self) -> Iterator[Tag]:
        """Yields this tag and all tags inside, in the order of the text."""
        yield self
        for child in self.children:
            yield from child.inside()


def read_tags(xml: str) -> Tag:
    """Parses a label config.

    Raises:
        LabelConfigError: The text is not XML, or its tags are nested too deeply.
    """
    try:
        return _tag(ElementTree.fromstring(xml), 0)
    except (ElementTree.ParseError, ValueError) as error:
        raise LabelConfigError(f"the label config cannot be parsed ({type(error).__name__})") from None


def repeated(root: Tag, task_data: TaskData) -> Tag:
    """Returns the tags with every repeater replaced by what it makes for a task.

    Raises:
        LabelConfigError: The task would have more than `MAX_TAGS` tags, or attributes longer than `MAX_CHARS` together.
    """
    made_tags = made_chars = 0

    def each(tag: Tag, indexes: tuple[tuple[str, str], ...]) -> Iterator[Tag]:
        """Yields what a tag becomes; `indexes` are (flag, index) of the repeaters around it."""
        nonlocal made_tags, made_chars
        made_tags += 1
        if made_tags > MAX_TAGS:
            raise LabelConfigError(f"the label config makes more than {MAX_TAGS} tags for the task")
        attributes = tag.attributes
        for flag, index in indexes:
            attributes = {name: value.replace(flag, index) for name, value in attributes.items()}
            made_chars += sum(map(len, attributes.values()))
            if made_chars > MAX_CHARS:
                raise LabelConfigError("the repeaters of the label config make too much text for the task")
        if tag.kind != REPEATER:
            children = tuple(new for child in tag.children for new in each(child, indexes))
            yield Tag(tag.kind, attributes, children)
            return
        items = task_value(attributes.get("on", ""), task_data)
        flag = attributes.get("indexflag", INDEX_FLAG)
        for number in range(len(items) if isinstance(items, list) else 0):
            for child in tag.children:
                yield from each(child, (*indexes, (flag, str(number))))

    return Tag("view", {}, tuple(each(root, ())))


def has_variable(expression: str) -> bool:
    """Whether an attribute's text refers to the task's data."""
    return _VARIABLE.search(expression) is not None


def task_value(expression: str, task_data: TaskData) -> Any:
    """Returns what an attribute such as "$photos[0].url" or "http://host$image" stands for in a task.

    Args:
        expression: The attribute's text. Without a variable it stands for itself.
        task_data: The task's `data`.

    Returns:
        The value at the path, of any type; text if the variable is only a part of the expression. None if the data has no
        such value, or none that can be a part of a text.
    """
    parts = _VARIABLE.findall(expression)
    if parts and parts[0] == expression:
        return _at_path(task_data, expression[1:])
    values = {part: _at_path(task_data, part[1:]) for part in parts}
    if any(not isinstance(value, str | int) or isinstance(value, bool) for value in values.values()):
        return None
    return _VARIABLE.sub(lambda match: str(values[match.group()]), expression)


def _at_path(data: Any, path: str) -> Any:
    """A key of that very name comes before the path that it looks like."""
    if isinstance(data, Mapping) and path in data:
        return data[path]
    found = data
    for step in _STEP.findall(path):
        if isinstance(found, Mapping):
            found = found.get(step)
        elif isinstance(found, list) and _INDEX.fullmatch(step):
            found = found[int(step)] if int(step) < len(found) else None
        else:
            return None
    return found


def _tag(element: ElementTree.Element, depth: int) -> Tag:
    if depth > MAX_DEPTH:
        raise LabelConfigError(f"the label config has more than {MAX_DEPTH} tags inside of each other")
    attributes = {name.lower(): value for name, value in element.attrib.items()}
    # The editor takes the inner XML of a tag, in which & and < are escaped.
    text = "" if len(element) else escape(element.text or "").strip()
    if text:
        attributes["value"] = text
    children = tuple(_tag(child, depth + 1) for child in element)
    return Tag(element.tag.rpartition("}")[2].lower(), attributes, children)
