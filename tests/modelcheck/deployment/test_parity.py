"""A deployed model against the trained one: what is planted is named, and what is healthy stays silent."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))

from exports import Small, edited, images, save_onnx, set_attribute

from dataaudit.cli import main
from dataaudit.errors import InputError
from dataaudit.modelcheck.deployment.checking import Parity, parity
from dataaudit.modelcheck.deployment.converting import convert
from dataaudit.modelcheck.deployment.differences import limit_for, mcnemar, relative, wilson
from dataaudit.modelcheck.inputs import Batch

pytest.importorskip("onnxruntime")

Edit = Callable[[Any], None]


def compare(deployed: Any, model: nn.Module | None = None, x: torch.Tensor | None = None) -> Parity:
    return parity(model or Small(), deployed, images() if x is None else x, timed=False)


def said(found: Parity) -> str:
    return " ".join(item.message for item in found.findings)


def traced(model: nn.Module) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(model, images(2))


def exported(model: nn.Module) -> Any:
    return torch.export.export(model, (images(2),), dynamic_shapes=({0: torch.export.Dim("n")},))


HEALTHY: dict[str, Callable[[Path], Any]] = {
    "onnx": lambda folder: save_onnx(Small(), folder / "m.onnx"),
    "onnx with a batch of one": lambda folder: save_onnx(Small(), folder / "m.onnx", images(1), free=False),
    "onnx of batch norm by itself": lambda folder: save_onnx(
        Small(), folder / "m.onnx", training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False
    ),
    "torchscript": lambda _: traced(Small()),
    "torch.export": lambda _: exported(Small()),
    "float16": lambda _: Small().half(),
    "bfloat16": lambda _: Small().bfloat16(),
    "float64": lambda _: Small().double(),
    "function of arrays": lambda _: lambda array: Small()(torch.tensor(array)).numpy(),
    "the model itself": lambda _: Small(),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_faithful_version_is_silent(name: str, tmp_path: Path) -> None:
    found = compare(HEALTHY[name](tmp_path))
    assert said(found) == ""
    assert found.relative is not None
    assert found.relative <= found.limit
    assert found.decisions is not None
    assert found.decisions.n == 8


# What is wrong, the edit of the graph, the code, where, and what the sentence names
GRAPHS: list[tuple[str, Edit, str, str, str]] = [
    (
        "resize aligns corners",
        lambda graph: set_attribute(graph, "Resize", coordinate_transformation_mode="align_corners"),
        "DEP001", "Resize", "coordinates align_corners in place of half_pixel",
    ),
    ("resize to the nearest", lambda graph: set_attribute(graph, "Resize", mode="nearest"),
     "DEP001", "Resize", "mode nearest in place of linear"),
    ("pooling leaves padding out", lambda graph: set_attribute(graph, "AveragePool", count_include_pad=0),
     "DEP001", "pool", "count_include_pad=False in place of True"),
    ("another slope", lambda graph: set_attribute(graph, "LeakyRelu", alpha=0.01),
     "DEP001", "LeakyRelu", "slope 0.01 in place of 0.1"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "edit", "code", "where", "names"), GRAPHS, ids=[row[0] for row in GRAPHS])
def test_the_first_node_that_departs_is_named_with_its_cause(
    name: str, edit: Edit, code: str, where: str, names: str, tmp_path: Path
) -> None:
    found = compare(edited(save_onnx(Small(), tmp_path / "m.onnx"), edit))
    assert [item.code for item in found.findings] == [code]
    assert where in found.findings[0].item_id
    assert names in said(found)


def test_weights_of_another_checkpoint_are_named_by_their_layer(tmp_path: Path) -> None:
    other = Small()
    other.mix.weight.data *= 1.1
    found = compare(save_onnx(other, tmp_path / "m.onnx"))
    assert [(item.code, item.item_id) for item in found.findings] == [("DEP009", "mix")]
    assert "mix.weight" in said(found)


@pytest.mark.parametrize("make", [lambda model: model, traced, exported])
def test_tensors_with_other_values_are_named_in_modules_too(make: Callable[[nn.Module], Any]) -> None:
    other = Small()
    with torch.no_grad():
        other.head.weight.mul_(1.5)
    found = compare(make(other)).findings
    assert [(item.code, item.item_id) for item in found] == [("DEP009", "head")]
    assert "1 of 9 tensors" in found[0].message or "1 of 10 tensors" in found[0].message


def test_a_checkpoint_that_was_not_loaded_is_told_from_another_one() -> None:
    other = Small()
    for part in other.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            part.reset_parameters()
    other.norm.reset_running_stats()
    nn.init.normal_(other.norm.weight)
    nn.init.normal_(other.norm.bias)
    assert "load_state_dict(..., strict=True)" in compare(other).findings[0].message


def test_an_activation_in_another_approximation_is_named_by_its_layer() -> None:
    class Gelu(nn.Module):
        def __init__(self, approximate: str) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)
            self.act = nn.GELU(approximate=approximate)
            nn.init.normal_(self.first.weight, std=0.5)
            nn.init.zeros_(self.last.bias)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.act(self.first(x))[:, :, 0, 0])

    found = compare(Gelu("tanh").eval(), Gelu("none").eval()).findings
    assert [(item.code, item.item_id) for item in found] == [("DEP001", "act")]


def test_a_frozen_script_is_compared() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scripts are deprecated, and deployed all the same
        frozen = torch.jit.freeze(traced(Small().eval()))
    assert compare(frozen).findings == ()


def test_openvino_is_taken_as_a_file_and_as_a_model(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = openvino.convert_model(Small(), example_input=images(2))
        openvino.save_model(made, tmp_path / "m.xml")
    for deployed in (str(tmp_path / "m.xml"), made, openvino.compile_model(made, "CPU")):
        found = compare(deployed)
        assert found.deployed.runtime.startswith("OpenVINO")
        assert said(found) == ""


class Wide(nn.Module):
    """Linear layers, which dynamic quantisation is for."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(768, 64), nn.Linear(64, 5)
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x.flatten(1)).relu())


@pytest.mark.filterwarnings("ignore")
def test_dynamic_quantisation_of_pytorch_is_known_also_when_scripted() -> None:
    made = torch.ao.quantization.quantize_dynamic(Wide(), {nn.Linear}, dtype=torch.qint8)
    for deployed in (made, torch.jit.script(made)):
        found = compare(deployed, Wide())
        assert found.deployed.precision == torch.qint8
        assert said(found) == ""
    size = compare(made, Wide()).sizes[1]
    assert size is not None
    assert size < 60_000


@pytest.mark.filterwarnings("ignore")
def test_static_quantisation_of_onnx_runtime_is_silent_unless_badly_calibrated(tmp_path: Path) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    file = save_onnx(Small(), tmp_path / "float.onnx")

    def quantized(name: str, calibration: torch.Tensor) -> Path:
        class Reader(quantization.CalibrationDataReader):  # type: ignore[name-defined, misc]
            def __init__(self) -> None:
                self.rest = iter([{"image": part.numpy()} for part in calibration.split(4)])

            def get_next(self) -> Any:
                return next(self.rest, None)

        quantization.quantize_static(str(file), str(tmp_path / name), Reader())
        return tmp_path / name

    x = images(32)
    good = compare(quantized("good.onnx", x), x=x)
    assert (said(good), good.deployed.precision) == ("", torch.qint8)
    assert compare(quantized("bad.onnx", x * 0.02), x=x).findings[0].code == "DEP002"


def test_another_epsilon_of_batch_norm_is_named(tmp_path: Path) -> None:
    other = Small()
    other.norm.running_var.fill_(1e-4)
    model = copy.deepcopy(other)
    model.norm.eps = 1e-3
    path = save_onnx(other, tmp_path / "m.onnx", training=torch.onnx.TrainingMode.PRESERVE,
                     do_constant_folding=False)  # fmt: skip
    found = compare(path, model)
    assert [item.code for item in found.findings] == ["DEP001"]
    assert "norm" in found.findings[0].item_id


def batch_norm_trains(x: torch.Tensor) -> torch.Tensor:
    model = Small()
    model.norm.train()
    return model(x)


def shuffled(x: torch.Tensor) -> torch.Tensor:
    return Small()(x)[:, [1, 0, 2, 4, 3]]


# A function that is deployed, the code, and what the sentence names
FUNCTIONS: list[tuple[Callable[[torch.Tensor], Any], str, str]] = [
    (lambda x: Small()(x.flip(1)), "DEP010", "BGR"),
    (lambda x: Small()(x / 255), "DEP011", "divides the input by 255"),
    (lambda x: Small()(x * 255), "DEP011", "multiplies the input by 255"),
    (lambda x: Small()((x - 0.45) / 0.225), "DEP001", ""),
    (lambda x: Small()((x - MEAN) / STD), "DEP012", "normalises the input once more"),
    (lambda x: Small()(x * STD + MEAN), "DEP012", "takes the normalisation of the input back"),
    (lambda x: Small()(x.transpose(2, 3)), "DEP015", "exchanges height and width"),
    (lambda x: Small()(x.flip(3)), "DEP015", "mirrors"),
    (lambda x: Small()(x.permute(0, 2, 3, 1).reshape(x.shape)), "DEP016", "channels-last"),
    (lambda x: Small()(x).softmax(1), "DEP007", "ends with a softmax"),
    (lambda x: Small()(x).sigmoid(), "DEP007", "ends with a sigmoid"),
    (lambda x: Small()(x).argmax(1), "DEP007", "(8, 5)"),
    (shuffled, "DEP007", "1 at 0, 0 at 1, 4 at 3"),
    (batch_norm_trains, "DEP005", "in train mode: BatchNorm2d normalises by the batch"),
    (lambda x: Small()(x) - Small()(x).mean(0), "DEP004", "in a batch of 1"),
    (lambda x: TRAINING(x), "DEP005", "something else each time"),
]
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
TRAINING = Small().train()
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@pytest.mark.parametrize(("function", "code", "names"), FUNCTIONS)
def test_the_change_that_makes_both_equal_is_named(
    function: Callable[[torch.Tensor], Any], code: str, names: str
) -> None:
    found = compare(function)
    assert code in [item.code for item in found.findings]
    assert names in said(found)


def test_a_graph_in_train_mode_is_seen_in_its_nodes(tmp_path: Path) -> None:
    path = save_onnx(Small().train(), tmp_path / "m.onnx", training=torch.onnx.TrainingMode.TRAINING,
                     do_constant_folding=False)  # fmt: skip
    found = compare(path)
    assert found.findings[0].code == "DEP005"
    assert "2 nodes act as in training, the first is BatchNormalization /norm" in said(found)


def test_an_overflow_of_half_precision_is_named_with_the_value_that_is_too_large() -> None:
    found = compare(Small(gain=1e6).half(), Small(gain=1e6))
    assert [item.code for item in found.findings] == ["DEP006"]
    assert "float16 ends at 65,504 (overflow)" in said(found)


# The example of the export, whether its batch is free, the code, and what the sentence names
SHAPES = [
    (images(2, 32), True, "DEP003", "images of 32 x 32, the trained model is given 16 x 16"),
    (images(4), False, "DEP004", "fixed to 4 samples: (4, 3, 16, 16)"),
]


@pytest.mark.parametrize(("example", "free", "code", "names"), SHAPES)
def test_an_input_that_does_not_fit_is_a_finding_and_the_rest_is_compared(
    example: torch.Tensor, free: bool, code: str, names: str, tmp_path: Path
) -> None:
    found = compare(save_onnx(Small(), tmp_path / "m.onnx", example, free=free))
    assert [item.code for item in found.findings] == [code]
    assert names in said(found)
    assert found.relative is not None
    assert found.relative <= found.limit


class Last(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Small()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x.permute(0, 3, 1, 2))


def test_channels_last_and_another_number_of_inputs_are_findings(tmp_path: Path) -> None:
    found = compare(save_onnx(Last(), tmp_path / "m.onnx", images(2).permute(0, 2, 3, 1)))
    assert [item.code for item in found.findings] == ["DEP003"]
    assert "channels last (free, 16, 16, 3)" in said(found)
    assert found.relative is not None
    assert found.relative <= found.limit
    flat = nn.Sequential(nn.Flatten(), nn.Linear(768, 5))
    found = compare(save_onnx(flat[1], tmp_path / "f.onnx", torch.rand(2, 768)), flat)
    assert "takes 2 axes (free, 768), the trained model 4" in said(found)


def test_a_reshape_that_holds_the_batch_size_is_found() -> None:
    found = compare(lambda x: Small()(x.reshape(8, 3, 16, 16)))
    assert [item.code for item in found.findings] == ["DEP004"]
    assert "A batch of 8 runs, and one of 1 fails" in said(found)


def test_a_broken_file_is_a_finding_and_a_missing_one_an_error(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"no model")
    assert [item.code for item in compare(tmp_path / "m.onnx").findings] == ["DEP008"]
    with pytest.raises(InputError, match="There is no file"):
        compare(tmp_path / "n.onnx")


def test_a_function_that_raises_is_a_finding() -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no kernel")

    assert "DEP008" in [item.code for item in compare(broken).findings]
    assert "no kernel" in said(compare(broken))


def test_the_model_is_as_before_also_after_an_error() -> None:
    model = Small().train()
    before = copy.deepcopy(model.state_dict())
    parity(model, lambda x: Small()(x.flip(1)), images(), timed=False)
    assert model.training
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    with pytest.raises(InputError):
        parity(model, "nothing.onnx", images())
    assert model.training
    assert torch.is_grad_enabled()


def test_accuracy_is_counted_before_and_after() -> None:
    x, model = images(), Small()
    targets = model(x).argmax(1)
    batch = Batch(inputs=x, targets=targets, sample_ids=tuple("abcdefgh"), real=True)
    made = parity(model, lambda x: model(x).flip(0), batch, timed=False).decisions
    assert made is not None
    assert made.right_before == made.labelled == 8
    assert made.right_after == 8 - made.flips


def test_figures_are_those_worked_out_by_hand() -> None:
    assert relative(torch.tensor([2.0, -4.0]), torch.tensor([2.0, -3.0])) == 0.25
    assert relative(torch.tensor([1.0]), torch.tensor([float("nan")])) == float("inf")
    assert [round(side, 4) for side in wilson(0, 100)] == [0.0, 0.037]
    assert mcnemar(0, 10) == pytest.approx(2 / 1024)
    assert limit_for(torch.bfloat16, None) == 0.05
    assert limit_for(torch.float32, 1e-5) == pytest.approx(3.2e-4)


def test_a_version_is_made_here(tmp_path: Path) -> None:
    batch = Batch(inputs=images())
    for kind in ("onnx", "torchscript", "export", "bfloat16"):
        found = parity(Small(), convert(Small(), kind, batch, tmp_path), batch, timed=False)
        assert found.findings == (), kind
    with pytest.raises(InputError, match="Did you mean 'onnx'"):
        convert(Small(), "onx", batch, tmp_path)


MODULE = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()

def served(x):
    return make()(x.flip(1))
"""


def test_the_command_prints_figures_and_the_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "paritynets", raising=False)
    (tmp_path / "paritynets.py").write_text(MODULE)
    command = ["model", "parity", "paritynets:make", "--input-shape", "3,8,8", "-n", "6"]
    assert main([*command, "paritynets:served"]) == 1
    out = capsys.readouterr().out
    assert "DEP010 input" in out
    assert "decisions that flip" in out
    assert main([*command, "float16,bfloat16"]) == 0
    assert main([*command, "float16,bfloat61"]) == 2
    assert "Did you mean 'bfloat16'" in capsys.readouterr().err
