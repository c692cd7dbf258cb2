from __future__ import annotations

import base64
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataaudit.report.thumbnails import Thumbnail, thumbnails


def one(path: Path, folder: Path | None = None, digest: str | None = None) -> Thumbnail | None:
    return thumbnails([(str(path), digest)], folder=folder).get(str(path))


def decoded(thumbnail: Thumbnail) -> Image.Image:
    kind, content = thumbnail.url.split(",", 1)
    assert kind == "data:image/jpeg;base64"
    image = Image.open(io.BytesIO(base64.b64decode(content)))
    assert image.size == (thumbnail.width, thumbnail.height)
    return image


def test_the_long_side_is_160_pixels_and_small_images_keep_their_size(tmp_path: Path) -> None:
    sizes = {(1000, 500): (160, 80), (300, 900): (53, 160), (32, 20): (32, 20), (2000, 3): (160, 1)}
    for at, (size, expected) in enumerate(sizes.items()):
        Image.new("RGB", size).save(tmp_path / f"{at}.jpg")
        thumbnail = one(tmp_path / f"{at}.jpg")
        assert thumbnail is not None
        assert decoded(thumbnail).size == expected


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("1", "a.png"),
        ("L", "a.png"),
        ("LA", "a.png"),
        ("P", "a.gif"),
        ("RGBA", "a.png"),
        ("CMYK", "a.jpg"),
        ("YCbCr", "a.jpg"),
        ("I;16", "a.png"),
        ("I", "a.tif"),
        ("F", "a.tif"),
        ("HSV", "a.tif"),
        ("LAB", "a.tif"),
    ],
)
def test_every_mode_becomes_a_picture(tmp_path: Path, mode: str, name: str) -> None:
    image = Image.new(mode, (20, 10))
    if mode == "HSV":
        image = image.convert("RGB")
    image.save(tmp_path / name)
    thumbnail = one(tmp_path / name)
    assert thumbnail is not None
    assert decoded(thumbnail).mode == "RGB"


def test_16_bits_are_stretched_from_the_darkest_to_the_brightest(tmp_path: Path) -> None:
    values = np.zeros((16, 32), np.uint16)
    values[:, 16:] = 1000
    Image.fromarray(values).save(tmp_path / "a.png")
    thumbnail = one(tmp_path / "a.png")
    assert thumbnail is not None
    seen = np.asarray(decoded(thumbnail).convert("L"))
    assert seen[8, 4] < 10
    assert seen[8, 28] > 245


def test_transparent_is_shown_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(tmp_path / "a.png")
    thumbnail = one(tmp_path / "a.png")
    assert thumbnail is not None
    assert decoded(thumbnail).getpixel((10, 10)) == (255, 255, 255)


def test_a_small_jpeg_is_shown_as_it_is(tmp_path: Path) -> None:
    Image.linear_gradient("L").resize((32, 32)).save(tmp_path / "a.jpg")
    thumbnail = one(tmp_path / "a.jpg")
    assert thumbnail is not None
    assert base64.b64decode(thumbnail.url.split(",", 1)[1]) == (tmp_path / "a.jpg").read_bytes()


@pytest.mark.parametrize(
    "more", [{"exif": b"Exif\0\0secret"}, {"comment": b"secret"}, {"icc_profile": b"secret"}]
)
def test_what_a_small_jpeg_says_besides_its_picture_stays_out_of_the_page(
    tmp_path: Path, more: dict[str, bytes]
) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "a.jpg", **more)
    assert b"secret" in (tmp_path / "a.jpg").read_bytes()
    thumbnail = one(tmp_path / "a.jpg")
    assert thumbnail is not None
    assert b"secret" not in base64.b64decode(thumbnail.url.split(",", 1)[1])


def test_a_small_jpeg_that_ends_too_early_is_left_out(tmp_path: Path) -> None:
    Image.linear_gradient("L").resize((32, 32)).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(content[:200])
    assert one(tmp_path / "a.jpg") is None


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (400, 200)).save(tmp_path / "a.jpg", exif=exif)
    thumbnail = one(tmp_path / "a.jpg")
    assert thumbnail is not None
    assert (thumbnail.width, thumbnail.height) == (80, 160)


def test_what_cannot_be_decoded_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.png").write_bytes(b"<!doctype html>")
    Image.effect_noise((300, 300), 50).convert("RGB").save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:3000])
    paths = [str(tmp_path / name) for name in ("empty.jpg", "text.png", "cut.jpg", "missing.jpg")]
    assert thumbnails([(path, None) for path in [*paths, str(tmp_path)]]) == {}


def test_a_kept_thumbnail_is_not_decoded_again(tmp_path: Path) -> None:
    path, folder = tmp_path / "a.png", tmp_path / "cache" / "thumbnails"
    Image.new("RGB", (320, 320), "red").save(path)
    first = one(path, folder, "ab" * 16)
    path.unlink()
    assert first is not None
    assert one(path, folder, "ab" * 16) == first
    assert one(path, folder, "cd" * 16) is None


def test_a_damaged_kept_thumbnail_is_made_anew(tmp_path: Path) -> None:
    path, folder = tmp_path / "a.png", tmp_path / "thumbnails"
    Image.new("RGB", (320, 320), "red").save(path)
    first = one(path, folder, "ab" * 16)
    (kept,) = folder.rglob("*.jpg")
    kept.write_bytes(b"")
    assert one(path, folder, "ab" * 16) == first
    assert [entry.suffix for entry in kept.parent.iterdir()] == [".jpg"]


@pytest.mark.skipif(os.name == "nt", reason="a file can stand where a folder is expected on POSIX")
def test_a_folder_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "thumbnails").write_text("a file")
    assert one(tmp_path / "a.png", tmp_path / "thumbnails", "ab" * 16) is not None
