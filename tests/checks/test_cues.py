from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from dataaudit.checks.cues import held_out_accuracy, spurious_cue
from dataaudit.errors import Unavailable
from dataaudit.types import Outcome

N = 900
NAMES = np.array(["a", "b", "c"])[np.arange(N) % 3]
IDS = pd.Index([f"i{number}" for number in range(N)])
RNG = np.random.default_rng(0)
PIXELS = (RNG.random((N, 1)) * 100 + RNG.random((N, 256)) * 100).astype(np.uint8)
PROPERTIES = pd.DataFrame(
    {
        "width": 32, "height": 32, "format": "JPEG", "mode": "RGB", "orientation": 1,
        "brightness": RNG.random(N), "contrast": RNG.random(N), "saturation": RNG.random(N),
        "sharpness": RNG.random(N),
    },
    index=IDS,
)  # fmt: skip
A = NAMES == "a"


def cues_of(
    properties: pd.DataFrame = PROPERTIES,
    pixels: np.ndarray = PIXELS,
    names: np.ndarray = NAMES,
    groups: pd.Series[int] | None = None,
) -> Outcome:
    ids = properties.index
    labels = pd.DataFrame({"sample_id": ids, "name": names, "geometry": None, "locator": None}, index=ids)
    images = pd.DataFrame({"split": None}, index=ids)
    return spurious_cue(properties, pd.DataFrame(pixels, index=ids), labels, images, groups)


def flagged(outcome: Outcome) -> list[str]:
    return sorted(outcome.flagged.index[outcome.flagged])


def test_properties_that_have_nothing_to_do_with_the_class_are_silent() -> None:
    outcome = cues_of()
    assert flagged(outcome) == []
    assert outcome.score.min() > 0.8


def test_the_format_of_one_class_is_a_cue() -> None:
    outcome = cues_of(PROPERTIES.assign(format=np.where(A, "PNG", "JPEG")))
    assert flagged(outcome) == ["file format"]
    assert outcome.score["file format"] == 0
    assert outcome.evidence.loc["file format", "classes"] == "a"
    assert outcome.evidence.loc["file format", "message"] == (
        "From the file format alone, 'a' (100%) can be told from the other classes, where 50% is chance: "
        "balanced accuracy, held out."
    )


def test_the_size_of_most_images_of_one_class_is_a_cue() -> None:
    outcome = cues_of(PROPERTIES.assign(width=np.where(A & (np.arange(N) % 10 < 8), 40, 32)))
    assert flagged(outcome) == ["number of pixels", "width over height"]


def test_one_class_all_brighter_is_a_cue_and_a_little_brighter_is_not() -> None:
    assert flagged(cues_of(PROPERTIES.assign(brightness=PROPERTIES["brightness"] + A))) == ["brightness"]
    assert flagged(cues_of(PROPERTIES.assign(brightness=PROPERTIES["brightness"] + 0.2 * A))) == []


def test_a_frame_around_the_images_of_one_class_is_a_cue() -> None:
    framed = PIXELS.reshape(N, 16, 16).copy()
    for edge in (np.s_[A, 0], np.s_[A, -1], np.s_[A, :, 0], np.s_[A, :, -1]):
        framed[edge] = 128
    outcome = cues_of(pixels=framed.reshape(N, 256))
    assert {"a pixel of the border", "evenness of the border"} <= set(flagged(outcome))


def test_a_mark_in_a_corner_of_most_images_of_one_class_is_a_cue() -> None:
    marked = PIXELS.reshape(N, 16, 16).copy()
    marked[A & (np.arange(N) % 10 < 8), 14:, 13:] = 240
    outcome = cues_of(pixels=marked.reshape(N, 256))
    assert "a pixel of the border" in flagged(outcome)
    message = outcome.evidence.loc["a pixel of the border", "message"]
    assert message.startswith("From a pixel of the border alone, 'a' (")


def test_digits_whose_shape_reaches_the_border_have_no_cue() -> None:
    digits = load_digits()
    pixels = np.kron(digits.images * 15.9, np.ones((2, 2))).astype(np.uint8).reshape(-1, 256)
    grey = pixels / 255.0
    ids = pd.Index([f"i{number}" for number in range(len(pixels))])
    properties = pd.DataFrame(
        {"width": 8, "height": 8, "brightness": grey.mean(1), "contrast": grey.std(1)}, ids
    )
    assert flagged(cues_of(properties, pixels, digits.target.astype(str))) == []


def test_copies_of_one_picture_count_once() -> None:
    # A class of three pictures: too few, however many copies there are
    groups = pd.Series(np.where(A, np.arange(N) % 9, np.arange(N)), index=IDS)
    outcome = cues_of(PROPERTIES.assign(format=np.where(A, "PNG", "JPEG")), groups=groups)
    assert flagged(outcome) == []


def test_values_that_are_not_known_are_a_value_too() -> None:
    outcome = cues_of(PROPERTIES.assign(brightness=PROPERTIES["brightness"].where(~A)))
    assert flagged(outcome) == ["brightness"]


def test_one_class_or_few_images_leave_nothing_to_compare() -> None:
    with pytest.raises(Unavailable, match="1 class with 20 different images"):
        cues_of(names=np.array(["a"] * N))
    with pytest.raises(Unavailable, match="0 classes"):
        cues_of(PROPERTIES.iloc[:6], PIXELS[:6], NAMES[:6])
    with pytest.raises(Unavailable, match="0 classes"):
        cues_of(PROPERTIES.iloc[:0], PIXELS[:0], NAMES[:0])


def test_accuracy_is_held_out() -> None:
    """A value that every image has for itself tells nothing about the next one."""
    given = np.array([0, 1] * 50)
    assert held_out_accuracy(np.arange(100), given, 2).max() <= 0.5
    assert held_out_accuracy(given, given, 2).tolist() == [1.0, 1.0]


def test_images_with_several_labels_are_not_judged() -> None:
    labels = pd.DataFrame({"sample_id": [*IDS, *IDS], "name": [*NAMES, *np.roll(NAMES, 1)]})
    with pytest.raises(Unavailable, match="several labels"):
        spurious_cue(
            PROPERTIES, pd.DataFrame(PIXELS, index=IDS), labels, pd.DataFrame({"split": None}, index=IDS)
        )
