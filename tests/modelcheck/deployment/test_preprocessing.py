"""Two ways to prepare the same photographs: the step that differs is named, and equal ways stay silent."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image
from torch.nn.functional import interpolate
from torchvision import transforms as T  # noqa: N812 - the name that everyone knows
from torchvision.transforms import functional as TF  # noqa: N812

from dataaudit.cli import main
from dataaudit.errors import InputError
from dataaudit.modelcheck.deployment.preparing import preprocessing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NORMALISE = T.Normalize(MEAN, STD)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photographs")
    china, flower = (load_sample_image(name)[::2, ::2] for name in ("china.jpg", "flower.jpg"))
    paths = []
    for at, array in enumerate((china, flower, china[30:180, 50:250], flower[:200, 100:260])):
        paths.append(folder / f"{at}.jpg")
        Image.fromarray(array).save(paths[-1], quality=92)
    return paths


@pytest.fixture(scope="session")
def turned(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("turned")
    exif = Image.Exif()
    exif[0x0112] = 6
    paths = []
    for name in ("china", "flower"):
        paths.append(folder / f"{name}.jpg")
        Image.fromarray(load_sample_image(f"{name}.jpg")[::2, ::2]).save(paths[-1], exif=exif)
    return paths


def tensor(image: Image.Image) -> torch.Tensor:
    return TF.to_tensor(image)


def training(image: Image.Image) -> torch.Tensor:
    """What torchvision's models are trained with, smaller."""
    small = TF.center_crop(TF.resize(image, 64), [56, 56])
    return NORMALISE(tensor(small))


def with_pixels(change: Callable[[torch.Tensor], Any]) -> Callable[[Image.Image], Any]:
    return lambda image: change(tensor(TF.center_crop(TF.resize(image, 64), [56, 56])))


def resized(**options: Any) -> Callable[[Image.Image], torch.Tensor]:
    def prepare(image: Image.Image) -> torch.Tensor:
        size = image.height * 64 // min(image.size), image.width * 64 // min(image.size)
        done = interpolate(tensor(image)[None], size, **options)[0].clamp(0, 1)
        return NORMALISE(TF.center_crop(done, [56, 56]))

    return prepare


def with_pil(method: Image.Resampling) -> Callable[[Image.Image], torch.Tensor]:
    how = T.InterpolationMode(method.name.lower())
    return lambda image: NORMALISE(tensor(TF.center_crop(TF.resize(image, 64, how), [56, 56])))


def from_path(path: str) -> Any:
    return training(Image.open(path).convert("RGB")).numpy()


def from_array(array: np.ndarray) -> torch.Tensor:
    if not isinstance(array, np.ndarray):
        raise TypeError("expected an array")
    return training(Image.fromarray(array))


def augmented(*, image: np.ndarray) -> dict[str, torch.Tensor]:
    return {"image": training(Image.fromarray(image))}


HEALTHY: list[Callable[..., Any]] = [
    training, from_path, from_array, augmented,
    lambda image: training(image)[None],
    lambda image: training(image).double(),
    resized(mode="bilinear", antialias=True, align_corners=False),
]  # fmt: skip


@pytest.mark.parametrize("deployed", HEALTHY)
def test_equal_ways_are_silent(deployed: Callable[..., Any], photographs: list[Path]) -> None:
    found = preprocessing(training, deployed, photographs)
    assert [item.code for item in found.findings if item.code != "DEP016"] == []
    assert found.training.recipe.is_known
    assert str(found.training.recipe.region) == "shorter side to 64, centre crop"
    assert found.training.recipe.scaling == (
        "mean (0.485, 0.456, 0.406), deviation (0.229, 0.224, 0.225) of 0 to 1"
    )


# What is deployed, the code of the first finding, and what its sentence names
PLANTED: list[tuple[str, Callable[..., Any], str, str]] = [
    ("bgr", with_pixels(lambda x: NORMALISE(x.flip(0))), "DEP010", "Training gives RGB, deployment BGR"),
    ("bgr after", with_pixels(lambda x: NORMALISE(x).flip(0)), "DEP010", "deployment BGR"),
    ("not normalised", with_pixels(lambda x: x), "DEP012", "deployment to 0 to 1"),
    ("not divided", with_pixels(lambda x: x * 255), "DEP012", "deployment to 0 to 255"),
    ("mean after 255", with_pixels(lambda x: NORMALISE(x * 255)), "DEP011", "deployment to mean (0.002"),
    ("-1 to 1", with_pixels(lambda x: x * 2 - 1), "DEP012", "deployment to -1 to 1"),
    ("figures of BGR", with_pixels(T.Normalize(MEAN[::-1], STD[::-1])), "DEP012", "in the reverse order"),
    ("twice", with_pixels(lambda x: NORMALISE(NORMALISE(x))), "DEP012", "deployment to mean"),
    ("no antialias", resized(mode="bilinear", align_corners=False), "DEP013", "bilinear without antialias"),
    ("nearest", with_pil(Image.Resampling.NEAREST), "DEP013", "deployment like nearest"),
    ("bicubic", with_pil(Image.Resampling.BICUBIC), "DEP013", "deployment like PIL bicubic"),
    ("squeezed", lambda image: NORMALISE(tensor(image.resize((56, 56), Image.Resampling.BILINEAR))),
     "DEP014", "deployment 56 x 56, squeezed"),
    ("no margin", lambda image: NORMALISE(tensor(TF.center_crop(TF.resize(image, 56), [56, 56]))),
     "DEP014", "shorter side to 56"),
    ("another size", lambda image: NORMALISE(tensor(TF.center_crop(TF.resize(image, 64), [48, 48]))),
     "DEP014", "Training takes 56 x 56"),
    ("letterbox", lambda image: NORMALISE(tensor(ImageOps.pad(image, (56, 56), Image.Resampling.BILINEAR))),
     "DEP014", "letterbox"),
    ("axes exchanged", lambda image: training(image).transpose(1, 2), "DEP015", "height and width exchanged"),
    ("mirrored", lambda image: training(image).flip(2), "DEP015", "mirrored"),
    ("channels last", lambda image: training(image).permute(1, 2, 0), "DEP016", "channels last"),
    ("bytes", with_pixels(lambda x: (x * 255).byte().numpy()), "DEP012", "0 to 255"),
    ("random", lambda image: training(image) + torch.rand(1), "DEP017", "each time"),
    ("waves", with_pixels(lambda x: (x * 6.28).sin()), "DEP017", "no known steps explain deployment"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "deployed", "code", "names"), PLANTED, ids=[row[0] for row in PLANTED])
def test_the_step_that_differs_is_named_first(
    name: str, deployed: Callable[..., Any], code: str, names: str, photographs: list[Path]
) -> None:
    found = preprocessing(training, deployed, photographs)
    assert found.findings[0].code == code, found
    assert names in found.findings[0].message


def test_the_only_change_is_said_to_be_enough(photographs: list[Path]) -> None:
    found = preprocessing(training, with_pixels(lambda x: NORMALISE(x.flip(0))), photographs)
    assert [item.code for item in found.findings] == ["DEP010"]
    assert "This alone makes both equal." in found.findings[0].message


def test_a_resize_to_an_unusual_side_before_the_crop_is_found(photographs: list[Path]) -> None:
    def unusual(path: str) -> torch.Tensor:
        image = Image.open(path).convert("RGB")
        return NORMALISE(tensor(TF.center_crop(TF.resize(image, 59), 48)))

    def scaled(path: str) -> torch.Tensor:
        image = Image.open(path).convert("RGB")
        return tensor(TF.center_crop(TF.resize(image, 59), 48)) * 2 - 1

    found = preprocessing(unusual, scaled, photographs)
    assert str(found.training.recipe.region) == "shorter side to 59, centre crop"
    assert [item.code for item in found.findings] == ["DEP012"]
    assert "-1 to 1 (mean 0.5, deviation 0.5 of 0 to 1)" in found.findings[0].message


def test_of_two_steps_each_is_a_finding_with_what_is_left(photographs: list[Path]) -> None:
    found = preprocessing(training, with_pixels(lambda x: x.flip(0)), photographs)
    assert [item.code for item in found.findings] == ["DEP012", "DEP010"]
    assert "With this alone mended" in found.findings[0].message


def upright(path: str) -> torch.Tensor:
    return training(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))


def test_an_orientation_that_one_side_ignores_is_named(turned: list[Path], photographs: list[Path]) -> None:
    found = preprocessing(training, upright, turned + photographs[:2])
    assert [item.code for item in found.findings] == ["DEP015"]
    assert (
        "Deployment turns images upright by their EXIF orientation, training doesn't"
        in found.findings[0].message
    )
    assert preprocessing(upright, upright, turned).findings == ()
    assert preprocessing(training, upright, photographs).findings == ()


def test_opencv_is_told_from_pil(photographs: list[Path]) -> None:
    cv2 = pytest.importorskip("cv2")

    def deployed(path: str) -> Any:
        array = cv2.resize(cv2.imread(path), (56, 56))
        return (array / 255.0 - MEAN) / STD

    def trained(image: Image.Image) -> torch.Tensor:
        return NORMALISE(tensor(image.resize((56, 56), Image.Resampling.BILINEAR)))

    codes = [item.code for item in preprocessing(trained, deployed, photographs).findings]
    assert sorted(codes) == ["DEP010", "DEP013", "DEP016"]


def test_what_cannot_be_called_and_no_image_are_errors(photographs: list[Path]) -> None:
    with pytest.raises(InputError, match="takes neither a path nor an image"):
        preprocessing(training, lambda image: "text", photographs)
    with pytest.raises(InputError, match="no image"):
        preprocessing(training, training, [])
    with pytest.raises(InputError, match="different sizes"):
        preprocessing(training, tensor, photographs)


MODULE = """
from torchvision import transforms
trained = transforms.Compose([transforms.Resize(36), transforms.CenterCrop(32), transforms.ToTensor()])
def served(image):
    return trained(image).flip(0)
"""


def test_the_command_shows_the_steps_of_both_sides(
    photographs: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "preparingfunctions.py").write_text(MODULE)
    command = ["model", "preprocessing", "preparingfunctions:trained"]
    data = ["--data", str(photographs[0].parent)]
    assert main([*command, "preparingfunctions:served", *data]) == 1
    out = capsys.readouterr().out
    assert "DEP010 colour order" in out
    assert "shorter side to 36, centre crop" in out
    assert main([*command, "preparingfunctions:trained", *data]) == 0
