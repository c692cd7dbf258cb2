from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dataaudit.decode import MAX_PIXELS, PIXEL_PROPERTIES, Decoded, decode, digest_of, perceptual_hash


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def photo(width: int, height: int) -> Image.Image:
    from sklearn.datasets import load_sample_image

    return Image.fromarray(load_sample_image("china.jpg")).resize((width, height))


def pixels(decoded: Decoded) -> np.ndarray:
    assert decoded.error is None, decoded.error
    assert decoded.image is not None
    assert decoded.image.mode == "RGB"
    return np.asarray(decoded.image)


ARRAY = (np.arange(6 * 9 * 3) * 7 % 256).astype(np.uint8).reshape(6, 9, 3)


def test_an_rgb_png_comes_out_as_it_is() -> None:
    decoded = decode(encoded(Image.fromarray(ARRAY), "PNG"), size=224)
    assert (pixels(decoded) == ARRAY).all()
    assert (decoded.width, decoded.height, decoded.mode, decoded.format, decoded.frames) == (
        9,
        6,
        "RGB",
        "PNG",
        1,
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty (0 bytes)"),
        (b"not a picture at all", "not an image: its 20 bytes begin with b'not a pi'"),
        (b"\xff\xd8\xff\xe0" + bytes(300), "not an image: its 304 bytes begin with"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "not an image: its 48 bytes begin with"),
        (b"GIF89a", "not an image: its 6 bytes begin with b'GIF89a'"),
    ],
)
def test_what_is_no_image_has_a_reason(data: bytes, reason: str) -> None:
    decoded = decode(data, size=224)
    assert decoded.image is None
    assert decoded.error is not None
    assert decoded.error.startswith(reason)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_file_has_a_reason(kind: str, share: float) -> None:
    data = encoded(photo(200, 120), kind)
    decoded = decode(data[: int(len(data) * share)], size=224)
    assert decoded.image is None
    assert decoded.error is not None


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_truncated_file_is_called_cut_off(kind: str) -> None:
    data = encoded(photo(200, 120), kind)
    assert "cut off or damaged" in str(decode(data[: len(data) // 2], size=224).error)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_damaged_bytes_never_crash(kind: str) -> None:
    rng = np.random.default_rng(0)
    data = encoded(photo(64, 48), kind)
    for _ in range(60):
        damaged = bytearray(data)
        for position in rng.integers(0, len(data), 8):
            damaged[position] = rng.integers(0, 256)
        decoded = decode(bytes(damaged), size=224)
        assert (decoded.error is None) == (decoded.image is not None)


def test_16_bit_grey_is_scaled_to_8_bits() -> None:
    values = np.array([[0, 257, 32896], [65535, 25700, 51400]], dtype=np.uint16)
    decoded = decode(encoded(Image.fromarray(values), "PNG"), size=224)
    assert pixels(decoded)[..., 0].tolist() == [[0, 1, 128], [255, 100, 200]]
    assert decoded.mode == "I;16"


def test_big_endian_16_bit_tiff_is_scaled_to_8_bits() -> None:
    entries = [
        (256, 3, 2),
        (257, 3, 1),
        (258, 3, 16),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 200),
        (277, 3, 1),
        (278, 3, 1),
        (279, 4, 4),
    ]
    table = b"".join(
        struct.pack(">HHI", tag, kind, 1)
        + (struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value))
        for tag, kind, value in entries
    )
    header = b"MM\x00*" + struct.pack(">I", 8) + struct.pack(">H", len(entries)) + table + bytes(4)
    data = header.ljust(200, b"\0") + struct.pack(">HH", 65535, 25700)
    assert pixels(decode(data, size=224))[..., 0].tolist() == [[255, 100]]


def test_a_float_tiff_is_scaled_and_its_nans_are_black() -> None:
    values = np.array([[0.0, 0.5, 1.0, np.nan, np.inf, -3.0]], dtype=np.float32)
    assert pixels(decode(encoded(Image.fromarray(values), "TIFF"), size=224))[0, :, 0].tolist() == [
        0,
        127,
        255,
        0,
        0,
        0,
    ]


def test_a_32_bit_integer_tiff_is_scaled() -> None:
    values = np.array([[0, 65535, 25700]], dtype=np.int32)
    assert pixels(decode(encoded(Image.fromarray(values), "TIFF"), size=224))[0, :, 0].tolist() == [
        0,
        255,
        100,
    ]


def test_transparent_pixels_are_laid_over_white() -> None:
    rgba = Image.fromarray(np.array([[[255, 0, 0, 255], [255, 0, 0, 0]]], dtype=np.uint8))
    assert pixels(decode(encoded(rgba, "PNG"), size=224)).tolist() == [[[255, 0, 0], [255, 255, 255]]]
    grey = Image.fromarray(np.array([[[0, 255], [0, 0]]], dtype=np.uint8), "LA")
    assert pixels(decode(encoded(grey, "PNG"), size=224))[..., 0].tolist() == [[0, 255]]


def test_a_transparent_colour_is_laid_over_white() -> None:
    palette = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "P")
    palette.putpalette([255, 0, 0, 0, 0, 255])
    assert pixels(decode(encoded(palette, "PNG", transparency=1), size=224)).tolist() == [
        [[255, 0, 0], [255] * 3]
    ]
    half = decode(encoded(palette, "PNG", transparency=b"\xff\x00"), size=224)
    assert pixels(half).tolist() == [[[255, 0, 0], [255] * 3]]
    rgb = Image.fromarray(np.array([[[1, 2, 3], [9, 9, 9]]], dtype=np.uint8))
    assert pixels(decode(encoded(rgb, "PNG", transparency=(1, 2, 3)), size=224)).tolist() == [
        [[255] * 3, [9] * 3]
    ]


def test_palette_grey_and_bilevel_images_become_rgb() -> None:
    grey = Image.fromarray(np.array([[0, 80, 255]], dtype=np.uint8))
    assert pixels(decode(encoded(grey, "PNG"), size=224)).tolist() == [[[0] * 3, [80] * 3, [255] * 3]]
    assert pixels(decode(encoded(grey.convert("1", dither=0), "PNG"), size=224))[0, :, 0].tolist() == [
        0,
        0,
        255,
    ]
    assert pixels(decode(encoded(grey.convert("P"), "PNG"), size=224))[0, :, 1].tolist() == [0, 80, 255]


def test_a_cmyk_jpeg_has_its_colours() -> None:
    red = Image.new("RGB", (32, 32), (220, 30, 40)).convert("CMYK")
    decoded = decode(encoded(red, "JPEG", quality=95), size=224)
    assert decoded.mode == "CMYK"
    assert np.abs(pixels(decoded).mean((0, 1)) - (220, 30, 40)).max() < 4


def test_the_first_frame_of_an_animation_counts() -> None:
    first, second = Image.new("RGB", (8, 8), (250, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 250))
    decoded = decode(encoded(first, "GIF", save_all=True, append_images=[second, first]), size=224)
    assert decoded.frames == 3
    assert pixels(decoded)[0, 0].tolist() == [250, 0, 0]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(kind: str, orientation: int) -> None:
    # How a camera stores the upright picture, as rows and columns, for each orientation.
    stored = {
        1: ARRAY,
        2: ARRAY[:, ::-1],
        3: ARRAY[::-1, ::-1],
        4: ARRAY[::-1],
        5: ARRAY.transpose(1, 0, 2),
        6: ARRAY.transpose(1, 0, 2)[::-1],
        7: ARRAY.transpose(1, 0, 2)[::-1, ::-1],
        8: ARRAY.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(encoded(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif), size=224)
    assert (pixels(decoded) == ARRAY).all()
    assert (decoded.width, decoded.height, decoded.orientation) == (9, 6, orientation)


def test_a_rotated_jpeg_at_a_reduced_scale_is_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode(encoded(photo(800, 400), "JPEG", exif=exif), size=32)
    assert decoded.image is not None
    assert (decoded.width, decoded.height) == (400, 800)
    assert decoded.image.height == 2 * decoded.image.width


def test_an_unknown_orientation_counts_as_none() -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    decoded = decode(encoded(Image.fromarray(ARRAY), "PNG", exif=exif), size=224)
    assert (decoded.orientation, decoded.orientation_tag) == (1, 77)


def test_the_size_that_the_exif_gives_is_read_where_the_image_is_to_be_turned() -> None:
    for tag, expected in ((6, (9, 6)), (3, (0, 0)), (1, (0, 0))):
        exif = Image.Exif()
        exif[0x0112] = tag
        exif.get_ifd(0x8769).update({0xA002: 9, 0xA003: 6})
        decoded = decode(encoded(Image.fromarray(ARRAY), "JPEG", exif=exif), size=224)
        assert (decoded.orientation_tag, decoded.exif_width, decoded.exif_height) == (tag, *expected)


def test_an_orientation_that_is_no_number_counts_as_none() -> None:
    entry = struct.pack("<HHI4s", 0x0112, 2, 4, b"up")
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)
    decoded = decode(encoded(Image.fromarray(ARRAY), "JPEG", exif=exif), size=224)
    assert (decoded.orientation, decoded.orientation_tag) == (1, 0)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_does_not_cost_the_pixels() -> None:
    for exif in (
        b"Exif\0\0garbage",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03",
    ):
        decoded = decode(encoded(photo(64, 48), "JPEG", exif=exif), size=224)
        assert pixels(decoded).shape == (48, 64, 3)


def test_a_decompression_bomb_is_not_decoded() -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        decoded = decode(data, size=224)
    finally:
        Image.MAX_IMAGE_PIXELS = before
    assert decoded.error == f"60000 x 60000 pixels are more than the limit of {MAX_PIXELS}"
    assert (decoded.width, decoded.height, decoded.image) == (60_000, 60_000, None)
    assert decode(data, size=224).error is not None


def test_a_jpeg_far_larger_than_needed_is_decoded_at_a_reduced_scale() -> None:
    decoded = decode(encoded(photo(1200, 800), "JPEG"), size=100)
    assert decoded.image is not None
    assert (decoded.width, decoded.height) == (1200, 800)
    assert decoded.image.size == (300, 200)
    whole = decode(encoded(photo(1200, 800), "JPEG"), size=400)
    assert whole.image is not None
    assert whole.image.size == (1200, 800)


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (2, 2)])
def test_the_smallest_and_the_thinnest_images_decode(size: tuple[int, int]) -> None:
    decoded = decode(encoded(Image.new("RGB", size, (10, 200, 30)), "PNG"), size=224)
    assert pixels(decoded).shape == (size[1], size[0], 3)
    assert set(decoded.pixels) == set(PIXEL_PROPERTIES)
    assert all(0 <= value <= 1 for value in decoded.pixels.values())


@pytest.mark.parametrize(("grey", "brightness"), [(0, 0.0), (128, 128 / 255), (255, 1.0)])
def test_brightness_of_a_flat_image_is_its_grey(grey: int, brightness: float) -> None:
    found = decode(encoded(Image.new("RGB", (300, 300), (grey,) * 3), "PNG"), size=224).pixels
    assert found["brightness"] == pytest.approx(brightness, abs=1e-5)
    assert found["contrast"] == pytest.approx(0, abs=1e-5)
    assert (found["saturation"], found["sharpness"]) == (0, pytest.approx(0, abs=1e-5))


def test_contrast_saturation_and_sharpness_reach_their_ends() -> None:
    half = Image.fromarray(np.repeat([[0, 255]], 8, axis=0).repeat(4, axis=1).astype(np.uint8))
    assert decode(encoded(half, "PNG"), size=224).pixels["contrast"] == pytest.approx(1, abs=1e-5)
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    assert decode(encoded(red, "PNG"), size=224).pixels["saturation"] == 1
    board = Image.fromarray((np.indices((8, 8)).sum(0) % 2 * 255).astype(np.uint8))
    assert decode(encoded(board, "PNG"), size=224).pixels["sharpness"] == pytest.approx(1, abs=1e-5)


def properties(values: object, mode: str = "RGB") -> dict[str, float]:
    image = Image.fromarray(np.array(values, dtype=np.uint8)).convert(mode).convert("RGB")
    return dict(decode(encoded(image, "PNG"), size=224).pixels)


def test_shadow_and_highlight_leave_out_a_twentieth_of_the_pixels() -> None:
    ramp = np.repeat(np.arange(100)[:, None], 4, axis=1)
    found = properties(ramp)
    assert (found["shadow"], found["highlight"]) == (pytest.approx(4 / 255), pytest.approx(94 / 255))


def test_nearly_black_and_nearly_white_pixels_are_counted() -> None:
    found = properties([[0, 12, 13, 242], [243, 255, 255, 128]])
    assert (found["black_fraction"], found["white_fraction"]) == (0.25, 0.375)


def test_entropy_counts_the_grey_levels() -> None:
    assert properties(np.full((16, 16), 9))["entropy"] == 0
    assert properties([[0, 255], [255, 0]])["entropy"] == pytest.approx(1 / 8)
    assert properties(np.arange(256).reshape(16, 16))["entropy"] == pytest.approx(1)


def test_coloured_pixels_are_those_whose_channels_differ() -> None:
    found = properties([[[100, 100, 100], [100, 116, 100], [100, 117, 100], [255, 0, 0]]])
    assert found["colour_fraction"] == 0.5
    assert properties([[0, 80, 255]], "L")["colour_fraction"] == 0


def test_an_image_is_uniform_where_all_of_its_channels_are() -> None:
    assert properties(np.full((8, 8, 3), (9, 99, 200)))["uniform_fraction"] == 1
    # Eight levels are as good as one, nine are not.
    assert properties([[100, 103], [105, 107]])["uniform_fraction"] == 1
    assert properties([[100, 103], [105, 108]])["uniform_fraction"] == 0.75
    # Red and green of one luminance.
    checks = np.zeros((8, 8, 3))
    checks[:, :4] = (255, 0, 0)
    checks[:, 4:] = (0, 130, 0)
    assert properties(checks)["uniform_fraction"] == 0.5


def test_detail_is_that_of_the_finest_scale() -> None:
    board = np.indices((32, 32)).sum(0) % 2 * 255
    assert properties(board)["detail"] == pytest.approx(1)
    assert properties(np.full((32, 32), 9))["detail"] == 1
    wave = 127 + 100 * np.sin(np.arange(64) / 8)
    assert properties(np.add.outer(wave, wave) / 2)["detail"] < 0.01


def test_perceptual_hashes_survive_compression_and_resizing_and_tell_pictures_apart(
    crops: list[Image.Image],
) -> None:
    def distance(a: Image.Image, b: Image.Image) -> int:
        return (perceptual_hash(a) ^ perceptual_hash(b)).bit_count()

    for crop in crops[::10]:
        again = Image.open(io.BytesIO(encoded(crop, "JPEG", quality=60)))
        assert distance(crop, again) <= 6
        assert distance(crop, crop.resize((90, 90))) <= 6
    assert distance(crops[0], crops[-1]) > 15


def test_flat_images_share_their_perceptual_hash() -> None:
    assert len({perceptual_hash(Image.new("RGB", (50, 40), (grey,) * 3)) for grey in range(1, 256, 7)}) == 1


def test_a_digest_is_the_md5_of_the_bytes() -> None:
    assert digest_of(b"dataaudit") == "9a7ad055fddad309a190caebb0927e4d"


def test_a_decoded_row_can_be_had_without_its_image() -> None:
    decoded = decode(encoded(Image.fromarray(ARRAY), "PNG"), size=224)
    assert decoded.without_image().image is None
    assert decoded.without_image().phash == decoded.phash


def test_warmth_and_tint_say_which_colour_an_image_has_over_all() -> None:
    grey, red, green = (properties([[colour]]) for colour in ((90, 90, 90), (255, 0, 0), (0, 255, 0)))
    assert (grey["warmth"], grey["tint"]) == (0.5, 0.5)
    assert (red["warmth"], red["tint"]) == (1.0, 0.25)
    assert (green["warmth"], green["tint"]) == (0.5, 1.0)
