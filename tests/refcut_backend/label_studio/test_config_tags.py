from __future__ import annotations

import pytest

from refcut_backend.errors import LabelConfigError
from refcut_backend.label_studio import config_tags
from refcut_backend.label_studio.config_tags import Tag, read_tags, repeated, task_value

DATA = {
    "image": "/data/a.jpg",
    "photo": {"url": "/data/b.jpg", "sizes": [3, "x"]},
    "photos": ["/data/0.jpg", {"url": "/data/1.jpg"}],
    "a.b": "of that very name",
    "a": {"b": "of the path"},
    "host": "example.org",
    "nothing": None,
    "number": 7,
}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("$image", "/data/a.jpg"),
        ("$photo.url", "/data/b.jpg"),
        ("$photos[0]", "/data/0.jpg"),
        ("$photos[1].url", "/data/1.jpg"),
        ("$photos.1.url", "/data/1.jpg"),
        ("$photo.sizes", [3, "x"]),
        ("$a.b", "of that very name"),
        ("http://host$image", "http://host/data/a.jpg"),
        ("http://$host/$number", "http://example.org/7"),
        ("https://example.org/fixed.jpg", "https://example.org/fixed.jpg"),
        ("", ""),
        ("$missing", None),
        ("$nothing", None),
        ("$photos[2]", None),
        ("$photos[01]", None),
        ("$photos[-1]", None),
        ("$image.url", None),
        ("$image[0]", None),
        ("http://host/$missing", None),
        ("http://host/$photo", None),
        ("$фото", "$фото"),
    ],
)
def test_a_value_stands_for_what_the_editor_shows(expression, value):
    assert task_value(expression, DATA) == value


def test_names_of_tags_and_attributes_may_have_any_case():
    tag = read_tags('<VIEW><image NAME="Photo" toname="x"/></VIEW>')
    assert tag == Tag("view", {}, (Tag("image", {"name": "Photo", "toname": "x"}),))


@pytest.mark.parametrize(
    ("xml", "value"),
    [
        ("<Label>Wheel</Label>", "Wheel"),
        ("<Label>\n  Wheel \n</Label>", "Wheel"),
        ('<Label value="Door">Wheel</Label>', "Wheel"),
        ('<Label value="Door"> </Label>', "Door"),
        ("<Label>Nuts &amp; bolts</Label>", "Nuts &amp; bolts"),
        ('<Label value="Nuts &amp; bolts"/>', "Nuts & bolts"),
        ("<View>no <Label/></View>", ""),
    ],
)
def test_the_text_of_a_tag_is_its_value(xml, value):
    assert read_tags(xml).get("value") == value


def names(xml: str, data: dict) -> list[str]:
    return [tag.get("name") for tag in repeated(read_tags(xml), data).inside() if tag.get("name")]


def test_a_repeater_makes_its_tags_once_per_item():
    xml = '<View><Repeater on="$photos"><View><Image name="i{{idx}}" value="$photos[{{idx}}]"/></View></Repeater></View>'
    assert names(xml, DATA) == ["i0", "i1"]
    assert names(xml, {"photos": []}) == names(xml, {"photos": "text"}) == names(xml, {}) == []


def test_the_flag_of_a_repeater_can_be_chosen_and_repeaters_can_be_nested():
    xml = (
        '<View><Repeater on="$rows" indexFlag="%r"><Repeater on="$rows[%r]" indexFlag="%c">'
        '<Image name="i%r-%c"/></Repeater></Repeater></View>'
    )
    assert names(xml, {"rows": [["a", "b"], ["c"]]}) == ["i0-0", "i0-1", "i1-0"]


def test_a_repeater_that_makes_too_many_tags_is_refused(monkeypatch):
    monkeypatch.setattr(config_tags, "MAX_TAGS", 100)
    xml = '<View><Repeater on="$a"><Repeater on="$a"><Image name="i"/></Repeater></Repeater></View>'
    assert len(names(xml, {"a": [0] * 5})) == 25
    with pytest.raises(LabelConfigError, match="more than 100"):
        names(xml, {"a": [0] * 10_000})


def test_a_repeater_that_makes_too_much_text_is_refused():
    xml = f'<View><Repeater on="$a"><Label value="{"x" * 1000}"/></Repeater></View>'
    with pytest.raises(LabelConfigError, match="too much text"):
        names(xml, {"a": [0] * 100_000})


def test_a_repeater_without_items_costs_nothing_for_what_is_inside():
    inside = '<Repeater on="$none">' + "<Label/>" * 20_000 + "</Repeater>"
    assert names(f'<View><Repeater on="$a">{inside}</Repeater></View>', {"a": [0] * 100_000}) == []


@pytest.mark.parametrize("xml", ["<View>", "not xml", "", "<View>&nbsp;</View>", "\ud800", "<a>" * 200_000])
def test_what_is_not_xml_is_refused(xml):
    with pytest.raises(LabelConfigError, match="cannot be parsed"):
        read_tags(xml)


def test_tags_that_are_nested_too_deeply_are_refused():
    with pytest.raises(LabelConfigError, match="inside of each other"):
        read_tags("<a>" * 50_000 + "</a>" * 50_000)


def test_entities_that_multiply_are_refused():
    entities = '<!ENTITY a0 "aaaaaaaaaa">' + "".join(
        f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10)
    )
    with pytest.raises(LabelConfigError):
        read_tags(f"<!DOCTYPE x [{entities}]><View>&a9;</View>")


def test_files_are_never_read_for_an_entity(tmp_path):
    (tmp_path / "secret").write_text("canary")
    with pytest.raises(LabelConfigError):
        read_tags(f'<!DOCTYPE x [<!ENTITY f SYSTEM "file://{tmp_path}/secret">]><Label>&f;</Label>')
