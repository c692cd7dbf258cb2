"""Real images and their labels, in the forms in which models are given them."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
DEVIATION = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
ANIMALS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def pixels(path: Path, width: int, height: int) -> Tensor:
    """RGB, (3, height, width) uint8."""
    with Image.open(path) as image:
        small = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).contiguous()


def normalised(images: Tensor) -> Tensor:
    """By ImageNet's mean and deviation, from uint8."""
    return (images.float() / 255 - MEAN) / DEVIATION


def cifar_pixels(data: Path, n: int = 8, side: int = 32) -> tuple[Tensor, Tensor]:
    """(n, 3, side, side) uint8 and (n,) class indices, 0 to 9."""
    labels = [(3 * i) % 10 for i in range(n)]
    images = []
    for i, label in enumerate(labels):
        files = sorted((data / "cifar10h" / "images" / ANIMALS[label]).glob("*.jpg"))
        images.append(pixels(files[17 * i + 5], side, side))
    return torch.stack(images), torch.tensor(labels)


def cifar(data: Path, n: int = 8, side: int = 32) -> tuple[Tensor, Tensor]:
    """(n, 3, side, side) normalised and (n,) class indices, 0 to 9."""
    images, labels = cifar_pixels(data, n, side)
    return normalised(images), labels


def streets(data: Path, n: int = 4, width: int = 64, height: int = 48) -> tuple[Tensor, Tensor]:
    """(n, 3, height, width) normalised and (n, height, width) classes 0 to 10, 11 where void."""
    files = sorted((data / "camvid" / "images").glob("*.png"))
    images, masks = [], []
    for file in files[:: len(files) // n][:n]:
        images.append(pixels(file, width, height))
        with Image.open(data / "camvid" / "masks" / file.name) as mask:
            masks.append(np.array(mask.resize((width, height), Image.Resampling.NEAREST)))
    return normalised(torch.stack(images)), torch.from_numpy(np.stack(masks)).long()


def coco_rows(data: Path, n: int, most: int = 8) -> list[tuple[Path, Tensor]]:
    """Images with two to `most` objects, and their rows: class, x, y, width, height, relative and centred."""
    found = []
    for file in sorted((data / "coco128" / "object_detection" / "labels" / "train2017").glob("*.txt")):
        rows = [[float(value) for value in line.split()] for line in file.read_text().splitlines()]
        image = data / "coco128" / "images" / "train2017" / f"{file.stem}.jpg"
        if 2 <= len(rows) <= most and image.exists() and min(min(row[3:]) for row in rows) > 0.08:
            found.append((image, torch.tensor(rows)))
        if len(found) == n:
            break
    return found


def coco(data: Path, n: int = 2, side: int = 160) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Images of 0 to 1 and, for each, boxes (xyxy, pixels) and labels of 1 to 80."""
    images, targets = [], []
    for path, rows in coco_rows(data, n):
        centre, size = rows[:, 1:3] * side, rows[:, 3:5] * side
        boxes = torch.cat([centre - size / 2, centre + size / 2], dim=1).clamp(0, side)
        images.append(pixels(path, side, side).float() / 255)
        targets.append({"boxes": boxes, "labels": rows[:, 0].long() + 1})
    return images, targets


def coco_classes(data: Path, n: int = 8, side: int = 64) -> tuple[Tensor, Tensor]:
    """(n, 3, side, side) normalised and (n, 80) of 0 and 1: which classes are in the image."""
    rows = coco_rows(data, n)
    images = torch.stack([pixels(path, side, side) for path, _ in rows])
    present = torch.zeros(n, 80)
    for i, (_, each) in enumerate(rows):
        present[i, each[:, 0].long()] = 1
    return normalised(images), present


def raccoons(data: Path, n: int = 8, side: int = 64) -> tuple[Tensor, Tensor]:
    """(n, 3, side, side) normalised and (n, 4) boxes, xyxy in pixels of the resized image."""
    images, boxes = [], []
    for number in range(1, n + 1):
        root = ElementTree.parse(data / "raccoon" / "annotations" / f"raccoon-{number}.xml").getroot()
        width, height = (float(root.findtext(f"size/{key}") or 0) for key in ("width", "height"))
        corners = [
            float(root.findtext(f"object/bndbox/{key}") or 0) for key in ("xmin", "ymin", "xmax", "ymax")
        ]
        scale = (side / width, side / height) * 2
        boxes.append([corner * by for corner, by in zip(corners, scale, strict=True)])
        file = next((data / "raccoon" / "images").glob(f"raccoon-{number}.*"))
        images.append(pixels(file, side, side))
    return normalised(torch.stack(images)), torch.tensor(boxes)
