"""Losses that are given what they expect, in the forms that look odd."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from . import healthy
from ._images import cifar, coco_classes, raccoons, streets
from ._models import SmallNet, UNet, suite, timm_model, vision, vit

F = nn.functional


def adam(model: nn.Module, lr: float = 1e-3) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=lr)


@healthy("focal loss of logits", part="loss")
def _(data: Path):
    def focal(output: Tensor, target: Tensor) -> Tensor:
        each = F.cross_entropy(output, target, reduction="none")
        return ((1 - torch.exp(-each)) ** 2 * each).mean()

    return suite(vision("resnet18"), focal, *cifar(data), optimizer=adam)


@healthy("cross entropy with class weights, of which some classes are absent", part="loss")
def _(data: Path):
    images, labels = cifar(data)
    weights = torch.tensor([1.0, 0.5, 2.0, 1.0, 1.0, 4.0, 1.0, 0.2, 1.0, 1.0])
    return suite(vit(), nn.CrossEntropyLoss(weight=weights), images, labels,
                 optimizer=lambda model: adam(model, 5e-4))  # fmt: skip


@healthy("U-Net that ignores void, a quarter of the pixels", part="loss")
def _(data: Path):
    images, masks = streets(data)
    masks[:, :12] = 255
    masks[masks == 11] = 255
    return suite(UNet(11), nn.CrossEntropyLoss(ignore_index=255), images, masks, optimizer=adam)


@healthy("several classes an image, most of them absent", part="loss")
def _(data: Path):
    criterion = nn.BCEWithLogitsLoss(pos_weight=torch.full((80,), 5.0))
    return suite(vision("mobilenet_v3_small", 80), criterion, *coco_classes(data), optimizer=adam)


@healthy("L1 regression of relative boxes", part="loss")
def _(data: Path):
    images, boxes = raccoons(data)
    return suite(vision("resnet18", 4), nn.L1Loss(), images, boxes / 64, optimizer=adam)


@healthy("regression to (n, 1) targets through a sigmoid", part="loss")
def _(data: Path):
    images, boxes = raccoons(data)
    model = nn.Sequential(vision("shufflenet_v2_x0_5", 1), nn.Sigmoid())
    return suite(model, nn.MSELoss(), images, boxes[:, 2:3] / 80, optimizer=adam(model))


@healthy("NLLLoss of log_softmax", part="loss")
def _(data: Path):
    model = nn.Sequential(timm_model("convnext_atto"), nn.LogSoftmax(dim=1))
    return suite(model, nn.NLLLoss(), *cifar(data, side=64), optimizer=adam(model))


@healthy("BCELoss of a sigmoid, one class", part="loss")
def _(data: Path):
    images, labels = cifar(data)
    model = nn.Sequential(SmallNet(1), nn.Sigmoid(), nn.Flatten(0))
    return suite(model, nn.BCELoss(), images, (labels % 2).float(), optimizer=adam(model, 3e-3))


@healthy("distillation by KLDivLoss with a temperature, and the labels", part="loss")
def _(data: Path):
    images, labels = cifar(data)
    with torch.no_grad():
        soft = F.softmax(vision("shufflenet_v2_x0_5").eval()(images) / 4 + F.one_hot(labels, 10), dim=1)

    def step(model, batch):
        x, (hard, teacher) = batch
        output = model(x)
        distilled = F.kl_div(F.log_softmax(output / 4, dim=1), teacher, reduction="batchmean") * 16
        return 0.5 * distilled + 0.5 * F.cross_entropy(output, hard)

    model = vision("resnet18")
    return suite(model, None, images, (labels, soft), step=step, optimizer=adam(model))


@healthy("dice and BCE on a binary mask", part="loss")
def _(data: Path):
    def both(output: Tensor, target: Tensor) -> Tensor:
        p = torch.sigmoid(output)
        dice = (2 * (p * target).sum() + 1) / (p.sum() + target.sum() + 1)
        return 1 - dice + F.binary_cross_entropy_with_logits(output, target)

    images, masks = streets(data)
    return suite(UNet(1), both, images, (masks == 3).float()[:, None], optimizer=adam)


@healthy("contrastive loss of all pairs with an epsilon", part="loss")
def _(data: Path):
    def contrastive(embedded: Tensor, labels: Tensor) -> Tensor:
        distances = (((embedded[:, None] - embedded[None]) ** 2).sum(-1) + 1e-6).sqrt()
        same = (labels[:, None] == labels[None]).float()
        return (same * distances**2 + (1 - same) * F.relu(1 - distances) ** 2).mean()

    images, labels = cifar(data)
    return suite(vision("shufflenet_v2_x0_5", 32), contrastive, images, labels % 3, optimizer=adam)


@healthy("triplets of normalised embeddings", part="loss")
def _(data: Path):
    class Embedding(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = SmallNet(32)

        def forward(self, x: Tensor) -> Tensor:
            return F.normalize(self.net(x), dim=1)

    def step(model, batch):
        images, labels = batch
        embedded = model(images)
        order = torch.argsort(labels % 2)
        first, second = embedded[order].chunk(2)
        return F.triplet_margin_loss(first, first.roll(1, 0), second, margin=0.5)

    model = Embedding()
    return suite(model, None, *cifar(data), step=step, optimizer=adam(model))


@healthy("mixup of images and labels with one order", part="loss")
def _(data: Path):
    def train_step(model, optimizer, batch):
        images, labels = batch
        weight, order = 0.9, torch.randperm(len(images))
        optimizer.zero_grad()
        output = model(weight * images + (1 - weight) * images[order])
        loss = weight * F.cross_entropy(output, labels)
        loss = loss + (1 - weight) * F.cross_entropy(output, labels[order])
        loss.backward()
        optimizer.step()
        return loss.item()

    model = vision("resnet18")
    return suite(model, None, *cifar(data), train_step=train_step, optimizer=adam(model))


@healthy("soft labels as rows, from people's votes", part="loss")
def _(data: Path):
    images, labels = cifar(data)
    soft = 0.9 * F.one_hot(labels, 10).float() + 0.1 * F.one_hot((labels + 1) % 10, 10).float()
    return suite(SmallNet(), nn.CrossEntropyLoss(), images, soft,
                 optimizer=lambda model: adam(model, 3e-3))  # fmt: skip


@healthy("pixels and classes moved and flattened in the right order", part="loss")
def _(data: Path):
    def criterion(output: Tensor, masks: Tensor) -> Tensor:
        flat = output.permute(0, 2, 3, 1).reshape(-1, 12)
        return F.cross_entropy(flat, masks.flatten(), ignore_index=11)

    return suite(UNet(12), criterion, *streets(data), optimizer=adam)


@healthy("two views pulled together with the target detached", part="loss")
def _(data: Path):
    class SimSiam(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.predictor = SmallNet(32), nn.Sequential(nn.Linear(32, 32), nn.ReLU())
            self.last = nn.Linear(32, 32)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            code = self.encoder(x)
            return code, self.last(self.predictor(code))

    def step(model, batch):
        x, _ = batch
        (z1, p1), (z2, p2) = model(x), model(x.flip(-1))
        first = F.cosine_similarity(p1, z2.detach(), dim=1).mean()
        return 1 - 0.5 * (first + F.cosine_similarity(p2, z1.detach(), dim=1).mean())

    model = SimSiam()
    return suite(model, None, *cifar(data), step=step, optimizer=adam(model))
