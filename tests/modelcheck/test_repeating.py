"""The same input gives the same output, and where it doesn't the module at fault is named, and why."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the name that everyone knows
from torchvision.models import detection

from dataaudit.modelcheck import determinism
from dataaudit.modelcheck.modes import train_eval


class Wrapped(nn.Module):
    """A small network around a layer that may be at fault."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.odd = layer
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.odd(self.norm(self.stem(x))).mean((2, 3)))


class Lambda(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.total += 1
        return x + self.total


class Growing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.memory: list[float] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.memory.append(1.0)
        return x * len(self.memory)


class OwnGenerator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.draws = torch.Generator().manual_seed(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand(1, generator=self.draws)


class Stubborn(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def train(self, mode: bool = True) -> Stubborn:
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class Unfilled(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.empty(x.shape)
        out[..., 1:] = x[..., 1:]
        return out


class PlainList(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def clock(x: torch.Tensor) -> torch.Tensor:
    return x * (time.perf_counter_ns() % 1_000_003)


def shift(x: torch.Tensor) -> torch.Tensor:
    return x - x.mean(0)


def noise(x: torch.Tensor) -> torch.Tensor:
    return x + np.random.rand()


FAULTS: list[tuple[nn.Module, str, str, str]] = [
    (Lambda(lambda x: F.dropout(x, 0.5)), "MOD001", "odd", "training=self.training"),
    (Lambda(lambda x: x + torch.randn_like(x)), "MOD001", "odd", "randn_like"),
    (Lambda(noise), "MOD001", "odd", "Draw only if self.training, or|Take the random number out"),
    (Lambda(lambda x: x * random.random()), "MOD001", "odd", "Take the random number out"),
    (Stubborn(nn.Dropout(0.5)), "MOD006", "odd.layer", r"super\(\).train\(mode\)"),
    (Stubborn(nn.BatchNorm2d(8)), "MOD006", "odd.layer", r"super\(\).train\(mode\)"),
    (Counting(), "MOD002", "odd", "A call changed odd.total"),
    (Growing(), "MOD002", "odd", "A call changed odd.memory"),
    (OwnGenerator(), "MOD002", "odd", "A call changed odd.draws"),
    (Unfilled(), "MOD003", "odd", "torch.zeros"),
    (Lambda(clock), "MOD004", "odd", "the clock"),
    (Lambda(shift), "MOD005", "odd", "over dimension 0"),
    (nn.BatchNorm2d(8, track_running_stats=False), "MOD005", "odd", "keeps no running statistics"),
    (Lambda(lambda x: x.flip(0)), "MOD005", "odd", "mixes the samples"),
    (PlainList(), "MOD008", "odd.layers", "nn.ModuleList"),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "code", "where", "says"), FAULTS, ids=lambda one: str(one)[:20])
def test_the_first_finding_names_the_module_at_fault_and_the_reason(
    layer: nn.Module, code: str, where: str, says: str
) -> None:
    torch.manual_seed(0)
    found = determinism(Wrapped(layer), torch.rand(4, 3, 16, 16))
    assert (found[0].code, found[0].item_id) == (code, where), [item.message for item in found]
    assert re.search(says, found[0].message), found[0].message


def test_the_line_that_draws_is_named() -> None:
    found = determinism(Wrapped(Lambda(lambda x: x + torch.rand(1))), torch.rand(2, 3, 8, 8))
    line = test_the_line_that_draws_is_named.__code__.co_firstlineno + 1
    assert found[0].evidence["source"] == f"tests/modelcheck/test_repeating.py:{line}"
    assert found[0].evidence["operation"] == "aten.rand.default"


def test_a_first_layer_in_place_changes_the_batch() -> None:
    found = determinism(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 2)), torch.randn(3, 4))
    assert [(item.code, item.item_id) for item in found] == [("MOD009", "0")]


def test_a_squeeze_without_a_dimension_shows_with_one_sample() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 8), Lambda(lambda x: x.squeeze()))
    found = determinism(model, torch.rand(3, 3, 8, 8))
    assert [item.code for item in found] == ["MOD005"]
    assert "squeeze" in found[0].message


def test_statistics_that_do_not_fit_the_images_are_found_on_real_data_only() -> None:
    model = Wrapped(nn.Identity())
    x = torch.rand(8, 3, 16, 16)
    for _ in range(50):
        model(x)
    assert determinism(model, x, real=True) == []
    found = determinism(model, x * 255, real=True)
    assert [(item.code, item.item_id) for item in found] == [("MOD007", "norm")]
    assert "compare preprocessing" in found[0].message
    assert determinism(model, x * 255) == []


def test_tensors_of_images_count_as_real_data() -> None:
    model = Wrapped(nn.Identity())
    x = torch.rand(8, 3, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    for _ in range(50):
        model(x)
    assert determinism(model, x) == []
    assert [item.code for item in determinism(model, x * 255)] == ["MOD007"]


def test_statistics_that_never_moved_are_told_from_a_network_before_training() -> None:
    x = torch.rand(8, 3, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3) * 12
    assert determinism(Wrapped(nn.Identity()), x) == []
    model = Wrapped(nn.Identity())
    model.norm.momentum = 0.0
    for _ in range(3):
        model(x)
    found = determinism(model, x)
    assert [item.code for item in found] == ["MOD007"]
    assert "after 3 batches with a momentum of 0.0" in found[0].message


class OverTheBatch(nn.Module):
    """Attention that takes the samples of a batch for the tokens of a sentence."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = x.mean(3).flatten(1)[:, :8]
        return torch.softmax(features @ features.T, 1) @ features


def test_the_line_that_mixes_the_samples_is_named() -> None:
    found = determinism(OverTheBatch(), torch.rand(4, 3, 8, 8))
    line = OverTheBatch.forward.__code__.co_firstlineno + 2
    assert [item.code for item in found] == ["MOD005"]
    assert found[0].evidence["source"] == f"tests/modelcheck/test_repeating.py:{line}"
    assert "mm is the first operation that mixes the samples" in found[0].message


class Sentences(nn.Module):
    """Takes a packed sequence."""

    def __init__(self, drop: bool) -> None:
        super().__init__()
        self.layer, self.drop = nn.LSTM(3, 8, batch_first=True), drop

    def forward(self, packed: nn.utils.rnn.PackedSequence) -> torch.Tensor:
        last = self.layer(packed)[1][0][-1]
        return F.dropout(last) if self.drop else last


def test_a_packed_sequence_is_one_input() -> None:
    packed = nn.utils.rnn.pack_padded_sequence(torch.rand(3, 6, 3), [6, 4, 2], batch_first=True)
    assert determinism(Sentences(drop=False), packed) == []
    assert [item.code for item in determinism(Sentences(drop=True), packed)] == ["MOD001"]


@pytest.mark.parametrize("wrapped", [nn.DataParallel, partial(torch.compile, backend="eager")])
def test_a_wrapped_model_is_looked_into(wrapped: Callable[[nn.Module], nn.Module]) -> None:
    layer = Lambda(lambda x: F.dropout(x, 0.5))
    assert determinism(wrapped(Wrapped(nn.Identity())), torch.rand(3, 3, 8, 8)) == []
    found = determinism(wrapped(Wrapped(layer)), torch.rand(3, 3, 8, 8))
    line = test_a_wrapped_model_is_looked_into.__code__.co_firstlineno + 2
    assert found[0].code == "MOD001"
    assert found[0].evidence["source"] == f"tests/modelcheck/test_repeating.py:{line}"


class Pixels(nn.Module):
    """Takes bytes, and gives halves of numbers in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3).half()

    def forward(self, x: torch.Tensor) -> dict[str, object]:
        out = self.conv(x.half() / 255).mean((2, 3))
        return {"logits": out, "more": [out, (out * 2,)]}


def test_bytes_halves_and_nested_outputs_are_taken() -> None:
    x = (torch.rand(3, 3, 8, 8) * 255).to(torch.uint8)
    assert determinism(Pixels(), x) == []


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_scripted_model_is_looked_at_as_a_whole() -> None:
    class Noisy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.rand_like(x)

    found = determinism(torch.jit.script(Noisy()), torch.rand(3, 4))
    assert [item.code for item in found] == ["MOD001"]


def test_statistics_with_nan_are_found() -> None:
    model = Wrapped(nn.Identity())
    model.norm.running_var.fill_(float("nan"))
    found = determinism(model, torch.rand(2, 3, 8, 8), real=True)
    assert "running statistics of norm hold NaN" in found[-1].message


HEALTHY: dict[str, Callable[[], tuple[nn.Module, object]]] = {
    "resnet18": lambda: (torchvision.models.resnet18(), torch.rand(3, 3, 64, 64)),
    "mobilenet": lambda: (torchvision.models.mobilenet_v3_small(), torch.rand(3, 3, 64, 64)),
    "vit": lambda: (timm.create_model("vit_tiny_patch16_224", img_size=32), torch.rand(3, 3, 32, 32)),
    "swin": lambda: (torchvision.models.swin_t(), torch.rand(2, 3, 64, 64)),
    "convnext": lambda: (timm.create_model("convnext_atto"), torch.rand(2, 3, 64, 64)),
    "mlp": lambda: (nn.Sequential(nn.Linear(8, 9), nn.ReLU(True), nn.Linear(9, 3)), torch.rand(4, 8)),
    "lstm": lambda: (nn.LSTM(4, 8, batch_first=True), torch.rand(3, 5, 4)),
    "detector": lambda: (
        detection.fasterrcnn_mobilenet_v3_large_320_fpn(weights=None, weights_backbone=None, min_size=96),
        [torch.rand(3, 64, 64), torch.rand(3, 64, 64)],
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_model_gives_no_finding(name: str) -> None:
    torch.manual_seed(1)
    model, inputs = HEALTHY[name]()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert [item.message for item in determinism(model, inputs)] == []
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_what_acts_otherwise_in_train_mode_is_listed_and_own_layers_are_told_apart() -> None:
    class Noisy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1 if self.training else x

    rows = train_eval(
        nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), Noisy(), nn.Dropout(0.5)), torch.rand(6, 4)
    )
    assert [(row["name"], row["type"], row["expected"]) for row in rows] == [
        ("1", "BatchNorm1d", True), ("2", "Noisy", False), ("3", "Dropout", True)
    ]  # fmt: skip
