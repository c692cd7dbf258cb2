"""Each layer in execution order, and the first bad one, also in the debugger."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.models import detection

from dataaudit.cli import main
from dataaudit.modelcheck import trace
from dataaudit.modelcheck.tracing import Layer

PLANTED = """
import torch
from torch import nn

class Log(nn.Module):
    def forward(self, x):
        shifted = x - x.max()
        return torch.log(shifted)

def make_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), Log(), nn.Linear(4, 2))
"""


class Log(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log(x - x.max())


class Twice(nn.Module):
    """Calls one layer twice, takes and gives dicts and tuples, and holds a layer that it doesn't call."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(4, 4)
        self.spare = nn.Linear(4, 4)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, object]:
        one = self.shared(batch["x"])
        return {"both": (one, self.shared(one))}


def test_layers_stand_in_execution_order_with_their_figures() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[0].bias.copy_(torch.tensor([0.0, 1.0, -9.0]))
    found = trace(model, torch.ones(1, 2))
    assert [(one.name, one.type, one.outputs, one.parameters) for one in found.layers] == [
        ("", "Sequential", ((1, 3),), 0), ("0", "Linear", ((1, 3),), 9), ("1", "ReLU", ((1, 3),), 0)
    ]  # fmt: skip
    relu = found.layers[2]
    assert (relu.mean, relu.zeros, relu.bad, relu.dtype) == (
        pytest.approx(5 / 3),
        pytest.approx(1 / 3),
        0.0,
        "float32",
    )
    assert found.findings == ()


def test_a_layer_called_twice_has_two_rows_and_an_uncalled_one_is_named() -> None:
    found = trace(Twice(), ({"x": torch.rand(2, 4)},))
    assert [(one.name, one.call, one.parameters) for one in found.layers] == [
        ("", 1, 0), ("shared", 1, 20), ("shared", 2, 0)
    ]  # fmt: skip
    assert found.layers[0].outputs == ((2, 4), (2, 4))
    assert found.unused == ("spare",)
    assert found.table().note == "Not called: spare."


def test_the_first_layer_with_nan_is_named() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), Log()), nn.Linear(4, 2))
    found = trace(model, torch.rand(3, 4)).findings
    assert [(item.code, item.item_id) for item in found] == [("MOD010", "1.1")]
    assert "Log" in found[0].message
    line = Log.forward.__code__.co_firstlineno
    assert found[0].evidence["source"] == f"tests/modelcheck/test_tracing.py:{line}"


def test_broken_weights_are_told_from_a_broken_operation() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[1].bias.data[0] = float("inf")
    found = trace(model, torch.rand(3, 4)).findings
    assert [(item.item_id, item.evidence["weights"]) for item in found] == [("1", ["bias"])]
    assert "Its bias hold NaN or infinity" in found[0].message


def test_a_bad_input_is_not_blamed_on_the_layer() -> None:
    found = trace(nn.Sequential(nn.Linear(4, 2)), torch.full((2, 4), float("nan"))).findings
    assert "The model's input holds some already" in found[0].message


def test_infinity_that_does_not_reach_the_output_is_no_finding() -> None:
    class Mask(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.masked_fill(x < 0.5, float("-inf"))

    model = nn.Sequential(Mask(), nn.Softmax(-1))
    assert trace(model, torch.tensor([[0.2, 0.9], [0.8, 0.1]])).findings == ()


def test_an_output_that_does_not_depend_on_the_sample_is_traced_to_its_layer() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    model[0].bias.data.fill_(-100.0)
    found = trace(model, torch.rand(3, 4)).findings
    assert [(item.code, item.item_id) for item in found] == [("MOD011", "1")]
    assert "all zeros" in found[0].message


@pytest.mark.parametrize("norm", [nn.GroupNorm(6, 6), nn.Sequential(nn.Linear(6, 1), nn.LayerNorm(1))])
def test_a_norm_over_one_value_leaves_nothing(norm: nn.Module) -> None:
    found = trace(nn.Sequential(nn.Linear(4, 6), norm), torch.rand(8, 4)).findings
    assert [item.code for item in found] == ["MOD011"]
    assert "it normalises over one value" in found[0].message


def test_a_norm_over_several_values_is_no_finding() -> None:
    assert trace(nn.Sequential(nn.Linear(4, 6), nn.GroupNorm(3, 6)), torch.rand(8, 4)).findings == ()


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_scripted_model_is_one_layer() -> None:
    found = trace(torch.jit.script(nn.Sequential(nn.Linear(4, 6), nn.ReLU())), torch.rand(8, 4))
    assert [layer.outputs for layer in found.layers] == [((8, 6),)]


def test_a_head_that_starts_with_zeros_is_no_finding() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    nn.init.zeros_(model[1].weight)
    assert trace(model, torch.rand(3, 4)).findings == ()


def test_a_signal_that_fades_in_a_network_before_training_is_no_finding() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(14)))
    for layer in model:
        layer.weight.data.mul_(0.1)
    inputs = torch.rand(3, 8)
    assert trace(model, inputs).findings == ()
    output = model(inputs)
    assert torch.equal(output[0], output[1])


def test_a_forward_that_drops_the_signal_is_named() -> None:
    class Dropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x) * 0 + 1

    assert [item.item_id for item in trace(Dropped(), torch.rand(3, 4)).findings] == ["Dropped"]


def test_a_forward_pass_that_raises_is_traced_until_then() -> None:
    found = trace(nn.Sequential(nn.Linear(4, 4), nn.Linear(5, 2)), torch.rand(3, 4))
    assert [layer.name for layer in found.layers] == ["0"]
    assert found.error is not None
    assert found.error.startswith("RuntimeError: mat1 and mat2 shapes cannot be multiplied")


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (torchvision.models.resnet18(), torch.rand(2, 3, 64, 64)),
        (torchvision.models.mobilenet_v3_small(), torch.rand(2, 3, 64, 64)),
        (timm.create_model("vit_tiny_patch16_224", img_size=32), torch.rand(2, 3, 32, 32)),
        (
            detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None),
            [torch.rand(3, 64, 64), torch.rand(3, 48, 64)],
        ),
    ],
    ids=["resnet18", "mobilenet", "vit", "detector"],
)  # fmt: skip
def test_a_healthy_model_is_traced_without_a_finding(model: nn.Module, inputs: object) -> None:
    found = trace(model, inputs)
    assert found.error is None
    assert found.findings == ()
    leaves = {layer.name for layer in found.layers if layer.leaf}
    convolutions = {name for name, part in model.named_modules() if isinstance(part, nn.Conv2d)}
    assert convolutions <= leaves
    table = found.table()
    assert len(table.rows) >= len(leaves)
    assert all(isinstance(layer, Layer) for layer in found.layers)


def run(folder: Path, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dataaudit", "model", *arguments],
        cwd=folder, input=typed, capture_output=True, text=True,
    )  # fmt: skip


def test_the_debugger_stops_inside_the_first_bad_layer(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text(PLANTED)
    typed = "p 'rows', x.shape[0]\nnext\np float(shifted.max())\ncontinue\n"
    done = run(tmp_path, "trace", "planted:make_model", "--pdb", typed=typed)
    assert "planted.py(7)forward()" in done.stdout, done.stderr
    assert "('rows', 4)" in done.stdout
    assert "0.0" in done.stdout
    assert done.returncode == 1


def test_the_command_prints_the_table_and_the_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "planted_log", raising=False)
    (tmp_path / "planted_log.py").write_text(PLANTED)
    assert main(["model", "trace", "planted_log:make_model", "--output", "out"]) == 1
    assert "MOD010 2  planted_log.py:6" in capsys.readouterr().out
    page = (tmp_path / "out" / "model-trace.html").read_text()
    assert "Layers in execution order" in page
    assert "http" not in page.replace("http-equiv", "")
