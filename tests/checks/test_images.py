from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter

from dataaudit.checks import images as checks
from dataaudit.decode import FILE_PROPERTIES, PIXEL_PROPERTIES, decode
from dataaudit.errors import Unavailable
from dataaudit.sweep import sweep
from dataaudit.types import Locator, Outcome

ORDINARY = {
    "brightness": 0.45,
    "contrast": 0.5,
    "shadow": 0.1,
    "highlight": 0.85,
    "black_fraction": 0.01,
    "white_fraction": 0.01,
    "entropy": 0.93,
    "saturation": 0.15,
    "colour_fraction": 0.6,
    "uniform_fraction": 0.1,
    "sharpness": 0.03,
    "detail": 0.3,
}
STORED = {"width": 640, "height": 480, "mode": "RGB", "format": "JPEG", "frames": 1, "orientation": 1}
EXIF = {"orientation_tag": 0, "exif_width": 0, "exif_height": 0}
GREY = {"warmth": 0.5, "tint": 0.5}


def table(n: int, *odd: dict[str, object], **usual: object) -> pd.DataFrame:
    """`n` ordinary photos named 0, 1, ..., each a little different, then the odd ones named a, b, ..."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    for _ in range(n):
        pixels = {name: value * (1 + 0.05 * rng.standard_normal()) for name, value in ORDINARY.items()}
        rows.append({**STORED, **EXIF, **GREY, **pixels, **usual})
    rows += [{**rows[0], **change} for change in odd] if rows else []
    frame = pd.DataFrame(rows, index=[*map(str, range(n)), *"abcdefgh"[: len(odd)]])
    frame[list(PIXEL_PROPERTIES)] = frame[list(PIXEL_PROPERTIES)].clip(0, 1)
    return frame[[*FILE_PROPERTIES, *PIXEL_PROPERTIES]]


def run(name: str, properties: pd.DataFrame, **settings: float) -> Outcome:
    function = getattr(checks, name)
    if name == "near_constant":
        return function(properties, labels_of(properties.index), **settings)
    return function(properties, **settings)


def labels_of(ids: pd.Index) -> pd.DataFrame:
    locators = [Locator(file=i) for i in ids]
    return pd.DataFrame(
        {"sample_id": ids, "name": "cat", "geometry": None, "locator": locators},
        index=[f"L{i}" for i in ids],
        dtype=object,
    )


def flagged(outcome: Outcome) -> list[str]:
    return sorted(outcome.flagged.index[outcome.flagged])


NAMES = [name for name in checks.__all__ if name != "undecodable_image"]
EMPTY = {"uniform_fraction": 1.0, "highlight": 0.0, "brightness": 0.0, "entropy": 0.0, "saturation": 0.0}

FLAGS = [
    ("dark_image", {"highlight": 0.1}, "Dark: 95% of its pixels are below 10% of full brightness"),
    ("bright_image", {"brightness": 0.95, "shadow": 0.8, "white_fraction": 0.7}, "Bright: its mean is 95%"),
    ("blurry_image", {"detail": 0.01}, "Blurry: its finest structure has 1.0% of the energy"),
    ("low_information", {"entropy": 0.1}, "Little information: its grey levels hold 0.8 bits; 7.4 are usual"),
    (
        "odd_size",
        {"width": 32, "height": 24},
        "Odd size: 32 x 24 pixels, where 98.0% of the images have 640 x 480",
    ),
    (
        "odd_aspect_ratio",
        {"width": 640, "height": 64},
        "Odd aspect ratio: 640 x 64 pixels are 10.0 to 1; the nearest common ratio is 1.3 to 1.",
    ),
    ("odd_colour", {"saturation": 0.0}, "Grey, stored as RGB; 98.0% of the images are colour."),
    ("near_constant", EMPTY, "Empty: all of its pixels have nearly one colour."),
    ("wrong_orientation", {"orientation_tag": 77}, "The EXIF orientation is 77; only 1 to 8 mean something."),
    (
        "orientation_depends_on_reader",
        {"orientation": 6, "orientation_tag": 6, "width": 480, "height": 640},
        "The EXIF orientation is 6: 480 x 640 or 640 x 480, depending on the reader.",
    ),
]


@pytest.mark.parametrize(("name", "change", "message"), FLAGS, ids=[row[0] for row in FLAGS])
def test_the_odd_image_among_ordinary_ones_is_flagged_with_a_sentence(
    name: str, change: dict[str, object], message: str
) -> None:
    outcome = run(name, table(49, change))
    assert flagged(outcome) == ["a"]
    assert outcome.evidence is not None
    assert str(outcome.evidence.loc["a", "message"]).startswith(message)
    assert outcome.score["a"] < 0.5 <= outcome.score.drop("a").min()
    assert outcome.probability is None


@pytest.mark.parametrize("name", NAMES)
def test_ordinary_images_are_not_flagged(name: str) -> None:
    assert flagged(run(name, table(50))) == []


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name not in ("near_constant", "wrong_orientation")]
)
@pytest.mark.parametrize("n", [0, 19])
def test_what_all_images_share_is_not_odd(name: str, n: int) -> None:
    change = dict(next(row[1] for row in FLAGS if row[0] == name))
    properties = pd.concat([table(1, **change)] * (n + 1), ignore_index=True)
    assert flagged(run(name, properties)) == []


@pytest.mark.parametrize("name", NAMES)
def test_without_any_decoded_image_a_check_is_skipped(name: str) -> None:
    with pytest.raises(Unavailable, match="no image can be decoded"):
        run(name, table(1).iloc[:0])


@pytest.mark.parametrize("name", NAMES)
def test_images_that_cannot_be_decoded_are_left_out(name: str) -> None:
    properties = table(30)
    properties.loc["3", list(PIXEL_PROPERTIES)] = np.nan
    outcome = run(name, properties)
    assert "3" not in outcome.score.index
    assert len(outcome.score) == 29


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("near_constant",)])
def test_an_empty_image_is_reported_once(name: str) -> None:
    assert flagged(run(name, table(49, EMPTY))) == []


def test_the_scene_of_a_dataset_taken_at_night_is_not_dark_but_a_darker_one_is() -> None:
    night = {"highlight": 0.2, "brightness": 0.08}
    properties = table(60, {**night, "highlight": 0.02}, **night)
    properties["highlight"] *= np.random.default_rng(1).uniform(0.7, 1.3, len(properties))
    assert flagged(run("dark_image", properties)) == ["a"]


def test_where_a_third_of_the_images_are_dark_none_is_odd() -> None:
    properties = table(60)
    properties.iloc[:20, properties.columns.get_loc("highlight")] = 0.1
    assert flagged(run("dark_image", properties)) == []


def test_a_picture_on_white_paper_is_not_bright_while_its_subject_is_dark() -> None:
    assert flagged(run("bright_image", table(49, {"brightness": 0.9, "shadow": 0.2}))) == []


def test_a_dark_image_is_not_one_of_little_information_too() -> None:
    assert flagged(run("low_information", table(49, {"highlight": 0.03, "entropy": 0.3}))) == []


def test_several_common_sizes_are_not_odd() -> None:
    sizes = [(64, 48)] * 20 + [(640, 480)] * 20 + [(3000, 2000)] * 20
    properties = table(60, {"width": 9, "height": 9}, {"width": 12000, "height": 9000})
    properties.loc[properties.index[:60], ["width", "height"]] = sizes
    outcome = run("odd_size", properties)
    assert flagged(outcome) == ["a", "b"]
    assert outcome.evidence is not None
    assert outcome.evidence["message"].tolist() == [
        "Odd size: 9 x 9 pixels, a side 6.2 times smaller than the nearest common one.",
        "Odd size: 12000 x 9000 pixels, a side 4.2 times larger than the nearest common one.",
    ]


def test_another_size_is_odd_where_all_others_are_the_same() -> None:
    change = {"width": 33, "height": 32}
    assert flagged(run("odd_size", table(49, change, width=32, height=32))) == ["a"]
    mixed = table(49, change, width=32, height=32)
    mixed.loc[mixed.index[:10], "width"] = 30
    assert flagged(run("odd_size", mixed)) == []


def test_a_strip_is_of_an_odd_ratio_and_not_of_an_odd_size_too() -> None:
    properties = table(49, {"width": 32, "height": 8}, width=32, height=32)
    assert flagged(run("odd_aspect_ratio", properties)) == ["a"]
    assert flagged(run("odd_size", properties)) == []


def test_upright_and_lying_images_have_the_same_aspect_ratio() -> None:
    assert (
        flagged(run("odd_aspect_ratio", table(49, {"width": 270, "height": 480}, width=480, height=270)))
        == []
    )


def test_an_ordinary_ratio_is_odd_among_panoramas() -> None:
    assert flagged(run("odd_aspect_ratio", table(49, {"width": 400}, width=2000, height=400))) == ["a"]


def test_colour_among_grey_is_odd_and_a_mixed_dataset_has_nothing_odd() -> None:
    outcome = run("odd_colour", table(49, {"saturation": 0.2}, saturation=0.0, mode="L"))
    assert flagged(outcome) == ["a"]
    mixed = table(40)
    mixed.loc[mixed.index[:12], "saturation"] = 0.0
    assert flagged(run("odd_colour", mixed)) == []


def test_the_grey_of_a_few_rounded_levels_is_grey_and_a_dull_scene_is_not() -> None:
    assert flagged(run("odd_colour", table(48, {"saturation": 0.002}, {"saturation": 0.02}))) == ["a"]


def test_an_empty_image_is_proposed_to_be_dropped() -> None:
    outcome = run("near_constant", table(49, EMPTY))
    assert {key: (fix.op, fix.label_id, fix.old) for key, fix in outcome.fixes.items()} == {
        "a": ("drop", "La", "cat")
    }


def test_stars_on_black_are_not_empty_where_all_images_are_such_but_one_colour_always_is() -> None:
    properties = table(40, {"uniform_fraction": 1.0}, uniform_fraction=0.997)
    assert flagged(run("near_constant", properties)) == ["a"]
    every = table(40, uniform_fraction=1.0)
    assert len(flagged(run("near_constant", every))) == 40


TURNED = {"orientation": 6, "orientation_tag": 6, "width": 300, "height": 400}


@pytest.mark.parametrize(
    ("exif", "wrong"),
    [
        # 400 x 300 is stored: as the camera wrote it, or made smaller.
        ((400, 300), False),
        ((4000, 3000), False),
        # The camera wrote 300 x 400; someone turned the pixels.
        ((300, 400), True),
        ((3000, 4000), True),
        # Cropped since, or nothing is known.
        ((300, 999), False),
        ((0, 0), False),
        ((400, 0), False),
    ],
)
def test_pixels_that_are_turned_already_contradict_their_exif(exif: tuple[int, int], wrong: bool) -> None:
    properties = table(30, {**TURNED, "exif_width": exif[0], "exif_height": exif[1]})
    assert flagged(run("wrong_orientation", properties)) == (["a"] if wrong else [])
    # What is wrong isn't reported twice.
    assert flagged(run("orientation_depends_on_reader", properties)) == ([] if wrong else ["a"])


def test_an_image_turned_twice_says_what_it_was_and_is() -> None:
    outcome = run("wrong_orientation", table(30, {**TURNED, "exif_width": 300, "exif_height": 400}))
    assert outcome.evidence is not None
    assert outcome.evidence.loc["a", "message"] == (
        "The EXIF asks for a quarter turn (orientation 6), but the pixels seem to be turned already: "
        "they are 400 x 300, and were 300 x 400 by the EXIF."
    )


def test_an_orientation_of_0_and_a_square_are_let_be() -> None:
    square = {**TURNED, "height": 300, "exif_width": 300, "exif_height": 300}
    properties = table(30, {"orientation_tag": 0}, square)
    assert flagged(run("wrong_orientation", properties)) == []


def test_a_setting_moves_its_threshold() -> None:
    properties = table(49, {"highlight": 0.3}, {"highlight": 0.2})
    assert flagged(run("dark_image", properties)) == ["b"]
    assert flagged(run("dark_image", properties, max_highlight=0.35)) == ["a", "b"]
    assert flagged(run("dark_image", properties, n_deviations=100.0)) == []


def test_scores_fall_as_the_defect_grows() -> None:
    steps = [{"detail": value} for value in (0.025, 0.015, 0.008, 0.002)]
    score = run("blurry_image", table(49, *steps)).score[list("abcd")]
    assert score.is_monotonic_decreasing
    assert score["d"] < 0.2


def exposed(image: Image.Image, factor: float) -> Image.Image:
    return Image.fromarray(np.clip(np.asarray(image) * factor, 0, 255).astype(np.uint8))


def page(image: Image.Image) -> Image.Image:
    flat = Image.new("RGB", image.size, (240, 230, 210))
    flat.paste(image.resize((30, 30)), (50, 60))
    return flat


PLANTED = {
    "dark_image": lambda image: exposed(image, 0.1),
    "bright_image": lambda image: Image.blend(image, Image.new("RGB", image.size, "white"), 0.9),
    "blurry_image": lambda image: image.filter(ImageFilter.GaussianBlur(3)),
    "low_information": page,
    "odd_size": lambda image: image.resize((20, 20)),
    "odd_aspect_ratio": lambda image: image.crop((0, 70, 160, 90)),
    "odd_colour": lambda image: image.convert("L"),
    "near_constant": lambda image: Image.new("RGB", image.size, (17, 90, 200)),
}


@pytest.fixture(scope="module")
def planted(crops: list[Image.Image], tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Crops of photos that show something, two with each defect; index ``<defect or fine>/<number>``."""
    root = tmp_path_factory.mktemp("planted")
    files: dict[str, str] = {}
    grey = [np.asarray(crop.convert("L"), dtype=float) for crop in crops]
    sound = [i for i, values in enumerate(grey) if 60 < values.mean() < 160 and values.std() > 40]
    order = np.random.default_rng(0).permutation(sound)
    defects = [name for name in PLANTED for _ in range(2)]
    for position, number in enumerate(order):
        name = defects[position] if position < len(defects) else "fine"
        image = PLANTED[name](crops[number]) if name != "fine" else crops[number]
        path = root / f"{position}.png"
        image.save(path)
        files[f"{name}/{position}"] = str(path)
    return sweep(pd.Series(files), workers=1).properties


@pytest.mark.parametrize("name", list(PLANTED))
def test_planted_defects_of_real_photos_are_found_and_sound_photos_are_not_flagged(
    planted: pd.DataFrame, name: str
) -> None:
    found = [item.split("/")[0] for item in flagged(run(name, planted))]
    assert found.count(name) == 2
    assert "fine" not in found


def jpeg(image: Image.Image, exif: Image.Exif) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", exif=exif)
    return stream.getvalue()


def test_the_orientation_of_real_files_is_checked_from_file_to_finding(tmp_path: Path) -> None:
    picture = Image.effect_noise((80, 60), 60).convert("RGB")
    files = {}
    for name, tag, size in (
        ("sound", 6, (80, 60)),
        ("twice", 6, (60, 80)),
        ("strange", 9, None),
        ("none", 1, None),
    ):
        exif = Image.Exif()
        exif[0x0112] = tag
        if size is not None:
            inner = exif.get_ifd(0x8769)
            inner[0xA002], inner[0xA003] = size
        files[name] = str(tmp_path / f"{name}.jpg")
        Path(files[name]).write_bytes(jpeg(picture, exif))
    properties = sweep(pd.Series(files), workers=1).properties
    assert flagged(run("wrong_orientation", properties)) == ["strange", "twice"]
    assert flagged(run("orientation_depends_on_reader", properties)) == ["sound"]


def test_detail_falls_with_blur_and_not_with_contrast(crops: list[Image.Image]) -> None:
    def detail(image: Image.Image) -> float:
        stream = io.BytesIO()
        image.save(stream, "PNG")
        return decode(stream.getvalue(), size=224).pixels["detail"]

    for crop in crops[20:30]:
        sharp = detail(crop)
        assert detail(crop.filter(ImageFilter.GaussianBlur(2))) < sharp / 4
        assert detail(exposed(crop, 0.5)) == pytest.approx(sharp, rel=0.15)
