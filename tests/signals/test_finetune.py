from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pictures import tables_of, write_digits
from torch import nn

import dataaudit as da
from dataaudit import registry
from dataaudit.cli import main
from dataaudit.errors import InputError, MissingDependencyError, Unavailable
from dataaudit.signals.finetune import Finetuned, finetuned, ready
from dataaudit.signals.finetune.dynamics import dynamics_of, pooled
from dataaudit.signals.finetune.folds import folds_of
from dataaudit.types import Workplace

pytest.importorskip("pytorch_lightning")

CPU = Workplace(device="cpu")
QUICK = {
    "model": f"{__name__}:small_network",
    "folds": 2,
    "epochs": 2,
    "size": 32,
    "batch_size": 16,
    "learning_rate": 0.01,
    "head_rate": 0.01,
    "frozen_fraction": 0.0,
}
CURVES = ["loss", "margin", "confidence"]
DEFAULTS = dict(registry.signals()["finetuned"].settings)
countdown: list[int] = []


def small_network(n_classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU(), nn.Flatten(),
        nn.Linear(16 * 49, n_classes),
    )  # fmt: skip


class Stopping(nn.Module):
    """Ctrl-C in the training step whose number stands in `countdown`."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training and countdown:
            countdown[0] -= 1
            if countdown[0] == 0:
                raise KeyboardInterrupt
        return images


def stopping_network(n_classes: int) -> nn.Module:
    return nn.Sequential(Stopping(), small_network(n_classes))


def no_network(n_classes: int) -> str:
    return "a network"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> da.Tables:
    """60 digits, with sizes and digests as after the sweep."""
    root = tmp_path_factory.mktemp("finetune") / "digits"
    files, _ = write_digits(root, 60)
    tables = tables_of(root, files, [file.split("/")[0] for file in files])
    images = tables.images.assign(width=32, height=32, digest=files)
    return da.Tables(images=images, labels=tables.labels, classes=tables.classes)


def run(
    tables: da.Tables, workplace: Workplace = CPU, groups: list[int] | None = None, **settings: object
) -> Finetuned:
    ids = tables.images.index
    alone = pd.Series(range(len(ids)) if groups is None else groups, index=ids)
    chosen: dict[str, object] = {**QUICK, **settings}
    return finetuned(tables.images, alone, tables.labels, workplace, **chosen)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def found(digits: da.Tables) -> Finetuned:
    """What a small network with random weights says of the digits."""
    return run(digits, seed=1)


def test_every_image_is_judged_once_by_rows_that_sum_to_one(digits: da.Tables, found: Finetuned) -> None:
    assert sorted(found.pred_probs.index) == sorted(digits.images.index)
    assert list(found.pred_probs.columns) == list("0123456789")
    assert np.abs(found.pred_probs.to_numpy().sum(1) - 1).max() < 1e-5
    assert set(found.fold) == {0, 1}


def test_the_history_holds_each_image_and_epoch(digits: da.Tables, found: Finetuned) -> None:
    assert list(found.history.columns) == CURVES + [f"held_out_{name}" for name in CURVES]
    assert len(found.history) == 60 * 2
    assert found.history.notna().all(axis=None)
    assert found.history["confidence"].between(0, 1).all()
    right = found.history["margin"] > 0
    assert (found.history["confidence"][right] > 0.1).all()


def test_a_label_is_summed_up_over_epochs(found: Finetuned) -> None:
    means = found.history.groupby("sample_id", sort=False)[CURVES].mean()
    pd.testing.assert_frame_equal(
        found.dynamics[CURVES], means, check_names=False, check_dtype=False, rtol=1e-4
    )


def test_the_same_seed_gives_the_same_probabilities(digits: da.Tables, found: Finetuned) -> None:
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again = run(digits, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    pd.testing.assert_frame_equal(again.pred_probs, found.pred_probs)
    assert not run(digits, seed=2).pred_probs.equals(found.pred_probs)


def test_it_learns_what_the_digits_are(digits: da.Tables) -> None:
    learned = run(digits, epochs=20, batch_size=8)
    given = [name.split("/")[0] for name in learned.pred_probs.index]
    right = learned.pred_probs.idxmax(axis=1).to_numpy() == given
    assert right.mean() > 0.5
    assert (
        learned.history.xs(20, level="epoch")["loss"].mean()
        < learned.history.xs(1, level="epoch")["loss"].mean()
    )


def test_a_wrong_label_has_a_low_margin_and_probability(digits: da.Tables) -> None:
    wrong = digits.labels.index[10]
    labels = digits.labels.copy()
    labels.loc[wrong, "name"] = "7" if labels.loc[wrong, "name"] != "7" else "1"
    tables = da.Tables(images=digits.images, labels=labels, classes=digits.classes)
    learned = run(tables, epochs=20, batch_size=8)
    assert learned.dynamics["margin"].rank()[wrong] <= 12
    assert learned.pred_probs.loc[wrong, labels.loc[wrong, "name"]] < 0.2


def test_near_duplicates_are_held_out_together(digits: da.Tables) -> None:
    groups = [number // 3 for number in range(60)]
    fold = run(digits, groups=groups, epochs=1).fold
    assert (fold.groupby(groups).nunique() == 1).all()


@pytest.mark.parametrize("step", [3, 6], ids=["in the first fold", "in the second fold"])
def test_after_ctrl_c_it_goes_on_where_it_was(digits: da.Tables, tmp_path: Path, step: int) -> None:
    # 60 images, 2 folds, 16 a batch: two steps an epoch, two epochs a fold
    settings = {"model": f"{__name__}:stopping_network"}
    countdown[:] = []
    whole = run(digits, **settings)
    handler = signal.getsignal(signal.SIGINT)
    countdown[:] = [step]
    with pytest.raises(KeyboardInterrupt):
        run(digits, Workplace(device="cpu", cache=tmp_path), **settings)
    assert signal.getsignal(signal.SIGINT) is handler
    countdown[:] = [100]
    again = run(digits, Workplace(device="cpu", cache=tmp_path), **settings)
    assert 100 - countdown[0] == {3: 6, 6: 4}[step]
    pd.testing.assert_frame_equal(again.pred_probs, whole.pred_probs)
    pd.testing.assert_frame_equal(again.history, whole.history)


def test_what_is_finished_is_not_trained_again_and_the_images_are_not_kept(
    digits: da.Tables, tmp_path: Path
) -> None:
    place, settings = Workplace(device="cpu", cache=tmp_path), {"model": f"{__name__}:stopping_network"}
    countdown[:] = []
    first = run(digits, place, **settings)
    countdown[:] = [1]
    pd.testing.assert_frame_equal(run(digits, place, **settings).pred_probs, first.pred_probs)
    countdown[:] = []
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["fold-0.npz", "fold-1.npz"]


def test_a_damaged_checkpoint_begins_its_fold_again(digits: da.Tables, tmp_path: Path) -> None:
    place, settings = Workplace(device="cpu", cache=tmp_path), {"model": f"{__name__}:stopping_network"}
    countdown[:] = [4]
    with pytest.raises(KeyboardInterrupt):
        run(digits, place, **settings)
    countdown[:] = []
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    pd.testing.assert_frame_equal(
        run(digits, place, **settings).pred_probs, run(digits, **settings).pred_probs
    )


def test_another_label_is_another_training(digits: da.Tables, tmp_path: Path) -> None:
    place = Workplace(device="cpu", cache=tmp_path)
    run(digits, place, epochs=1)
    labels = digits.labels.assign(name=["1" if name == "7" else name for name in digits.labels["name"]])
    run(da.Tables(images=digits.images, labels=labels, classes=digits.classes), place, epochs=1)
    assert len(list((tmp_path / "finetune").iterdir())) == 2


def test_two_devices_judge_every_image_once(digits: da.Tables, tmp_path: Path) -> None:
    place = Workplace(device="cpu", cache=tmp_path)
    alone = run(digits, place, epochs=1)
    next(tmp_path.rglob("fold-1.npz")).unlink()
    both = run(digits, place, epochs=1, devices=2)
    first = alone.fold[alone.fold == 0].index
    pd.testing.assert_frame_equal(
        both.history.loc[first].filter(like="held_out"), alone.history.loc[first].filter(like="held_out")
    )
    assert sorted(both.pred_probs.index) == sorted(digits.images.index)
    assert np.abs(both.pred_probs.to_numpy().sum(1) - 1).max() < 1e-5
    assert both.history.notna().all(axis=None)


def test_images_that_do_not_fit_are_decoded_at_every_access(digits: da.Tables, found: Finetuned) -> None:
    pd.testing.assert_frame_equal(run(digits, seed=1, max_gib=0.0).pred_probs, found.pred_probs)


def test_the_default_backbone_begins_as_a_probe_and_keeps_its_first_layers(digits: da.Tables) -> None:
    learned = run(digits, model="efficientnet_lite0", epochs=1, frozen_fraction=0.9, learning_rate=1e-4)
    given = [name.split("/")[0] for name in learned.pred_probs.index]
    assert (learned.pred_probs.idxmax(axis=1).to_numpy() == given).mean() > 0.5


@pytest.mark.parametrize("model", ["squeezenet1_1", "timm:test_resnet.r160_in1k"])
def test_models_of_torchvision_and_timm_take_random_weights_only_when_asked(
    digits: da.Tables, model: str
) -> None:
    learned = run(digits, model=model, pretrained=False, epochs=1, size=64)
    assert learned.pred_probs.shape == (60, 10)


def test_weights_that_are_not_to_be_had_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(MissingDependencyError, match="can't be downloaded"):
        ready({**DEFAULTS, "model": "squeezenet1_1"}, None)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"folds": 1}, "folds = 1; expected 2 or more"),
        ({"epochs": 0}, "epochs = 0; expected 1 or more"),
        ({"size": 50}, "size = 50; expected a multiple of 32"),
        ({"learning_rate": 0.0}, "learning_rate = 0.0; expected it between 0 and 1"),
        ({"frozen_fraction": 1.5}, "frozen_fraction = 1.5; expected 0 to 1"),
        ({"model": "efficientnet_lite9"}, "Did you mean 'efficientnet_lite0'"),
        ({"model": "efficientnet_lite_ensemble"}, "no single network"),
        ({"model": "nowhere.models:net"}, "'nowhere.models:net' can't be imported"),
        ({"model": f"{__name__}:nothing"}, "has no attribute 'nothing'"),
        ({"model": f"{__name__}:no_network"}, "made a str; expected a torch.nn.Module"),
        ({}, "The backbone is a module of your own"),
    ],
)
def test_what_can_not_be_trained_is_known_before_anything_is_read(
    settings: dict[str, object], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        ready({**DEFAULTS, **settings}, None)


def test_without_lightning_the_error_says_what_to_install() -> None:
    script = """
import sys
sys.modules["pytorch_lightning"] = None
import dataaudit as da
from dataaudit.errors import MissingDependencyError
from dataaudit.signals.finetune import _need_lightning
try:
    _need_lightning()
except MissingDependencyError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "pip install 'dataaudit[finetune]'" in done.stdout


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([None] * 60, "there are labels of 0 classes"),
        (["a"] * 60, "there are labels of 1 class;"),
        ([*"ab", *[None] * 58], "no class has two different images"),
    ],
)
def test_too_few_classes_or_images_have_a_reason(
    digits: da.Tables, names: list[str | None], reason: str
) -> None:
    tables = da.Tables(images=digits.images, labels=digits.labels.assign(name=names), classes=("a", "b"))
    with pytest.raises(Unavailable, match=reason):
        run(tables)


def test_an_image_alone_in_its_class_and_an_unlabeled_one_have_no_row(digits: da.Tables) -> None:
    names = ["alone", None, *["a", "b"] * 29]
    tables = da.Tables(
        images=digits.images, labels=digits.labels.assign(name=names), classes=("a", "alone", "b")
    )
    learned = run(tables, epochs=1)
    assert set(digits.images.index) - set(learned.pred_probs.index) == set(digits.images.index[:2])
    assert list(learned.pred_probs.columns) == ["a", "alone", "b"]
    assert len(learned.dynamics) == 59


def test_three_images_are_judged_where_it_is_possible(digits: da.Tables) -> None:
    tables = da.Tables(
        images=digits.images.iloc[:3],
        labels=digits.labels.iloc[:3].assign(name=["a", "b", "a"]),
        classes=("a", "b"),
    )
    learned = run(tables, epochs=1)
    assert list(learned.pred_probs.index) == [digits.images.index[0], digits.images.index[2]]
    assert learned.pred_probs.notna().all(axis=None)


def test_images_that_are_all_equal_can_not_be_held_out(digits: da.Tables) -> None:
    with pytest.raises(Unavailable, match="no class has two different images"):
        run(digits, groups=[0] * 60)


def test_an_image_that_vanishes_is_named(digits: da.Tables, tmp_path: Path) -> None:
    images = digits.images.copy()
    images.iloc[3, images.columns.get_loc("filepath")] = str(tmp_path / "gone.png")
    with pytest.raises(InputError, match=r"gone\.png: The image can't be read any more"):
        run(da.Tables(images=images, labels=digits.labels, classes=digits.classes))


def test_the_better_of_two_models_has_the_say() -> None:
    rng = np.random.default_rng(0)
    given, fold = rng.integers(0, 3, 300), np.arange(300) % 3
    knows = np.full((300, 3), 0.1, dtype=np.float32)
    knows[np.arange(300), given] = 0.8
    guesses = rng.dirichlet(np.ones(3), 300).astype(np.float32)
    joined = pooled([knows, guesses], given, fold)
    assert np.abs(joined.sum(1) - 1).max() < 1e-5
    assert joined[np.arange(300), given].mean() > 0.95
    assert pooled([guesses], given, fold).max() < 0.6


def test_no_label_has_a_say_in_its_own_probability() -> None:
    rng = np.random.default_rng(0)
    given, fold = rng.integers(0, 3, 60), np.arange(60) % 3
    values = rng.dirichlet(np.ones(3), 60).astype(np.float32)
    other = given.copy()
    other[fold == 1] = 0
    before, after = pooled([values], given, fold), pooled([values], other, fold)
    assert (before[fold == 1] == after[fold == 1]).all()


def test_the_margin_counts_the_epochs_in_which_a_label_was_right_and_then_wrong() -> None:
    # one image, held out by the second of two folds, three epochs: right, wrong, right; then 0.5 held out
    curves = np.zeros((2, 3, 3, 1), dtype=np.float32)
    curves[0, :, 1, 0] = [2.0, -1.0, 5.0]
    curves[0, :, 2, 0] = [0.9, 0.3, 0.9]
    curves[1, :, 1, 0] = 0.5
    dynamics, history = dynamics_of(curves, np.array([[False], [True]]))
    assert dynamics["margin"].tolist() == [2.0]
    assert dynamics["forgotten"].tolist() == [1.0]
    assert dynamics["learned"].tolist() == pytest.approx([2 / 3])
    assert dynamics["held_out_margin"].tolist() == [0.5]
    assert dynamics["variability"].tolist() == pytest.approx([0.08**0.5])
    assert history["margin"].tolist() == [2.0, -1.0, 5.0]
    assert history.index.tolist() == [(0, 1), (0, 2), (0, 3)]


@pytest.mark.parametrize(
    ("given", "groups"),
    [([0, 0, 1, 1], [0, 1, 2, 3]), ([0, 0, 0, 0], [5, 5, 5, 9]), ([0, 1, 1, 2], [0, 0, 1, 2])],
)
def test_folds_share_out_classes_and_keep_groups(given: list[int], groups: list[int]) -> None:
    fold = folds_of(np.array(given), np.array(groups), 2)
    assert pd.Series(fold).groupby(groups).nunique().max() == 1
    assert set(fold) == {0, 1}
    assert np.bincount(pd.Series(fold, index=groups).groupby(level=0).first()).max() <= 2


def test_an_audit_takes_the_fine_tuned_baseline(tmp_path: Path) -> None:
    files, _ = write_digits(tmp_path / "digits", 40)
    tables = tables_of(tmp_path / "digits", files, [file.split("/")[0] for file in files])
    report = da.audit(
        tables, select=["LBL001"], baseline="finetune", settings={"finetuned": {**QUICK, "epochs": 1}},
        cache=tmp_path / "cache", device="cpu", progress=False,
    )  # fmt: skip
    assert len(report.outcomes["LBL001"].score) == 40
    assert report.params["baseline"] == "finetune"
    assert "finetuned" in report.timings
    assert "spectrum" in report.timings  # of the near-duplicates


def test_the_command_line_takes_it_with_the_settings_of_the_project(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_digits(tmp_path / "digits", 40)
    lines = [f"{key} = {json.dumps(value)}" for key, value in QUICK.items()]
    (tmp_path / "dataaudit.toml").write_text("\n".join(["[settings.finetuned]", *lines]))
    command = ["audit", str(tmp_path / "digits"), "--baseline", "finetune", "--select", "LBL001",
               "--no-fiftyone", "--exit-zero", "--device", "cpu", "--format", "json"]  # fmt: skip
    assert main(command) == 0
    written = json.loads(capfd.readouterr().out)
    assert written["params"]["baseline"] == "finetune"
    assert len(list((tmp_path / ".dataaudit/cache/finetune").rglob("fold-*.npz"))) == 2
    assert not list(tmp_path.rglob("lightning_logs"))


def test_an_unknown_baseline_lists_those_there_are(digits: da.Tables) -> None:
    with pytest.raises(InputError, match="Did you mean 'finetune'"):
        da.audit(digits, baseline="fine-tune", progress=False)
