"""ONNX against PyTorch: the smallest model of each of torchvision's classification families, on photographs.

DATAAUDIT_DATA=/data python recipes/bench/parity.py [--n 64] [--only resnet18,...] [--docs docs/parity.md]

The weights are random (seed 0); batch norm's running statistics are settled on the images first, so that
values in between are of the size that they have in trained models. Classes can't be right by more than
chance, so no accuracy is given; decisions that flip are. Data: the 128 photographs of COCO128.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import get_context
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


def document(rows: list[tuple[str, ...]], n: int) -> str:
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
        *("| " + " | ".join(row) + " |" for row in rows), "",
        "*relative*: the largest difference as a share of the largest output. *explained*: how much of it",
        "rounding explains, from the model's own rounding against double precision. *flips*: images that",
        "get another class, with a Wilson interval. *ms*: median of a call with one photograph, warm.", "",
        "torchvision starts the head of its VisionTransformer with zeros, so its output is 0 on both sides:",
        "that row says that it exports and runs, and nothing about its values.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def measured(family: str, name: str, n: int) -> tuple[tuple[str, ...], list[str], str]:
    """The cells of a family, its findings, and what it took; in a process of its own."""
    torch.set_num_threads(1)
    row = compare(family, name, n)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    found = [f"{item.code} {item.message}" for item in (row.found.findings if row.found else ())]
    return cells(row), found, f"{row.seconds:.0f} s, {memory:.1f} GiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--only", default="", help="names of models, with commas")
    parser.add_argument("--rows", type=Path, help="JSON file of what was measured before; added to")
    parser.add_argument("--docs", type=Path)
    given = parser.parse_args()
    rows: dict[str, tuple[str, ...]] = {}
    if given.rows and given.rows.is_file():
        rows = {name: tuple(row) for name, row in json.loads(given.rows.read_text()).items()}
    wanted = [pair for pair in FAMILIES.items() if pair[1] not in rows]
    if given.only:
        wanted = [pair for pair in wanted if pair[1] in given.only.split(",")]
    for family, name in wanted:
        # Runtimes keep their arenas: a process for each
        with get_context("spawn").Pool(1) as pool:
            row, found, took = pool.apply(measured, (family, name, given.n))
        rows[name] = row
        print("  ".join(row), f" [{took}]", *found, sep="\n    ", flush=True)
        if given.rows:
            given.rows.write_text(json.dumps(rows))
    shown = [rows[name] for name in FAMILIES.values() if name in rows]
    if given.docs:
        given.docs.write_text(document(shown, given.n), encoding="utf-8")
    healthy = sum(row[-1].startswith("none") for row in shown)
    print(f"{len(shown)} families, {healthy} without a finding")


if __name__ == "__main__":
    main()
