"""ONNX against PyTorch: the smallest model of each of torchvision's classification families, on photographs.

DATAAUDIT_DATA=/data python recipes/bench/parity.py [--n 64] [--only resnet18,...] [--docs docs/parity.md]

The weights are random (seed 0); batch norm's running statistics are settled on the images first, so that
values in between are of the size that they have in trained models. Classes can't be right by more than
chance, so no accuracy is given; decisions that flip are. Data: the 128 photographs of COCO128.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn

from dataaudit.errors import DataAuditError
from dataaudit.modelcheck.deployment.checking import Parity, parity
from dataaudit.modelcheck.deployment.converting import convert
from dataaudit.modelcheck.deployment.differences import wilson
from dataaudit.modelcheck.inputs import Batch, prepare
from dataaudit.modelcheck.loading import load_model

FAMILIES = {
    "AlexNet": "alexnet", "ConvNeXt": "convnext_tiny", "DenseNet": "densenet121",
    "EfficientNet": "efficientnet_b0", "EfficientNetV2": "efficientnet_v2_s", "GoogLeNet": "googlenet",
    "Inception V3": "inception_v3", "MaxViT": "maxvit_t", "MNASNet": "mnasnet0_5",
    "MobileNet V2": "mobilenet_v2", "MobileNet V3": "mobilenet_v3_small", "RegNet X": "regnet_x_400mf",
    "RegNet Y": "regnet_y_400mf", "ResNet": "resnet18", "ResNeXt": "resnext50_32x4d",
    "ShuffleNet V2": "shufflenet_v2_x0_5", "SqueezeNet": "squeezenet1_1", "SwinTransformer": "swin_t",
    "SwinTransformer V2": "swin_v2_t", "VGG": "vgg11", "VisionTransformer": "vit_b_32",
    "Wide ResNet": "wide_resnet50_2",
}  # fmt: skip


@dataclass
class Row:
    """What is printed of a family."""

    family: str
    name: str
    found: Parity | None
    error: str
    seconds: float


def photographs(n: int, side: int) -> Batch:
    from PIL import Image

    folder = Path(os.environ["DATAAUDIT_DATA"]) / "coco128" / "images"
    files = sorted(folder.rglob("*.jpg"))[:n]
    tensors = [prepare(Image.open(file).convert("RGB"), (3, side, side)) for file in files]
    return Batch(inputs=torch.stack(tensors), sample_ids=tuple(file.name for file in files), real=True)


def settle(model: nn.Module, images: torch.Tensor) -> None:
    """Give batch norm the statistics of the images."""
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.reset_running_stats()
        norm.train()
    if norms:
        with torch.no_grad():
            model(images[:8])
    model.eval()


def compare(family: str, name: str, n: int) -> Row:
    start = time.perf_counter()
    torch.manual_seed(0)
    model = load_model(f"torchvision:{name}").eval()
    batch = photographs(n, 299 if name == "inception_v3" else 224)
    settle(model, batch.inputs)
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = parity(model, convert(model, "onnx", batch, folder), batch)
            return Row(family, name, found, "", time.perf_counter() - start)
        except DataAuditError as error:
            return Row(family, name, None, error.what, time.perf_counter() - start)


COLUMNS = ("family", "model", "largest difference", "relative", "explained", "flips (95 %)", "ms PyTorch",
           "ms ONNX", "MB", "findings")  # fmt: skip


def cells(row: Row) -> tuple[str, ...]:
    found = row.found
    if found is None or found.relative is None or found.absolute is None:
        said = row.error if found is None else "; ".join(item.message for item in found.findings)
        return (row.family, row.name, *[""] * 7, said)
    flips = ""
    if found.decisions is not None:
        low, high = wilson(found.decisions.flips, found.decisions.n)
        flips = f"{found.decisions.flips} of {found.decisions.n} ({low:.0%} to {high:.0%})"
    before, after = (f"{value * 1000:.0f}" if value else "" for value in found.seconds)
    size = "" if found.sizes[1] is None else f"{found.sizes[1] / 1e6:.1f}"
    said = "; ".join(f"{item.code} {item.item_id}" for item in found.findings) or "none"
    if found.deployed.slots and found.deployed.slots[0].shape and found.deployed.slots[0].shape[0] == 1:
        said += " (exports with a batch of 1 only)"
    return (row.family, row.name, f"{found.absolute:.1e}", f"{found.relative:.1e}", f"{found.limit:.0e}",
            flips, before, after, size, said)  # fmt: skip


def document(rows: list[Row], n: int) -> str:
    """The page of the documentation."""
    versions = ", ".join(
        f"{name} {version(name)}" for name in ("torch", "torchvision", "onnx", "onnxruntime", "onnxscript")
    )
    lines = [
        "# Parity: ONNX Runtime against PyTorch", "",
        "Made by `recipes/bench/parity.py`; don't edit it by hand.", "",
        "What `dataaudit model parity torchvision:NAME onnx` finds for the smallest model of each of",
        f"torchvision's classification families, on {n} photographs of COCO128. The weights are random",
        "(seed 0), with batch norm's running statistics settled on 8 of the images. Each model is written by",
        "`torch.onnx.export` (the exporter that builds on `torch.export`) with a free batch axis.", "",
        f"Versions: {versions}. One thread of a CPU that other work shares: the times are rough.", "",
        "| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS),
        *("| " + " | ".join(cells(row)) + " |" for row in rows), "",
        "*relative*: the largest difference as a share of the largest output. *explained*: how much of it",
        "rounding explains, from the model's own rounding against double precision. *flips*: images that",
        "get another class, with a Wilson interval. *ms*: median of a call with one photograph, warm.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--only", default="")
    parser.add_argument("--docs", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    for family, name in FAMILIES.items():
        if given.only and name not in given.only.split(","):
            continue
        row = compare(family, name, given.n)
        rows.append(row)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print("  ".join(cells(row)), f" [{row.seconds:.0f} s, {memory:.1f} GiB]", flush=True)
        for item in row.found.findings if row.found else ():
            print("   ", item.code, item.message, flush=True)
        if given.docs:
            given.docs.write_text(document(rows, given.n), encoding="utf-8")
        gc.collect()
    healthy = sum(row.found is not None and not row.found.findings for row in rows)
    print(f"{len(rows)} families, {healthy} without a finding")


if __name__ == "__main__":
    main()
