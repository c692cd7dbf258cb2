"""The fine-tuned detector, with random weights: how it is trained and kept, not how well it detects."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageDraw
from torch import nn

from dataaudit import pipeline
from dataaudit.decode import digest_of
from dataaudit.errors import InputError, MissingDependencyError
from dataaudit.formats._shared import ObjectRows
from dataaudit.signals.detector import Scene, finetuned_detections, fitting
from dataaudit.signals.detector.images import Images
from dataaudit.signals.detector.models import build, longest_side, recipe_named
from dataaudit.signals.detector.settings import ready
from dataaudit.types import CORNERS, FLAGS, Locator, Tables, Workplace
from tests.detections import scenes as scenes_of

MODEL = "ssdlite320_mobilenet_v3_large"
FASTER = "fasterrcnn_mobilenet_v3_large_320_fpn"
QUICK: dict[str, Any] = {
    "model": MODEL,
    "pretrained": False,
    "folds": 2,
    "epochs": 2,
    "size": 64,
    "batch_size": 4,
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, pd.DataFrame]:
    """12 pictures of 96 x 64 pixels with two squares each, and what is labeled in them."""
    root = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(0)
    rows, files = [], {}
    for number in range(12):
        image = Image.fromarray(rng.integers(60, 120, (64, 96, 3), dtype=np.uint8))
        draw = ImageDraw.Draw(image)
        for name, left, fill in (("sun", 0, (250, 230, 40)), ("sea", 48, (30, 60, 250))):
            x, y = left + int(rng.integers(0, 20)), int(rng.integers(0, 36))
            draw.rectangle((x, y, x + 24, y + 24), fill=fill)
            rows.append((f"{number}:{name}", f"{number}.png", name, *map(float, (x, y, x + 24, y + 24))))
        file = root / f"{number}.png"
        image.save(file)
        files[file.name] = (str(file), 96, 64, digest_of(file.read_bytes()))
    images = pd.DataFrame.from_dict(files, orient="index", columns=["filepath", "width", "height", "digest"])
    objects = pd.DataFrame(rows, columns=["label_id", "sample_id", "name", *CORNERS]).set_index("label_id")
    return images, objects.assign(**dict.fromkeys(FLAGS, False))


def found_in(
    scenes: tuple[pd.DataFrame, pd.DataFrame], cache: Path | None = None, **settings: Any
) -> pd.DataFrame:
    images, objects = scenes
    groups = pd.Series(np.arange(len(images)), index=images.index)
    place = Workplace(device="cpu", cache=cache)
    return finetuned_detections(objects, groups, images, pd.Series(dtype=str), place, **{**QUICK, **settings})


def test_detections_are_in_pixels_of_the_images(scenes: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    found = found_in(scenes)
    assert list(found.columns) == ["sample_id", "name", "confidence", *CORNERS]
    assert set(found["sample_id"]) <= set(scenes[0].index)
    assert set(found["name"]) <= {"sun", "sea"}
    assert found["confidence"].between(0, 1).all()
    assert found[["x2", "y2"]].max().tolist() == pytest.approx([96, 64], abs=8)


def test_the_same_seed_gives_the_same_detections(scenes: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    once, again = found_in(scenes, epochs=1), found_in(scenes, epochs=1)
    pd.testing.assert_frame_equal(once, again)


def test_an_image_is_judged_by_the_detector_that_did_not_learn_from_it(
    scenes: tuple[pd.DataFrame, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt: dict[int, set[int]] = {}

    def tuned(network: nn.Module, images: Images, fold: fitting.Fold, **_: Any) -> nn.Module:
        learnt[fold.seed] = set(fold.learnt)
        return network.eval()

    looked: dict[int, set[int]] = {}

    def detected(network: nn.Module, images: Images, numbers: list[int], fold: fitting.Fold) -> Any:
        looked[fold.seed] = set(numbers)
        return fitting.detected(network, images, numbers, fold)

    from dataaudit.signals.detector import finetuning

    monkeypatch.setattr(finetuning, "tuned", tuned)
    monkeypatch.setattr(finetuning, "detected", detected)
    found_in(scenes)
    everything = set(range(len(scenes[0])))
    assert looked[0] | looked[1] == everything
    assert [learnt[fold] for fold in (0, 1)] == [everything - looked[fold] for fold in (0, 1)]


def test_after_an_interruption_it_goes_on_and_ends_as_without_one(
    scenes: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = found_in(scenes)
    from dataaudit.signals.detector import finetuning

    done = []

    def stopped(self: Any) -> None:
        done.append(1)
        if len(done) == 7:  # two folds of two epochs of two steps
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(finetuning._Steps, "one", stopped)
        with pytest.raises(KeyboardInterrupt):
            found_in(scenes, tmp_path)
    folder = next((tmp_path / "detector").iterdir())
    assert sorted(each.name for each in folder.iterdir()) == ["fold-0.npz", "fold-1.pt"]
    pd.testing.assert_frame_equal(found_in(scenes, tmp_path), whole)
    assert sorted(each.name for each in folder.iterdir()) == ["fold-0.npz", "fold-1.npz"]


def test_what_is_known_is_not_trained_again(
    scenes: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = found_in(scenes, tmp_path, epochs=1)
    from dataaudit.signals.detector import finetuning

    monkeypatch.delattr(finetuning, "tuned")
    pd.testing.assert_frame_equal(found_in(scenes, tmp_path, epochs=1), first)


def test_it_learns_what_it_is_shown(scenes: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    images, objects = scenes
    groups = pd.Series(np.arange(len(images)), index=images.index)
    scene = Scene.of(objects, groups, images.index, folds=2, seed=0)
    shown = Images(
        images["filepath"].tolist(), np.tile([96.0, 64.0], (12, 1)), boxes=scene.boxes, numbers=scene.numbers,
        owners=scene.images, longest=96, max_bytes=2**20,
    )  # fmt: skip
    losses: list[float] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build(recipe_named(MODEL, pretrained=False, size=64), 2)
    network.register_forward_hook(
        lambda _, inputs, said: losses.append(sum(value.item() for value in said.values()))
    )
    fold = fitting.Fold(
        learnt=range(12), epochs=12, batch_size=4, rate=3e-3, flip=False, steady=False, seed=0, device="cpu"
    )
    fitting.tuned(network, shown, fold, file=None, progress=lambda: None)
    assert np.mean(losses[-3:]) < 0.6 * np.mean(losses[:3])


def test_what_is_ignored_is_grey_but_where_an_object_is(scenes: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    images, _ = scenes
    shown = Images(
        images["filepath"].tolist()[:1], np.array([[96.0, 64.0]]),
        boxes=np.array([[0, 0, 50, 64], [10, 10, 20, 20]], dtype=float),
        numbers=np.array([-1, 1]), owners=np.array([0, 0]), longest=96, max_bytes=0,
    ).shown(0)  # fmt: skip
    assert (shown.pixels[:, :64, :50] == 124).float().mean() > 0.95
    assert (shown.pixels[:, 10:20, 10:20] != 124).float().mean() > 0.9
    assert (shown.boxes.tolist(), shown.classes.tolist()) == ([[10, 10, 20, 20]], [2])


def test_a_large_image_is_made_smaller_and_its_boxes_too(scenes: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    images, _ = scenes
    shown = Images(
        images["filepath"].tolist()[:1], np.array([[96.0, 64.0]]), boxes=np.array([[0, 0, 48, 64.0]]),
        numbers=np.array([0]), owners=np.array([0]), longest=48, max_bytes=0,
    ).shown(0)  # fmt: skip
    assert (shown.pixels.shape, shown.scale) == ((3, 32, 48), (0.5, 0.5))
    assert shown.boxes.tolist() == [[0, 0, 24, 32]]
    assert shown.mirrored().boxes.tolist() == [[24, 0, 48, 32]]


@pytest.mark.parametrize(
    "name", [MODEL, FASTER, "retinanet_resnet50_fpn_v2", "fcos_resnet50_fpn", "ssd300_vgg16"]
)
def test_detectors_of_torchvision_are_known_by_name(name: str) -> None:
    assert longest_side(recipe_named(name, pretrained=False, size=128)) in (128, 256, 213)


def test_weights_of_a_file_are_taken_over_but_for_the_classes(tmp_path: Path) -> None:
    first = build(recipe_named(MODEL, pretrained=False), 90)
    torch.save(first.state_dict(), tmp_path / "coco.pth")
    second = build(recipe_named(MODEL, weights=str(tmp_path / "coco.pth")), 2)
    one, other = first.state_dict(), second.state_dict()
    equal = {key for key in other if one[key].shape == other[key].shape and torch.equal(one[key], other[key])}
    left = {key for key in other if key not in equal}
    assert left
    assert all("classification_head" in key for key in left)


def _nothing(path: Path) -> Path:
    return path / "nowhere.pth"


def _damaged(path: Path) -> Path:
    (path / "damaged.pth").write_bytes(b"not a file of weights")
    return path / "damaged.pth"


def _of_another(path: Path) -> Path:
    torch.save(build(recipe_named(MODEL, pretrained=False), 2).state_dict(), path / "ssd.pth")
    return path / "ssd.pth"


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (_nothing, r"nowhere\.pth: The weights can't be read \(No such file or directory\)"),
        (_damaged, r"damaged\.pth: The weights can't be read"),
        (_of_another, r"ssd\.pth: Of \d+ layers of fasterrcnn_mobilenet_v3_large_320_fpn \d+ have weights"),
    ],
)
def test_weights_that_cannot_be_used_are_an_error(
    made: Callable[[Path], Path], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        build(recipe_named(FASTER, weights=str(made(tmp_path))), 2)


SETTINGS: dict[str, Any] = {
    "model": FASTER, "weights": "", "pretrained": False, "folds": 0, "epochs": 0, "size": 0, "batch_size": 8,
    "learning_rate": 0.0, "flip": True, "seed": 0, "max_gib": 4.0,
}  # fmt: skip


def test_the_settings_as_they_are_can_be_used() -> None:
    ready(SETTINGS)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model", "fasterrcnn_mobilenet", "Did you mean 'fasterrcnn_mobilenet_v3_large_fpn'"),
        ("model", "maskrcnn_resnet50_fpn", "torchvision has no detector 'maskrcnn_resnet50_fpn'"),
        ("folds", 1, "folds = 1; expected 2 or more"),
        ("batch_size", 0, "batch_size = 0; expected 1 or more"),
        ("learning_rate", 1.5, r"learning_rate = 1\.5; expected it between 0 and 1"),
        ("size", 16, "size = 16; expected 64 or more"),
    ],
)
def test_a_setting_out_of_range_is_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ready({**SETTINGS, name: value})


def test_without_a_network_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", refused)
    with pytest.raises(MissingDependencyError, match="Go online once; or fetch that file elsewhere") as said:
        ready({**SETTINGS, "pretrained": True})
    assert str(said.value.where).startswith("https://download.pytorch.org/models/fasterrcnn_mobilenet")


def test_an_audit_takes_the_detector_by_name(
    scenes: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path
) -> None:
    report = pipeline.audit(
        tables_of(scenes), select=("BOX003",), detector="finetune", settings={"finetuned_detections": QUICK},
        device="cpu", cache=tmp_path, progress=False,
    )  # fmt: skip
    assert report.params["detector"] == "finetune"
    assert report.detections is not None
    assert set(report.detections["name"]) <= {"sun", "sea"}
    assert (tmp_path / "detector").is_dir()


@pytest.mark.parametrize("code", ["BOX008", "BOX009", "BOX010"])
def test_no_model_is_trained_for_a_check_that_can_do_without(
    scenes: tuple[pd.DataFrame, pd.DataFrame], code: str
) -> None:
    report = pipeline.audit(tables_of(scenes), select=(code, "DUP", "IMG"), device="cpu", progress=False)
    assert code in report.outcomes
    assert not {"detections", "object_probs", "box_judge"} & set(report.timings)


def tables_of(scenes: tuple[pd.DataFrame, pd.DataFrame]) -> Tables:
    images, objects = scenes
    rows = ObjectRows()
    for number, (sample_id, path) in enumerate(images["filepath"].items()):
        rows.image(str(sample_id), path, Locator(file=f"{number}.xml"), size=(96, 64))
        for item, (label_id, each) in enumerate(objects[objects["sample_id"] == sample_id].iterrows()):
            corners = tuple(each[list(CORNERS)].astype(float))
            rows.object(
                str(sample_id), str(label_id), each["name"], corners, Locator(file=f"{number}.xml", item=item)
            )
    return rows.tables(source=None)  # type: ignore[arg-type]


def test_an_unknown_detector_is_refused(scenes: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    with pytest.raises(InputError, match=r"There is no detector 'finetuned'\. Did you mean 'finetune'"):
        pipeline.audit(scenes_of(2), detector="finetuned")
