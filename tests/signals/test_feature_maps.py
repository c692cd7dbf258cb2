"""Feature maps: their shapes and scale, and how they are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dataaudit.decode import digest_of
from dataaudit.errors import InputError
from dataaudit.signals.feature_maps import FeatureMaps, feature_maps, network_size
from dataaudit.types import Workplace


def images_of(root: Path, sizes: dict[str, tuple[int, int]]) -> pd.DataFrame:
    """Noise of some sizes as files, and the table of images."""
    rows = {}
    for number, (name, (width, height)) in enumerate(sizes.items()):
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / name)
        rows[name] = (str(root / name), width, height, digest_of((root / name).read_bytes()))
    return pd.DataFrame.from_dict(rows, orient="index", columns=["filepath", "width", "height", "digest"])


def maps_of(
    images: pd.DataFrame, cache: Path | None, *, size: int = 64, max_bytes: int = 2**30
) -> FeatureMaps:
    errors = pd.Series(dtype=str)
    return feature_maps(images, errors, Workplace(cache=cache, device="cpu"), size=size, max_bytes=max_bytes)


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(640, 480, (640, 480)), (480, 640, (480, 640)), (1000, 10, (640, 32)), (20, 20, (640, 640))],
)
def test_pictures_keep_their_aspect_to_a_multiple_of_32(
    width: int, height: int, expected: tuple[int, int]
) -> None:
    assert network_size(width, height, 640) == expected


def test_an_image_has_a_map_at_each_stride(tmp_path: Path) -> None:
    maps = maps_of(images_of(tmp_path, {"a.png": (100, 50)}), tmp_path / "cache", size=128)
    found = maps.of("a.png")
    assert [level.shape for level in found.levels] == [(40, 8, 16), (112, 4, 8), (320, 2, 4)]
    assert [level.dtype for level in found.levels] == [np.float16] * 3
    assert found.scale == (1.28, 1.28)


def test_an_image_whose_sides_are_no_multiple_is_squeezed_a_little(tmp_path: Path) -> None:
    assert maps_of(images_of(tmp_path, {"a.png": (64, 40)}), None).of("a.png").scale == (1.0, 0.8)


def test_files_with_the_same_bytes_share_their_maps(tmp_path: Path) -> None:
    images = images_of(tmp_path, {"a.png": (64, 64)})
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    images = pd.concat([images, images.rename({"a.png": "b.png"})])
    maps = maps_of(images, tmp_path / "cache")
    assert np.array_equal(maps.of("a.png").levels[2], maps.of("b.png").levels[2])
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 1


def test_kept_maps_need_no_image(tmp_path: Path) -> None:
    images = images_of(tmp_path, {"a.png": (64, 64)})
    before = maps_of(images, tmp_path / "cache").of("a.png").levels[0]
    (tmp_path / "a.png").unlink()
    assert np.array_equal(maps_of(images, tmp_path / "cache").of("a.png").levels[0], before)


@pytest.mark.parametrize("damage", [b"", b"not an array", None])
def test_damaged_maps_are_computed_again(tmp_path: Path, damage: bytes | None) -> None:
    images = images_of(tmp_path, {"a.png": (64, 64)})
    before = maps_of(images, tmp_path / "cache").of("a.png").levels[0]
    file = next((tmp_path / "cache").rglob("*.npy"))
    file.write_bytes(bytes(file.stat().st_size) if damage is None else damage)
    assert np.array_equal(maps_of(images, tmp_path / "cache").of("a.png").levels[0], before)


def test_without_room_maps_are_computed_each_time(tmp_path: Path) -> None:
    images = images_of(tmp_path, {"a.png": (64, 64)})
    maps = maps_of(images, tmp_path / "cache", max_bytes=1000)
    assert not maps.are_kept
    assert maps.of("a.png").levels[2].shape == (320, 2, 2)
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_an_image_that_cannot_be_decoded_has_no_maps(tmp_path: Path) -> None:
    images = images_of(tmp_path, {"a.png": (64, 64), "b.png": (64, 64)})
    maps = feature_maps(images, pd.Series({"b.png": "damaged"}), Workplace(), size=64)
    assert list(maps.ids) == ["a.png"]
    with pytest.raises(KeyError, match=r"b\.png"):
        maps.of("b.png")


def test_an_image_that_changed_during_the_audit_is_an_error(tmp_path: Path) -> None:
    images = images_of(tmp_path, {"a.png": (64, 64)})
    Image.new("RGB", (32, 64)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="another size now"):
        maps_of(images, None).of("a.png")


def test_a_size_below_32_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="size is 16"):
        maps_of(images_of(tmp_path, {"a.png": (64, 64)}), None, size=16)


def size_for(side: float, n_images: int, *, device: str = "cpu") -> int:
    """Network pixels for images of 1280 x 720 pixels with one object of `side` pixels each."""
    ids = [f"{number}.jpg" for number in range(n_images)]
    images = pd.DataFrame({"filepath": ids, "width": 1280, "height": 720, "digest": ids}, index=ids)
    corners = {"x1": 10.0, "y1": 20.0, "x2": 10.0 + side, "y2": 20.0 + side}
    objects = pd.DataFrame({"sample_id": ids, **corners})
    return feature_maps(images, pd.Series(dtype=str), Workplace(device=device), objects).size


@pytest.mark.parametrize(("side", "size"), [(200.0, 640), (65.0, 640), (60.0, 960), (39.0, 1280)])
def test_images_of_small_objects_are_looked_at_more_closely(side: float, size: int) -> None:
    assert size_for(side, 50) == size


@pytest.mark.parametrize(("n_images", "size"), [(100, 1280), (101, 960), (177, 960), (178, 640)])
def test_a_cpu_has_time_for_that_where_images_are_few(n_images: int, size: int) -> None:
    assert size_for(30, n_images) == size


def test_a_gpu_has_the_time() -> None:
    assert size_for(30, 1000, device="cuda") == 1280


def test_boxes_that_cannot_be_read_say_nothing_about_the_size() -> None:
    assert size_for(float("nan"), 50) == size_for(-5.0, 50) == 640
