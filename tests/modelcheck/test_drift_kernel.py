"""The maximum mean discrepancy, against values worked out by hand, and as a test beside the classifier."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from sklearn.datasets import load_digits

from dataaudit.cli import main
from dataaudit.errors import InputError
from dataaudit.modelcheck.drift import Side, compare, read_side
from dataaudit.modelcheck.drift.kernel import discrepancies, median_distance
from dataaudit.modelcheck.drift.statistics import design, p_values

SIDES = np.array([False, False, True, True])


def test_the_discrepancy_is_the_value_worked_out_by_hand() -> None:
    # Within the sides exp(-1/2) and exp(-2), between them exp of -2, -8, -1/2 and -9/2, twice their mean
    features = np.array([[0.0], [1.0], [2.0], [4.0]])
    found, nearer = discrepancies(features, design(SIDES, n_permutations=1), width=1.0)
    between = np.exp([-2, -8, -0.5, -4.5]).sum() / 2
    assert found[0] == pytest.approx(np.exp(-0.5) + np.exp(-2) - between, rel=1e-6)
    assert nearer[0] < 0 < nearer[3]


def test_pairs_of_one_block_say_nothing() -> None:
    side = np.array([False, False, False, True, True])
    dealt = design(side, np.array([0, 0, 1, 2, 3]), n_permutations=1)
    found, _ = discrepancies(np.array([[0.0], [0.0], [1.0], [5.0], [5.0]]), dealt, width=1.0)
    # The two copies weigh one half each: their pairs with the third count as one
    between = (np.exp(-12.5) + np.exp(-8)) / 2
    assert found[0] == pytest.approx(np.exp(-0.5) + 1 - 2 * between, rel=1e-6)


def test_a_part_at_a_time_says_the_same_of_sides_that_differ() -> None:
    features = np.random.default_rng(0).normal(size=(400, 4)).astype(np.float32)
    features[200:, 0] += 1
    dealt = design(np.arange(400) >= 200, n_permutations=99)
    whole, _ = discrepancies(features, dealt, width=2.0)
    parts, _ = discrepancies(features, dealt, width=2.0, part=100)
    assert parts[0] == pytest.approx(whole[0], rel=0.25)
    assert p_values(np.maximum(parts, 0)[None])[0] == 0.01


def test_equal_features_do_not_differ() -> None:
    features = np.ones((6, 3), dtype=np.float32)
    assert median_distance(features) == 0
    found, _ = discrepancies(features, design(np.arange(6) >= 3, n_permutations=9), width=0.0)
    assert found.tolist() == [0.0] * 10


def test_p_values_without_drift_are_as_often_small_as_they_say() -> None:
    rng = np.random.default_rng(0)
    small = 0
    for seed in range(150):
        dealt = design(np.arange(40) >= 20, n_permutations=99, seed=seed)
        found, _ = discrepancies(rng.normal(size=(40, 3)), dealt, width=2.0)
        small += p_values(np.maximum(found, 0)[None])[0] <= 0.05
    assert 1 <= small <= 16


def _write(folder: Path, images: np.ndarray, blur: float) -> Path:
    for number, pixels in enumerate(images):
        image = Image.fromarray((pixels * 15).astype(np.uint8)).resize((32, 32))
        folder.mkdir(exist_ok=True)
        image.filter(ImageFilter.GaussianBlur(blur)).convert("RGB").save(folder / f"{number:03d}.png")
    return folder


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> tuple[Side, Side, Side]:
    """Sixty digits, sixty others, and those blurred."""
    root = tmp_path_factory.mktemp("kernel")
    images = load_digits().images
    folders = [
        _write(root / "reference", images[:60], 0),
        _write(root / "same", images[60:120], 0),
        _write(root / "blurred", images[60:120], 3),
    ]
    found = [read_side(folder, device="cpu") for folder in folders]
    return found[0], found[1], found[2]


def test_blurred_images_are_found_by_their_embeddings_and_others_of_the_kind_not(
    sides: tuple[Side, Side, Side],
) -> None:
    reference, same, blurred = sides
    assert "DRF002" not in {rule.code for rule, _ in compare(reference, same, test="mmd").drifted}
    found = {rule.code: each for rule, each in compare(reference, blurred, test="mmd").drifted}
    assert found["DRF002"].effect_words.startswith("MMD 0.")
    assert found["DRF002"].evidence["mmd"] > 2 * found["DRF002"].evidence["mmd_by_chance"]
    assert len(found["DRF002"].examples) == 6


def test_without_embeddings_the_test_is_skipped(sides: tuple[Side, Side, Side]) -> None:
    bare = [replace(side, embeddings=np.zeros((len(side), 0), dtype=np.float32)) for side in sides[:2]]
    assert "a backbone was left out" in compare(bare[0], bare[1], test="mmd").skipped["DRF002"]


def test_an_unknown_test_is_refused_with_those_there_are(sides: tuple[Side, Side, Side]) -> None:
    with pytest.raises(InputError, match="'energy' isn't known; expected 'classifier' or 'mmd'"):
        compare(sides[0], sides[1], test="energy")  # type: ignore[arg-type]


def test_the_command_takes_the_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = load_digits().images
    reference = _write(tmp_path / "reference", images[:40], 0)
    production = _write(tmp_path / "production", images[40:80], 3)
    assert main(["model", "drift", str(reference), str(production), "--test", "mmd", "-q"]) == 1
    assert "the maximum mean discrepancy of their features is" in " ".join(capsys.readouterr().out.split())
