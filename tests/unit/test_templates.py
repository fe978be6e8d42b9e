import random

import pytest

from densevit.data.templates import Template, split_template
from densevit.errors import ConfigError
from densevit.io import place

IMAGES = (".png", ".jpg")


@pytest.mark.parametrize(
    ("template", "path", "expected"),
    [
        ("{name}.png", "a.png", {"name": "a"}),
        ("{name}.png", "a.PNG", {"name": "a"}),
        ("{name}.png", "a.jpg", None),
        ("{name}.png", "b/a.png", None),
        ("{name}.png", ".png", None),
        ("{name}.*", "a.JPG", {"name": "a"}),
        ("{name}.*", "a.txt", None),
        ("{name}_image.*", "001_image.jpg", {"name": "001"}),
        ("{name}_image.*", "001_mask.jpg", None),
        ("frame-{name}.color.png", "frame-000150.color.png", {"name": "000150"}),
        ("{name}.color.png", "frameXcolor.png", None),
        ("{split}/images/{name}_image.*", "train/images/1_image.png", {"split": "train", "name": "1"}),
        ("{folder}/{name}.jpg", "a.jpg", {"folder": "", "name": "a"}),
        ("{folder}/{name}.jpg", "k/l/a.jpg", {"folder": "k/l", "name": "a"}),
        ("images/{folder}/{name}.jpg", "images/a.jpg", {"folder": "", "name": "a"}),
        ("images/{folder}/{name}.jpg", "a.jpg", None),
        ("{folder}/image.jpg", "k/image.jpg", {"folder": "k"}),
        ("{name}/{name}_mask.png", "a/a_mask.png", {"name": "a"}),
        ("{name}/{name}_mask.png", "a/b_mask.png", None),
        ("{name}-*-mask.png", "a-17-mask.png", {"name": "a"}),
        ("*_{name}_*_mask.png", "x_a_7_mask_mask.png", {"name": "a_7"}),
        ("*-{name}/{name}.png", "a-b-c/c.png", {"name": "c"}),
        ("v1.0/{name}", "v1.0/a.png", {"name": "a.png"}),
        ("v1.0/{name}", "v1.0/a.txt", None),
        ("{name}.png", "a.jpg.png", {"name": "a.jpg"}),
        ("{split}/_annotations.coco.json", "valid/_annotations.coco.json", {"split": "valid"}),
        ("task-{task}-by-*-tag-{class}-*.png", "task-7-by-1-tag-crop-0.png", {"task": "7", "class": "crop"}),
        ("caf\u00e9_{name}.png", "caf\u00e9_1.png", {"name": "1"}),
        ("cafe\u0301_{name}.png", "caf\u00e9_1.png", {"name": "1"}),
        ("images\\{name}.png", "images/a.png", {"name": "a"}),
        ("(a+)[b]/{name}.png", "(a+)[b]/c.png", {"name": "c"}),
    ],
)
def test_template__gives_the_placeholders_of_a_path(template: str, path: str, expected: dict[str, str] | None) -> None:
    assert Template(template, IMAGES).match(path) == expected


def test_readings__are_all_that_a_path_can_mean() -> None:
    readings = [*Template("{name}_{class}.png").readings("a_b_c.png")]
    assert readings == [{"name": "a_b", "class": "c"}, {"name": "a", "class": "b_c"}]


def test_specific__is_larger_for_what_says_more_about_a_name() -> None:
    ordered = ["{name}.*", "{name}.png", "{name}_mask.*", "{name}_mask.png"]
    assert sorted(ordered, key=lambda text: Template(text, IMAGES).specific) == ordered


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (
            "{nome}.png",
            "has '{nome}'; {name}, {folder}, {split}, {rest}, {class}, {task}, * and the extension .* are accepted",
        ),
        ("{name.png", "has '{'"),
        ("name}.png", "has '}'"),
        ("{}.png", "has '{}'"),
        ("{folder}_{name}.png", "has {folder} within a name"),
        ("a{folder}/{name}.png", "has {folder} within a name"),
        ("{name}" + "*" * 9, "is too long"),
        ("*{name}*{name}*", "is too long; up to 1000 characters and 4 placeholders"),
        ("{name}" + "a" * 1000, "is too long"),
    ],
)
def test_template__that_cannot_be_understood_is_refused(template: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Template(template)
    assert reason in str(caught.value)


def all_readings(parts: list[str], text: str, values: dict[str, str]) -> list[dict[str, str]]:
    """All placeholders with which the parts make up the text, by trying every length of each."""
    if not parts:
        return [] if text else [values]
    part, *rest = parts
    name = part.strip("{}")
    known = values.get(name) if part[0] == "{" else part if part != "*" else None
    if known is not None:
        return all_readings(rest, text.removeprefix(known), values) if text.startswith(known) else []
    ends = [end for end in range(part != "*", len(text) + 1) if "/" not in text[:end]]
    found = [all_readings(rest, text[end:], values if part == "*" else {**values, name: text[:end]}) for end in ends]
    return [reading for readings in found for reading in readings]


@pytest.mark.parametrize("seed", range(4))
def test_template__matches_what_a_search_of_all_readings_matches(seed: int) -> None:
    rng = random.Random(seed)
    matched = 0
    for _ in range(1000):
        parts = rng.choices(["{name}", "{class}", "{split}", "*", "a", "b", "_", "/"], k=rng.randint(1, 4))
        text = "".join(rng.choices("ab_/", k=rng.randint(1, 7)))
        values, expected = Template("".join(parts)).match(text), all_readings(parts, text, {})
        assert values in expected if expected else values is None, (parts, text)
        matched += values is not None
    assert matched > 50


def test_template__takes_hostile_names_without_long_searches() -> None:
    template = Template("*a*a*{name}a{class}a*a.png")
    assert template.match("a" * 120 + ".jpg") is None


@pytest.mark.parametrize(
    ("path", "base", "text"),
    [
        ("/d/images/{name}_a.png", "/d/images", "{name}_a.png"),
        ("{split}/images/{name}.png", ".", "{split}/images/{name}.png"),
        ("/d/x.zip!/images/{name}.png", "/d/x.zip!/images", "{name}.png"),
        ("/d/x.zip!/{name}.png", "/d/x.zip!", "{name}.png"),
    ],
)
def test_split_template__finds_the_folder_to_list(path: str, base: str, text: str) -> None:
    found, rest = split_template(place(path))
    assert (found.as_posix(), rest) == (base, text)
