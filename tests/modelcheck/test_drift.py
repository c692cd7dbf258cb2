"""Drift between two sets of images: silent without it, and each kind found with what a person needs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter
from sklearn.datasets import load_digits

from dataaudit.cli import main
from dataaudit.errors import InputError
from dataaudit.modelcheck.drift import (
    Side,
    compare,
    load_side,
    read_side,
    report_of,
    save_side,
    with_predictions,
    with_times,
)
from dataaudit.modelcheck.drift.checking import Checked
from dataaudit.modelcheck.reporting import ModelReport

DIGITS = load_digits()
Change = Callable[[Image.Image], Image.Image]


def write(
    root: Path, rows: range | list[int], change: Change = lambda image: image, *, share: float = 1.0
) -> Path:
    """Digits as class/number.png; the last `share` of them are changed."""
    n_same = round(len(rows) * (1 - share))
    for number, row in enumerate(rows):
        file = root / str(DIGITS.target[row]) / f"{row:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = (DIGITS.images[row] * 12 + 40).astype(np.uint8)
        image = Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC).convert("RGB")
        (image if number < n_same else change(image)).save(file)
    return root


def side_of(folder: Path) -> Side:
    """A side whose embeddings are the digits' own pixels, which need no network."""
    side = read_side(folder, backbone=None)
    features = np.stack(
        [np.asarray(Image.open(path).convert("RGB").resize((8, 8))) for path in side.images["filepath"]]
    )
    return replace(side, embeddings=features.reshape(len(side), -1).astype(np.float32), backbone="pixels")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Side:
    return side_of(write(tmp_path_factory.mktemp("drift") / "reference", range(150)))


def compared(reference: Side, production: Side, **settings: object) -> Checked:
    return compare(reference, production, **{"n_permutations": 299, **settings})  # type: ignore[arg-type]


def found(checked: Checked) -> set[tuple[str, str]]:
    return {(rule.code, candidate.item) for rule, candidate in checked.drifted}


def darker(image: Image.Image) -> Image.Image:
    return image.point(lambda value: value * 0.4)


def redder(image: Image.Image) -> Image.Image:
    red, green, blue = image.split()
    return Image.merge("RGB", (red, green.point(lambda v: v * 0.8), blue.point(lambda v: v * 0.7)))


@pytest.mark.parametrize("start", [150, 300, 450, 600])
def test_other_images_of_the_same_kind_are_no_drift(reference: Side, tmp_path: Path, start: int) -> None:
    production = side_of(write(tmp_path / "production", range(start, start + 150)))
    checked = compared(reference, production, level=0.01)
    assert found(checked) == set()
    assert set(checked.skipped) == {"DRF007"}


def test_a_fifth_of_the_images_at_night_are_found_and_said(reference: Side, tmp_path: Path) -> None:
    production = side_of(write(tmp_path / "production", range(150, 300), darker, share=0.2))
    checked = compared(reference, production)
    assert ("DRF001", "light") in found(checked)
    light = next(candidate for _, candidate in checked.drifted if candidate.item == "light")
    assert light.message.startswith("Production is darker: mean ")
    assert "20% of the images are darker than any of the reference" in light.message
    changed = {f"{row:04d}.png" for row in range(270, 300)}
    assert {Path(example["production"]).name for example in light.examples} <= changed


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (redder, ("DRF001", "colour")),
        (lambda image: image.filter(ImageFilter.GaussianBlur(2)), ("DRF001", "sharpness")),
        (lambda image: image.resize((48, 48)), ("DRF001", "size")),
        (lambda image: image.crop((0, 4, 32, 28)), ("DRF001", "shape")),
        (lambda image: image.convert("L"), ("DRF001", "colour mode")),
        (lambda image: image.transpose(Image.Transpose.ROTATE_90), ("DRF002", "embeddings")),
    ],
    ids=["colour", "blur", "size", "shape", "mode", "content"],
)
def test_each_kind_of_change_is_found(
    reference: Side, tmp_path: Path, change: Change, expected: tuple[str, str]
) -> None:
    production = side_of(write(tmp_path / "production", range(150, 300), change, share=0.5))
    assert expected in found(compared(reference, production))


def test_a_change_of_the_file_format_is_found(reference: Side, tmp_path: Path) -> None:
    folder = write(tmp_path / "production", range(150, 300))
    for file in folder.rglob("*.png"):
        Image.open(file).save(file.with_suffix(".jpg"), quality=60)
        file.unlink()
    drifted = found(compared(reference, side_of(folder)))
    assert {("DRF001", "file format"), ("DRF001", "compression")} <= drifted


def test_other_shares_of_classes_are_found_and_said(reference: Side, tmp_path: Path) -> None:
    rows = [row for row in range(150, 900) if DIGITS.target[row] < 5][:150]
    checked = compared(reference, side_of(write(tmp_path / "production", rows)))
    assert {("DRF003", "classes"), ("DRF004", "predictions")} <= found(checked)
    classes = next(candidate for rule, candidate in checked.drifted if rule.code == "DRF003")
    assert 0.4 < classes.effect < 0.6
    assert "Missing there: 5, 6, 7, 8, 9." in classes.message


def test_images_unlike_any_of_the_reference_are_found_as_outliers(reference: Side, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def noise(image: Image.Image) -> Image.Image:
        return Image.fromarray(rng.integers(0, 255, (32, 32, 3)).astype(np.uint8))

    production = side_of(write(tmp_path / "production", range(150, 300), noise, share=0.2))
    checked = compared(reference, production)
    assert ("DRF006", "outliers") in found(checked)


def test_labels_that_mean_something_else_are_concept_drift(reference: Side, tmp_path: Path) -> None:
    production = side_of(write(tmp_path / "production", range(150, 300)))
    assert production.classes is not None
    names = list(production.classes.columns)
    swapped = production.classes.set_axis([*names[5:], *names[:5]], axis=1)
    assert ("DRF005", "accuracy") in found(compared(reference, replace(production, classes=swapped)))


def test_the_users_predictions_are_taken_in_place_of_the_probes(reference: Side, tmp_path: Path) -> None:
    production = side_of(write(tmp_path / "production", range(150, 300)))
    sides = []
    for side, confidence in ((reference, 0.9), (production, 0.6)):
        table = pd.DataFrame({"sample_id": side.images.index, "name": side.labels, "confidence": confidence})
        sides.append(with_predictions(side, table))
    checked = compared(*sides)
    assert ("DRF004", "confidence") in found(checked)
    assert "mean 0.60 against 0.90" in checked.drifted[0][1].message


def test_predictions_of_one_side_only_are_said_to_be_missing(reference: Side, tmp_path: Path) -> None:
    production = side_of(write(tmp_path / "production", range(150, 200)))
    table = pd.DataFrame({"sample_id": production.images.index, "name": "1"})
    checked = compared(reference, with_predictions(production, table))
    assert checked.skipped["DRF004"] == "predictions are needed for both sides; the reference has none"


def test_identical_folders_have_nothing_that_could_differ(reference: Side) -> None:
    checked = compared(reference, reference)
    assert found(checked) == set()
    assert checked.skipped["DRF001"] == "every picture of production is in the reference"


def test_what_is_new_beside_all_of_the_reference_is_compared_with_it(reference: Side, tmp_path: Path) -> None:
    write(tmp_path / "production", range(150))
    production = side_of(write(tmp_path / "production", range(150, 190), darker))
    assert ("DRF001", "light") in found(compared(reference, production))


def test_frames_of_one_scene_are_no_proof(reference: Side, tmp_path: Path) -> None:
    folder = tmp_path / "production"
    folder.mkdir()
    scene = Image.open(reference.images["filepath"].iloc[3])
    for number in range(60):
        scene.point(lambda value, number=number: value + number % 5).save(folder / f"{number}.png")
    checked = compared(reference, side_of(folder))
    assert checked.both.n_repeats >= 59
    assert found(checked) == set()


def test_cameras_that_hang_still_show_the_night(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)

    def again(image: Image.Image, light: float = 1.0) -> Image.Image:
        values = np.asarray(image) * light + noise.normal(0, 2, (32, 32, 3))
        return Image.fromarray(values.clip(0, 255).astype(np.uint8))

    before, same, after = (
        side_of(write(tmp_path / name, range(20), change))
        for name, change in (("before", again), ("same", again), ("after", lambda image: again(image, 0.85)))
    )
    checked = compared(before, after, n_permutations=999)
    assert checked.both.n_shared >= 15
    assert ("DRF001", "light") in found(checked)
    assert found(compared(before, same, n_permutations=999)) == set()


def test_black_images_count_each(reference: Side, tmp_path: Path) -> None:
    black = lambda image: Image.new("RGB", image.size)  # noqa: E731
    production = side_of(write(tmp_path / "production", range(150, 300), black, share=0.3))
    assert "DRF001" in {code for code, _ in found(compared(reference, production))}


def test_a_property_that_tells_the_sides_apart_comes_before_the_embeddings(
    reference: Side, tmp_path: Path
) -> None:
    production = side_of(write(tmp_path / "production", range(150, 300), darker))
    codes = [rule.code for rule, _ in compared(reference, production).drifted]
    assert codes.index("DRF001") < codes.index("DRF002")


def test_images_taken_together_are_dealt_out_together(reference: Side, tmp_path: Path) -> None:
    production = side_of(write(tmp_path / "production", range(150, 300), darker))
    checked = compared(reference, production, groups=r"^[^/]+")
    assert len(set(checked.both.dealt.blocks)) == 20
    with pytest.raises(InputError, match="doesn't fit the sample"):
        compared(reference, production, groups=r"camera\d+")
    with pytest.raises(InputError, match="can't be read"):
        compared(reference, production, groups="(")


@pytest.mark.parametrize("n", [1, 2, 20])
def test_few_images_are_compared_without_an_alarm(reference: Side, tmp_path: Path, n: int) -> None:
    production = side_of(write(tmp_path / "production", range(160, 160 + n)))
    assert found(compared(reference, production, level=0.01)) == set()


def test_one_image_against_one_says_that_chance_cannot_be_told_from_drift(tmp_path: Path) -> None:
    one, other = (
        side_of(write(tmp_path / name, rows, darker if rows[0] else lambda image: image))
        for name, rows in (("a", [0]), ("b", [1]))
    )
    assert found(compared(one, other)) == set()


def test_the_same_seed_gives_the_same_report(reference: Side, tmp_path: Path) -> None:
    production = side_of(write(tmp_path / "production", range(150, 300), darker, share=0.1))
    one, same = (report_of(compared(reference, production, seed=4)).summary() for _ in range(2))
    assert one == same


def test_the_order_of_the_files_does_not_matter(reference: Side, tmp_path: Path) -> None:
    production = side_of(write(tmp_path / "production", range(150, 250), darker, share=0.1))
    order = np.random.default_rng(0).permutation(len(production))
    shuffled = replace(
        production,
        images=production.images.iloc[order],
        embeddings=production.embeddings[order],
        phash=production.phash[order],
        thumbnails=production.thumbnails[order],
        classes=None if production.classes is None else production.classes.iloc[order],
    )
    one, other = (compared(reference, each).results[0].p_value for each in (production, shuffled))
    assert one == other


def test_files_that_cannot_be_read_are_left_out_and_counted(reference: Side, tmp_path: Path) -> None:
    folder = write(tmp_path / "production", range(150, 200))
    (folder / "1" / "broken.png").write_bytes(b"nothing")
    report = report_of(compared(reference, side_of(folder)))
    assert "1 file of production can't be decoded" in report.facts


def test_a_folder_without_images_or_with_broken_ones_only_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no images in this folder"):
        read_side(tmp_path / "empty", backbone=None)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match="None of the 1 images can be decoded"):
        read_side(tmp_path / "broken", backbone=None)


def test_a_flat_folder_needs_no_labels(reference: Side, tmp_path: Path) -> None:
    folder = tmp_path / "flat"
    folder.mkdir()
    for file in list(write(tmp_path / "classes", range(150, 190)).rglob("*.png")):
        file.rename(folder / file.name)
    checked = compared(reference, side_of(folder))
    assert checked.skipped["DRF003"] == "production has no labels"


def test_different_backbones_are_refused(reference: Side) -> None:
    with pytest.raises(InputError, match="can't be compared"):
        compared(reference, replace(reference, backbone="other"))


@pytest.mark.parametrize("settings", [{"level": 0.0}, {"level": 1.5}, {"n_permutations": 5}])
def test_settings_out_of_range_are_refused(reference: Side, settings: dict[str, float]) -> None:
    with pytest.raises(InputError):
        compared(reference, reference, **settings)


def test_a_kept_reference_gives_the_same_findings_without_its_images(reference: Side, tmp_path: Path) -> None:
    production = side_of(write(tmp_path / "production", range(150, 300), darker, share=0.2))
    path = save_side(reference, tmp_path / "reference")
    assert path.suffix == ".npz"
    kept = load_side(path)
    gone = replace(kept, images=kept.images.assign(filepath="/gone.png"))
    one, other = (report_of(compared(each, production)) for each in (reference, gone))
    assert [item.message for item in one.items] == [item.message for item in other.items]
    assert any(item.code == "DRF001" for item in other.items)


def test_a_file_that_is_no_reference_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04")
    for name in ("other.npz", "damaged.npz"):
        with pytest.raises(InputError, match="no reference of a drift check"):
            read_side(tmp_path / name)
    with pytest.raises(InputError, match="no such file"):
        read_side(tmp_path / "none.npz")


def test_the_moment_at_which_production_changed_is_found(reference: Side, tmp_path: Path) -> None:
    production = side_of(write(tmp_path / "production", range(150, 250), darker, share=0.4))
    names = production.images.index
    number = {name: int(Path(str(name)).stem) - 150 for name in names}
    dates = pd.Timestamp("2026-01-01") + pd.to_timedelta([number[name] for name in names], unit="D")
    timed = with_times(production, pd.DataFrame({"sample_id": names, "time": dates.astype(str)}))
    checked = compared(reference, timed)
    over_time = [candidate for rule, candidate in checked.drifted if rule.code == "DRF007"]
    assert over_time[0].evidence["at"] == "2026-03-02"
    assert "So did: " in over_time[0].message
    titles = [part.title for part in report_of(checked).parts]
    assert "Production over time" in titles


def test_times_come_from_names_and_exif(tmp_path: Path) -> None:
    folder = tmp_path / "times"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0132] = "2025:06:01 12:00:00"
    for name in ("cam_20260131_235959.jpg", "cam-2026-02-01.jpg", "cam_99999999.jpg"):
        Image.new("RGB", (8, 8)).save(folder / name, exif=exif)
    side = read_side(folder, backbone=None)
    times = with_times(side, "name").times
    assert times is not None
    assert times.dropna().dt.strftime("%m-%d %H:%M:%S").tolist() == ["02-01 00:00:00", "01-31 23:59:59"]
    taken = with_times(side, "exif").times
    assert taken is not None
    assert set(taken.dt.strftime("%Y-%m-%d %H:%M")) == {"2025-06-01 12:00"}


def test_the_command_prints_fails_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reference = write(tmp_path / "reference", range(60))
    production = write(tmp_path / "production", range(60, 120), darker)
    kept = tmp_path / "kept.npz"
    common = ["--backbone", "none", "-q"]
    assert main(["model", "drift", str(reference), "--save-reference", str(kept), *common]) == 0
    arguments = ["model", "drift", str(kept), str(production), *common]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 1
    assert "Production is darker" in capsys.readouterr().out.replace("\n", " ")
    assert (tmp_path / "out" / "model-drift.html").read_text().count("data:image/png") >= 2
    assert main([*arguments, "--fail-on", "DRF003>0", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["open"]["DRF001"]["findings"] >= 1
    assert main(["model", "drift", str(kept), str(kept), *common]) == 0
    assert main(["model", "drift"]) == 2
    assert main(["model", "drift", str(reference), *common]) == 2


def test_a_report_names_the_image_of_each_finding(reference: Side, tmp_path: Path) -> None:
    production = side_of(write(tmp_path / "production", range(150, 300), darker))
    report: ModelReport = report_of(compared(reference, production))
    assert all(item.sample_id in report.images for item in report.items if item.sample_id)
    assert all(Path(path).exists() for path in report.images.values())
    assert [item.score for item in report.items] == sorted(item.score for item in report.items)


def test_the_recipe_keeps_a_reference_and_tells_of_production(tmp_path: Path) -> None:
    recipe = Path(__file__).parent.parent.parent / "recipes" / "07_drift.py"
    reference = write(tmp_path / "photos", range(60))
    production = write(tmp_path / "production", range(60, 120), darker)
    for number, expected in ((0, 0), (1, 1)):
        folder = tmp_path / str(number)
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, str(recipe), str(reference), str((reference, production)[number])],
            capture_output=True, text=True, cwd=folder, timeout=200,
        )  # fmt: skip
        assert done.returncode == expected, done.stderr
        assert (folder / "reference.npz").is_file()
        assert (folder / "reports" / "model-drift.html").is_file()
    assert "DRF001 Production is darker" in done.stdout
