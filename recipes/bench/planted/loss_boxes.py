"""Boxes in another form than the loss reads, in detectors and in regressions; and detectors without a bug."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from . import healthy, planted
from ._images import coco, raccoons
from ._models import suite, vision

F = nn.functional


def faster_rcnn(classes: int = 81) -> nn.Module:
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

    return fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=classes, min_size=160, max_size=160,
        box_detections_per_img=20, rpn_pre_nms_top_n_train=200, rpn_post_nms_top_n_train=50,
    )  # fmt: skip


def ssd_lite(classes: int = 81) -> nn.Module:
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    return ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=classes)


def adam(model: nn.Module, lr: float = 1e-3) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=lr)


def corners_to_size(boxes: Tensor) -> Tensor:
    return torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)


@planted("Faster R-CNN given (x, y, width, height)", kind="box format", part="loss", causes=["MOD028"])
def _(data: Path):
    images, targets = coco(data)
    for target in targets:
        target["boxes"] = corners_to_size(target["boxes"])
    return suite(faster_rcnn(), None, images, targets, optimizer=adam)


@planted("SSDlite given (centre, size)", kind="box format", part="loss", causes=["MOD028"])
def _(data: Path):
    from torchvision.ops import box_convert

    images, targets = coco(data)
    for target in targets:
        target["boxes"] = box_convert(target["boxes"], "xyxy", "cxcywh")
    return suite(ssd_lite(), None, images, targets, optimizer=adam)


@planted("Faster R-CNN given boxes of 0 to 1", kind="box units", part="loss", causes=["MOD029"])
def _(data: Path):
    images, targets = coco(data)
    for target in targets:
        target["boxes"] = target["boxes"] / 160
    return suite(faster_rcnn(), None, images, targets, optimizer=adam)


@planted("SSDlite given boxes of the images before they were resized", kind="box units", part="loss",
         causes=["MOD028", "MOD029"])  # fmt: skip
def _(data: Path):
    images, targets = coco(data)
    for target in targets:
        target["boxes"] = target["boxes"] * 4
    return suite(ssd_lite(), None, images, targets, optimizer=adam)


@planted("detector's labels count from 0, which is its background", kind="labels from 0", part="loss",
         causes=["MOD024"])  # fmt: skip
def _(data: Path):
    images, targets = coco(data)
    known = sorted({int(label) for target in targets for label in target["labels"]})
    for target in targets:
        target["labels"] = torch.tensor([known.index(int(label)) for label in target["labels"]])
    return suite(faster_rcnn(len(known)), None, images, targets, optimizer=adam)


@planted("detector made for the classes without the background", kind="labels from 1", part="loss",
         causes=["MOD024"])  # fmt: skip
def _(data: Path):
    images, targets = coco(data)
    known = sorted({int(label) for target in targets for label in target["labels"]})
    for target in targets:
        target["labels"] = torch.tensor([1 + known.index(int(label)) for label in target["labels"]])
    return suite(faster_rcnn(len(known)), None, images, targets, optimizer=adam)


@planted("GIoU loss of (centre, size)", kind="box format", part="loss", causes=["MOD028"])
def _(data: Path):
    from torchvision.ops import box_convert, generalized_box_iou_loss

    class Regression(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = vision("mobilenet_v3_small", 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x).sigmoid()

    def step(model, batch):
        x, boxes = batch
        return generalized_box_iou_loss(model(x), boxes, reduction="mean")

    images, boxes = raccoons(data)
    model = Regression()
    targets = box_convert(boxes / 64, "xyxy", "cxcywh")
    return suite(model, None, images, targets, step=step, optimizer=adam(model))


@planted("smooth L1 of outputs of 0 to 1 against pixels", kind="box units", part="loss", causes=["MOD029"])
def _(data: Path):
    images, boxes = raccoons(data)
    model = nn.Sequential(vision("resnet18", 4), nn.Sigmoid())
    return suite(model, nn.SmoothL1Loss(), images, boxes, optimizer=adam)


@healthy("Faster R-CNN on two images", part="loss")
def _(data: Path):
    return suite(faster_rcnn(), None, *coco(data), optimizer=lambda model: adam(model, 3e-4))


@healthy("SSDlite on two images", part="loss")
def _(data: Path):
    return suite(ssd_lite(), None, *coco(data), optimizer=adam)


@healthy("GIoU and L1 of boxes that are converted", part="loss")
def _(data: Path):
    from torchvision.ops import box_convert, generalized_box_iou_loss

    def step(model, batch):
        x, boxes = batch
        predicted = model(x).sigmoid()
        overlap = generalized_box_iou_loss(box_convert(predicted, "cxcywh", "xyxy"), boxes, reduction="mean")
        return 5 * F.l1_loss(predicted, box_convert(boxes, "xyxy", "cxcywh")) + 2 * overlap

    images, boxes = raccoons(data)
    model = vision("resnet18", 4)
    return suite(model, None, images, boxes / 64, step=step, optimizer=adam(model))
