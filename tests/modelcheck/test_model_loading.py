"""A user's model is found by name, and what is wrong with the name, the module or the file is said."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from dataaudit.errors import InputError
from dataaudit.modelcheck import load_model
from dataaudit.modelcheck.inputs import images_batch, input_shape, random_batch, user_batch

MODULE = """
import torch
from torch import nn

model = nn.Linear(2, 3)
number = 7
weights = model.state_dict()

def make_model():
    return nn.Linear(4, 5)

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()

def broken():
    return nn.Linear("two", 3)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "ownmodel", raising=False)
    (tmp_path / "ownmodel.py").write_text(MODULE)
    (tmp_path / "half.py").write_text("x = 1\nraise KeyError('weights')\n")
    (tmp_path / "needs.py").write_text("import notinstalled\n")
    return tmp_path


@pytest.mark.parametrize(
    ("spec", "width"),
    [("ownmodel:make_model", 5), ("ownmodel:model", 3), ("ownmodel.py:make_model", 5)],
)
def test_a_model_is_an_attribute_or_what_a_factory_makes(here: Path, spec: str, width: int) -> None:
    model = load_model(spec)
    assert isinstance(model, nn.Linear)
    assert model.out_features == width


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("ownmodel", "'ownmodel' names no model"),
        ("nomodule:make", r"There is no module 'nomodule', seen from .*Run it in the folder"),
        ("ownmodel:make_mdel", r"ownmodel has no 'make_mdel'. Did you mean 'make_model'"),
        ("ownmodel:Net", r"ownmodel:Net needs arguments: width.*return Net\(width=...\)"),
        ("ownmodel:broken", r"ownmodel.py:17: ownmodel:broken raised TypeError"),
        ("ownmodel:number", "ownmodel:number is a int; expected a torch.nn.Module"),
        ("ownmodel:weights", "looks like a state_dict"),
        ("half:make", "half.py:2: Importing half raised KeyError: 'weights'"),
        ("needs:make", "needs.py:1: needs imports notinstalled, which isn't installed"),
        ("gone.pt", "There is no file gone.pt"),
        ("timm:resnet1", "timm has no model 'resnet1'. Near it: "),
        ("torchvision:resnet1", "torchvision has no model 'resnet1'"),
    ],
)
def test_what_is_wrong_with_the_name_is_said(here: Path, spec: str, says: str) -> None:
    with pytest.raises(InputError, match=f"(?s){says}"):
        load_model(spec)


def test_files_of_weights_and_of_whole_modules_are_explained(here: Path) -> None:
    model = nn.Linear(2, 3)
    torch.save(model.state_dict(), "weights.pt")
    torch.save(model, "whole.pt")
    with pytest.raises(InputError, match="weights without the model"):
        load_model("weights.pt")
    with pytest.raises(InputError, match=r"would run code that it holds.*(?s:.*)weights_only=False"):
        load_model("whole.pt")


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_torchscript_is_read(here: Path) -> None:
    torch.jit.script(nn.Linear(2, 3)).save("script.pt")
    assert load_model("script.pt")(torch.ones(1, 2)).shape == (1, 3)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("timm:vit_tiny_patch16_224", (3, 224, 224)),
        ("torchvision:mobilenet_v3_small", (3, 224, 224)),
        ("torchvision:vit_b_32", (3, 224, 224)),
    ],
)
def test_the_input_shape_of_known_networks_is_found(name: str, shape: tuple[int, ...]) -> None:
    assert input_shape(load_model(name)) == shape


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.Sequential(nn.Linear(13, 4), nn.ReLU()), (13,)),
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), (784,)),
        (nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 26 * 26, 10)), (1, 28, 28)),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 30 * 30, 10)), (3, 32, 32)),
        (nn.Conv1d(5, 2, 3), (5, 128)),
    ],
)
def test_the_input_shape_of_an_own_network_is_found(model: nn.Module, shape: tuple[int, ...]) -> None:
    assert input_shape(model) == shape
    assert model.training


def test_a_shape_that_can_not_be_found_is_asked_for() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(17, 10))
    with pytest.raises(InputError, match=r"can't be found: mat1 and mat2.*(?s:.*)--input-shape 3,224,224"):
        random_batch(model)


def test_images_become_a_batch_with_their_labels(digit_folder: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    batch = images_batch(digit_folder, model, 10, shape=(3, 16, 16))
    assert batch.inputs.shape == (10, 3, 16, 16)
    assert sorted(batch.targets.tolist()) == list(range(10))
    assert batch.real
    for sample, target in zip(batch.sample_ids, batch.targets.tolist(), strict=True):
        assert Path(sample).parent.name == batch.classes[target]


def test_a_batch_of_the_users_is_taken_apart() -> None:
    loader = [(torch.arange(8.0).reshape(4, 2), torch.arange(4))]
    batch = user_batch(lambda: loader, 3)
    assert (batch.inputs.shape, batch.targets.tolist()) == ((3, 2), [0, 1, 2])
    named = user_batch([{"image": torch.zeros(2, 3), "label": torch.ones(2)}])
    assert (named.inputs.shape, named.targets.tolist()) == ((2, 3), [1.0, 1.0])
    with pytest.raises(InputError, match="yields no batch"):
        user_batch([])
