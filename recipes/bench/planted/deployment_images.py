"""Bugs of the preprocessing: what training and deployment do to the same photograph."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.transforms import v2

from dataaudit.types import Finding

from . import healthy, planted

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NORMALISE = v2.Normalize(MEAN, DEVIATION)
SCALED = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]


def photographs(data: Path, n: int = 8) -> list[Path]:
    return sorted((data / "coco128" / "images").rglob("*.jpg"))[10 : 10 + n]


def opened(path) -> Image.Image:
    return Image.open(path).convert("RGB")


def through(*steps) -> Callable:
    """A function of the path that applies the steps to the RGB picture."""
    composed = v2.Compose([*steps, *SCALED, NORMALISE])
    return lambda path: composed(opened(path))


CROP = through(v2.Resize(72), v2.CenterCrop(64))
SQUARE = through(v2.Resize((64, 64)))


def prepared(training: Callable, deployment: Callable, files: Sequence[Path]) -> Sequence[Finding]:
    from dataaudit.modelcheck import preprocessing

    return preprocessing(training, deployment, files).findings


def array(path, size: int = 64) -> np.ndarray:
    """(size, size, 3) uint8 RGB, resized as PIL does."""
    return np.asarray(opened(path).resize((size, size), Image.Resampling.BILINEAR))


def planes(picture: np.ndarray) -> np.ndarray:
    """(3, height, width) float32 of 0 to 1."""
    return picture.transpose(2, 0, 1).astype(np.float32) / 255


def norm(image: np.ndarray, mean=MEAN, deviation=DEVIATION) -> np.ndarray:
    return (image - np.array(mean, np.float32)[:, None, None]) / np.array(deviation, np.float32)[
        :, None, None
    ]


# ------------------------------------------------------------------ colours and values


@planted("server reads with cv2.imread and keeps BGR", kind="BGR", part="deployment", causes=["DEP010"])
def _(data: Path):
    def serve(path):
        image = cv2.imread(str(path))
        small = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR))
        return norm(planes(small))

    return prepared(SQUARE, serve, photographs(data))


@planted("server doesn't divide by 255", kind="0 to 255 against 0 to 1", part="deployment", causes=["DEP011"])
def _(data: Path):
    train = v2.Compose([v2.Resize((64, 64)), *SCALED])
    return prepared(
        lambda path: train(opened(path)),
        lambda path: array(path).transpose(2, 0, 1).astype(np.float32),
        photographs(data),
    )


@planted(
    "server scales to -1 to 1, training to 0 to 1", kind="-1 to 1 against 0 to 1", part="deployment",
    causes=["DEP011"],
)  # fmt: skip
def _(data: Path):
    train = v2.Compose([v2.Resize(72), v2.CenterCrop(64), *SCALED])
    serve = v2.Compose([v2.Resize(72), v2.CenterCrop(64), *SCALED, v2.Lambda(lambda x: x * 2 - 1)])
    return prepared(lambda path: train(opened(path)), lambda path: serve(opened(path)), photographs(data))


@planted("server forgets to normalise", kind="normalisation missing", part="deployment", causes=["DEP012"])
def _(data: Path):
    return prepared(SQUARE, lambda path: planes(array(path)), photographs(data))


@planted(
    "mean and deviation 0.5 in place of ImageNet's", kind="other normalisation", part="deployment",
    causes=["DEP012"], mentions=["0.485", "0.5"],
)  # fmt: skip
def _(data: Path):
    half = v2.Compose([v2.Resize(72), v2.CenterCrop(64), *SCALED, v2.Normalize((0.5,) * 3, (0.5,) * 3)])
    return prepared(CROP, lambda path: half(opened(path)), photographs(data))


@planted("normalised twice", kind="normalised twice", part="deployment", causes=["DEP012"])
def _(data: Path):
    return prepared(SQUARE, lambda path: norm(norm(planes(array(path)))), photographs(data))


@planted(
    "mean subtracted and not divided by the deviation", kind="deviation missing", part="deployment",
    causes=["DEP012"],
)  # fmt: skip
def _(data: Path):
    return prepared(SQUARE, lambda path: norm(planes(array(path)), deviation=(1, 1, 1)), photographs(data))


@planted(
    "mean and deviation in the order of BGR on RGB images", kind="normalisation in another order",
    part="deployment", causes=["DEP012"],
)  # fmt: skip
def _(data: Path):
    return prepared(
        SQUARE, lambda path: norm(planes(array(path)), MEAN[::-1], DEVIATION[::-1]), photographs(data)
    )


@planted(
    "server gives grey images three times", kind="grey images", part="deployment",
    causes=["DEP017", "DEP010"], mentions=["grey"],
)  # fmt: skip
def _(data: Path):
    def serve(path):
        return square(opened(path).convert("L").convert("RGB"))

    return prepared(SQUARE, serve, photographs(data))


def square(image: Image.Image):
    return v2.Compose([v2.Resize((64, 64)), *SCALED, NORMALISE])(image)


@planted(
    "server recompresses to JPEG of quality 10 before it asks the model", kind="recompressed",
    part="deployment", causes=["DEP017"],
)  # fmt: skip
def _(data: Path):
    def serve(path):
        buffer = io.BytesIO()
        opened(path).resize((64, 64), Image.Resampling.BILINEAR).save(buffer, "JPEG", quality=10)
        return square(Image.open(buffer).convert("RGB"))

    return prepared(SQUARE, serve, photographs(data))


# ------------------------------------------------------------------ resize and region


@planted(
    "cv2.resize in place of PIL's", kind="resize without antialias", part="deployment", causes=["DEP013"]
)
def _(data: Path):
    def serve(path):
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        return norm(planes(cv2.resize(image, (64, 64), interpolation=cv2.INTER_LINEAR)))

    return prepared(SQUARE, serve, photographs(data))


@planted("nearest in place of bilinear", kind="nearest resize", part="deployment", causes=["DEP013"])
def _(data: Path):
    serve = through(v2.Resize(72, interpolation=v2.InterpolationMode.NEAREST), v2.CenterCrop(64))
    return prepared(CROP, serve, photographs(data))


@planted(
    "tensors are resized with antialias=False", kind="resize without antialias", part="deployment",
    causes=["DEP013"], mentions=["antialias"],
)  # fmt: skip
def _(data: Path):
    serve = v2.Compose(
        [v2.PILToTensor(), v2.Resize((96, 96), antialias=False), v2.ToDtype(torch.float32, scale=True),
         NORMALISE]
    )  # fmt: skip
    return prepared(through(v2.Resize((96, 96))), lambda path: serve(opened(path)), photographs(data))


@planted("squeezed to a square in place of cropped", kind="squeeze against crop", part="deployment",
         causes=["DEP014"])  # fmt: skip
def _(data: Path):
    return prepared(CROP, SQUARE, photographs(data))


@planted(
    "letterbox with grey borders in place of squeezed", kind="letterbox", part="deployment",
    causes=["DEP014"],
)  # fmt: skip
def _(data: Path):
    def serve(path):
        return square(ImageOps.pad(opened(path), (64, 64), color=(114, 114, 114)))

    return prepared(SQUARE, serve, photographs(data))


@planted(
    "shorter side resized to 64 before the crop of 64, training resizes to 96",
    kind="other size before the crop", part="deployment", causes=["DEP014"],
)  # fmt: skip
def _(data: Path):
    return prepared(
        through(v2.Resize(96), v2.CenterCrop(64)), through(v2.Resize(64), v2.CenterCrop(64)),
        photographs(data),
    )  # fmt: skip


@planted(
    "width and height swapped in the size given to PIL", kind="width and height swapped",
    part="deployment", causes=["DEP014", "DEP015"],
)  # fmt: skip
def _(data: Path):
    def serve(path):
        return norm(planes(np.asarray(opened(path).resize((48, 96), Image.Resampling.BILINEAR))))

    return prepared(through(v2.Resize((48, 96))), serve, photographs(data))


@planted(
    "augmentation of training left in what is served", kind="random crop when served", part="deployment",
    causes=["DEP017"], mentions=["random"],
)  # fmt: skip
def _(data: Path):
    return prepared(CROP, through(v2.RandomResizedCrop(64), v2.RandomHorizontalFlip()), photographs(data))


# ------------------------------------------------------------------ orientation, axes and types


def upright_and_turned(data: Path, folder: str) -> list[Path]:
    """Photographs as a phone stores them: half of them with an orientation in EXIF."""
    files = []
    for i, path in enumerate(photographs(data)):
        image = opened(path)
        exif = Image.Exif()
        exif[0x0112] = (1, 6, 8, 3)[i % 4]
        turned = image.rotate({1: 0, 6: 90, 8: 270, 3: 180}[exif[0x0112]], expand=True)
        files.append(Path(folder) / path.name)
        turned.save(files[-1], quality=95, exif=exif)
    return files


@planted("EXIF orientation ignored by PIL on the server", kind="EXIF", part="deployment", causes=["DEP015"],
         mentions=["EXIF"])  # fmt: skip
def _(data: Path):
    def train(path):
        return square(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))

    with TemporaryDirectory() as folder:
        return prepared(train, SQUARE, upright_and_turned(data, folder))


@planted("camera of the app mirrors its images", kind="image mirrored", part="deployment",
         causes=["DEP015"])  # fmt: skip
def _(data: Path):
    return prepared(CROP, through(v2.Resize(72), v2.CenterCrop(64), ImageOps.mirror), photographs(data))


@planted("channels last from the server", kind="channel axis", part="deployment", causes=["DEP016"])
def _(data: Path):
    return prepared(SQUARE, lambda path: norm(planes(array(path))).transpose(1, 2, 0), photographs(data))


@planted(
    "normalised values cast to uint8 by a queue", kind="cast to uint8", part="deployment",
    causes=["DEP016", "DEP017"],
)  # fmt: skip
def _(data: Path):
    return prepared(SQUARE, lambda path: norm(planes(array(path))).astype(np.uint8), photographs(data))


# ------------------------------------------------------------------ without a bug


@healthy("preprocessing of torchvision written again in numpy", part="deployment")
def _(data: Path):
    return prepared(SQUARE, lambda path: norm(planes(array(path))), photographs(data))


@healthy("PIL's resize against that of tensors with antialias", part="deployment")
def _(data: Path):
    serve = v2.Compose(
        [v2.PILToTensor(), v2.Resize(72, antialias=True), v2.CenterCrop(64),
         v2.ToDtype(torch.float32, scale=True), NORMALISE]
    )  # fmt: skip
    return prepared(CROP, lambda path: serve(opened(path)), photographs(data))


@healthy("read by OpenCV, turned to RGB, then the same steps", part="deployment")
def _(data: Path):
    def serve(path):
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        return square(Image.fromarray(image))

    return prepared(SQUARE, serve, photographs(data))


@healthy("both sides turn images by EXIF", part="deployment")
def _(data: Path):
    def train(path):
        return square(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))

    def serve(path):
        return square(Image.fromarray(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)))

    with TemporaryDirectory() as folder:
        return prepared(train, serve, upright_and_turned(data, folder))


@healthy("resized as floats and not rounded in between", part="deployment")
def _(data: Path):
    floats = v2.Compose(
        [*SCALED, v2.Resize((64, 64), antialias=True), NORMALISE]
    )  # fmt: skip
    return prepared(SQUARE, lambda path: floats(opened(path)), photographs(data))


@healthy("pixels normalised in float64 with means of 0 to 255", part="deployment")
def _(data: Path):
    mean, deviation = 255 * np.array(MEAN), 255 * np.array(DEVIATION)

    def serve(path):
        values = (array(path).astype(np.float64) - mean) / deviation
        return torch.from_numpy(values.transpose(2, 0, 1)).float()

    return prepared(SQUARE, serve, photographs(data))
