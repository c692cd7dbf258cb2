"""Embeddings in the sweep against FiftyOne's compute_embeddings and against bare loops of the runtimes, in
one run.

The same network (EfficientNet-Lite0, the features of its last four stages), the same images, 224 pixels, on
the CPU. The sweep and FiftyOne read and decode the files; the bare loops are given decoded images. Needs
dataaudit[bench].
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import fiftyone as fo
import numpy as np
import pandas as pd
import torch
from _data import arguments
from fiftyone.utils.torch import TorchImageModel, TorchImageModelConfig
from PIL import Image

from dataaudit.signals.backbones import backbone_named, embedder
from dataaudit.sweep import sweep

BATCH = 32
BARE = ("eager", "channels-last", "torch.compile", "ONNX Runtime", "OpenVINO")


class FromFloats(torch.nn.Module):
    """The same network for callers that normalise the pixels themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.network = backbone_named().build()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network((images * 128 + 127).permute(0, 2, 3, 1))


def rate_of_sweep(paths: list[str]) -> float:
    ready = embedder(backbone_named(), device="cpu")
    ready.embed(np.zeros((1, 224, 224, 3), dtype=np.uint8))
    started = time.perf_counter()
    sweep(pd.Series(paths, index=paths), embedder=ready)
    return len(paths) / (time.perf_counter() - started)


def rate_of_fiftyone(paths: list[str]) -> float:
    dataset = fo.Dataset()
    dataset.add_samples([fo.Sample(filepath=path) for path in paths], progress=False)
    mean, deviation = [127 / 255] * 3, [128 / 255] * 3
    model = TorchImageModel(
        TorchImageModelConfig(
            {"model": FromFloats(), "image_size": [224, 224], "image_mean": mean, "image_std": deviation,
             "as_feature_extractor": True, "device": "cpu"}
        )
    )  # fmt: skip
    started = time.perf_counter()
    embeddings = dataset.compute_embeddings(model, batch_size=BATCH, num_workers=2, progress=False)
    seconds = time.perf_counter() - started
    assert embeddings.shape == (len(paths), 1408), embeddings.shape
    dataset.delete()
    return len(paths) / seconds


def rates_of_bare_loops(images: np.ndarray, which: tuple[str, ...] = BARE) -> dict[str, float]:
    """Images a second of each runtime over decoded uint8 images (n, 224, 224, 3)."""
    rates = {}
    for name in which:
        run = runner(name)
        run(images[:BATCH])
        run(images[:BATCH])
        started = time.perf_counter()
        for start in range(0, len(images) - BATCH + 1, BATCH):
            run(images[start : start + BATCH])
        rates[name] = (len(images) // BATCH * BATCH) / (time.perf_counter() - started)
    return rates


def runner(name: str):
    network = backbone_named().build()
    if name == "ONNX Runtime":
        import onnxruntime

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network, (torch.zeros(2, 224, 224, 3, dtype=torch.uint8),), dynamo=True, verbose=False,
                dynamic_shapes={"images": {0: "batch"}},
            )  # fmt: skip
        session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
        return lambda batch: session.run(None, {session.get_inputs()[0].name: batch})
    if name == "OpenVINO":
        # One request after the other on all cores, as a bare loop does; the sweep runs a stream a core.
        ready = embedder(backbone_named(), device="cpu")
        return ready.embed
    if name != "eager":
        network = network.to(memory_format=torch.channels_last)
    if name == "torch.compile":
        network = torch.compile(network)

    def run(batch: np.ndarray) -> torch.Tensor:
        with torch.inference_mode():
            return network(torch.from_numpy(batch))

    return run


def decoded(paths: list[str]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path).convert("RGB").resize((224, 224))) for path in paths])


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=2000)
    given = parser.parse_args()
    found = sorted(str(path) for path in Path(given.data, "images").glob("*/*.jpg"))
    chosen = found[:: max(1, len(found) // given.images)][: given.images]
    ours = rate_of_sweep(chosen)
    theirs = rate_of_fiftyone(chosen)
    print(f"{len(chosen)} images, {torch.get_num_threads()} threads, images/s")
    print(f"{'sweep (read, decode, embed, hash)':34} {ours:7.1f}")
    print(f"{'FiftyOne compute_embeddings':34} {theirs:7.1f}   ratio {ours / theirs:.2f}, target 4")
    for name, rate in rates_of_bare_loops(decoded(chosen[:640])).items():
        print(f"{'bare loop, ' + name:34} {rate:7.1f}")
