"""Trainings without a bug, among them those that look odd: no check should say a word."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.optim import lr_scheduler

from . import healthy
from ._images import cifar, cifar_pixels, coco_classes, normalised, raccoons, streets
from ._models import AutoEncoder, PlainNet, SmallNet, UNet, lite0, mlp, suite, timm_model, vision, vit

F = nn.functional


def sgd(model: nn.Module, lr: float = 0.05) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)


def adam(model: nn.Module, lr: float = 1e-3) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=lr)


# ------------------------------------------------------------------ models


@healthy("resnet18 by SGD with momentum and weight decay", part="training")
def _(data: Path):
    model = vision("resnet18")
    return suite(model, nn.CrossEntropyLoss(), *cifar(data), optimizer=sgd(model))


@healthy("resnet18 whose residual branches start at 0", part="training")
def _(data: Path):
    model = vision("resnet18", zero_init_residual=True)
    nn.init.zeros_(model.fc.weight)
    return suite(model, nn.CrossEntropyLoss(), *cifar(data), optimizer=adam(model))


@healthy("mobilenet_v3_small by AdamW", part="training")
def _(data: Path):
    return suite(vision("mobilenet_v3_small"), nn.CrossEntropyLoss(), *cifar(data, side=64), optimizer=adam)


@healthy("efficientnet_b0 with label smoothing", part="training")
def _(data: Path):
    model = vision("efficientnet_b0")
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    return suite(model, criterion, *cifar(data, side=64), optimizer=adam(model))


@healthy("shufflenet by RMSprop", part="training")
def _(data: Path):
    model = vision("shufflenet_v2_x0_5")
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3, momentum=0.9)
    return suite(model, nn.CrossEntropyLoss(), *cifar(data, side=64), optimizer=optimizer)


@healthy("squeezenet, which has a ReLU before its pooled logits, by Adam at 3e-4", part="training")
def _(data: Path):
    model = vision("squeezenet1_1")
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)
    return suite(model, nn.CrossEntropyLoss(), *cifar(data, side=64), optimizer=optimizer)


@healthy("ViT at the rate of its warm-up", part="training")
def _(data: Path):
    model = vit()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05)
    return suite(model, nn.CrossEntropyLoss(), *cifar(data), optimizer=optimizer)


@healthy("ViT with a frozen patch embedding and stochastic depth", part="training")
def _(data: Path):
    model = vit(drop_path_rate=0.1)
    for parameter in model.patch_embed.parameters():
        parameter.requires_grad = False
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=5e-4, weight_decay=0.1)
    return suite(model, nn.CrossEntropyLoss(), *cifar(data), optimizer=optimizer)


@healthy("convnext_atto with stochastic depth, decay in two groups", part="training")
def _(data: Path):
    model = timm_model("convnext_atto", drop_path_rate=0.1)
    decayed = [value for value in model.parameters() if value.ndim > 1]
    plain = [value for value in model.parameters() if value.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    return suite(model, nn.CrossEntropyLoss(), *cifar(data, side=64), optimizer=optimizer)


@healthy("twelve convolutions without batch norm", part="training")
def _(data: Path):
    layers: list[nn.Module] = []
    for i in range(12):
        conv = nn.Conv2d(3 if i == 0 else 24, 24, 3, stride=2 if i in (3, 7) else 1, padding=1)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        layers += [conv, nn.ReLU(inplace=True)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10))
    return suite(model, nn.CrossEntropyLoss(), *cifar(data), optimizer=adam(model, 2e-3))


@healthy("MLP of six GELU layers", part="training")
def _(data: Path):
    return suite(mlp(depth=6, act=nn.GELU), nn.CrossEntropyLoss(), *cifar(data), optimizer=adam)


@healthy("tanh network with Xavier's weights", part="training")
def _(data: Path):
    model = PlainNet(act=nn.Tanh)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(module.weight)
    return suite(model, nn.CrossEntropyLoss(), *cifar(data), optimizer=sgd(model, 0.01))


@healthy("residual net with SiLU and group norm", part="training")
def _(data: Path):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.conv = nn.GroupNorm(8, 32), nn.Conv2d(32, 32, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.conv(F.silu(self.norm(x)))

    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, stride=2, padding=1), *[Block() for _ in range(6)],
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    return suite(model, nn.CrossEntropyLoss(), *cifar(data), optimizer=sgd(model))


@healthy("weight norm on each convolution", part="training")
def _(data: Path):
    model = PlainNet()
    model.conv1, model.conv2 = weight_norm(model.conv1), weight_norm(model.conv2)
    return suite(model, nn.CrossEntropyLoss(), *cifar(data), optimizer=adam(model))


@healthy("spectral norm in a critic with hinge loss", part="training")
def _(data: Path):
    model = nn.Sequential(
        spectral_norm(nn.Conv2d(3, 32, 4, stride=2, padding=1)), nn.LeakyReLU(0.2),
        spectral_norm(nn.Conv2d(32, 64, 4, stride=2, padding=1)), nn.LeakyReLU(0.2),
        nn.Flatten(), spectral_norm(nn.Linear(64 * 64, 1)),
    )  # fmt: skip

    def hinge(output: Tensor, real: Tensor) -> Tensor:
        return F.relu(1 - output * real).mean()

    images, labels = cifar(data)
    real = (labels % 2).float()[:, None] * 2 - 1
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.5, 0.9))
    return suite(model, hinge, images, real, optimizer=optimizer)


@healthy("autoencoder whose decoder shares the encoder's weights", part="training")
def _(data: Path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 48, 4, stride=2, padding=1)
            self.bias = nn.Parameter(torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            code = F.relu(self.conv(x))
            return F.conv_transpose2d(code, self.conv.weight, self.bias, stride=2, padding=1)

    images, _ = cifar(data)
    return suite(Tied(), nn.MSELoss(), images, images.clone(), optimizer=lambda model: adam(model, 3e-3))


@healthy("autoencoder with a sigmoid and images of 0 to 1", part="training")
def _(data: Path):
    raw, _ = cifar_pixels(data)
    images = raw.float() / 255
    model = AutoEncoder(nn.Sigmoid())
    return suite(model, nn.MSELoss(), images, images.clone(), optimizer=adam(model, 3e-3))


@healthy("GoogLeNet with its auxiliary heads", part="training")
def _(data: Path):
    model = vision("googlenet", aux_logits=True, init_weights=False)

    def step(model, batch):
        images, labels = batch
        outputs = model(images)
        loss = F.cross_entropy(outputs.logits, labels)
        return loss + 0.3 * sum(F.cross_entropy(aux, labels) for aux in outputs[1:])

    return suite(model, None, *cifar(data, side=64), step=step, optimizer=adam(model))


@healthy("LR-ASPP on streets", part="training")
def _(data: Path):
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    model = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=12)

    def step(model, batch):
        images, masks = batch
        return F.cross_entropy(model(images)["out"], masks, ignore_index=11)

    return suite(model, None, *streets(data), step=step, optimizer=adam(model))


# ------------------------------------------------------------------ fine-tuning


@healthy("frozen pretrained Lite0 in eval mode under a new head", part="training")
def _(data: Path):
    class Probe(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = lite0(0), nn.Linear(1280, 10)
            self.backbone.requires_grad_(False)

        def train(self, mode: bool = True):
            super().train(mode)
            self.backbone.eval()
            return self

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                features = self.backbone(x)
            return self.head(features)

    raw, labels = cifar_pixels(data, side=64)
    model = Probe()
    optimizer = torch.optim.AdamW(model.head.parameters(), lr=1e-3)
    return suite(model, nn.CrossEntropyLoss(), (raw.float() - 127) / 128, labels, optimizer=optimizer)


@healthy("pretrained Lite0 tuned as a whole, head faster", part="training")
def _(data: Path):
    raw, labels = cifar_pixels(data, side=64)
    model = lite0()
    head = list(model.get_classifier().parameters())
    body = [value for value in model.parameters() if all(value is not one for one in head)]
    optimizer = torch.optim.AdamW([{"params": body, "lr": 1e-4}, {"params": head, "lr": 1e-3}])
    return suite(model, nn.CrossEntropyLoss(), (raw.float() - 127) / 128, labels, optimizer=optimizer)


@healthy("head replaced before the optimizer was made", part="training")
def _(data: Path):
    model = vision("resnet18", 1000)
    model.fc = nn.Sequential(nn.Dropout(0.5), nn.Linear(512, 10))
    return suite(model, nn.CrossEntropyLoss(), *cifar(data), optimizer=sgd(model, 0.01))


# ------------------------------------------------------------------ batches and inputs


@healthy("resnet18 with two images a batch", part="training")
def _(data: Path):
    model = vision("resnet18")
    return suite(model, nn.CrossEntropyLoss(), *cifar(data, n=2, side=64), optimizer=sgd(model, 0.005))


@healthy("sixteen images of 0 to 1, not normalised, with dropout of 0.5", part="training")
def _(data: Path):
    raw, labels = cifar_pixels(data, n=16)
    model = SmallNet(dropout=0.5)
    return suite(model, nn.CrossEntropyLoss(), raw.float() / 255, labels, optimizer=adam(model, 3e-3))


@healthy("uint8 images scaled inside the model", part="training")
def _(data: Path):
    class Inside(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = vision("shufflenet_v2_x0_5")

        def forward(self, x: Tensor) -> Tensor:
            return self.net(normalised(x))

    return suite(Inside(), nn.CrossEntropyLoss(), *cifar_pixels(data, side=64), optimizer=adam)


@healthy("images of 0 to 255 into a net that starts with batch norm", part="training")
def _(data: Path):
    raw, labels = cifar_pixels(data)
    model = nn.Sequential(nn.BatchNorm2d(3), PlainNet())
    return suite(model, nn.CrossEntropyLoss(), raw.float(), labels, optimizer=adam(model))


# ------------------------------------------------------------------ steps


@healthy("gradients clipped to 1 and an averaged copy beside", part="training")
def _(data: Path):
    model = vision("resnet18")
    averaged = copy.deepcopy(model).eval().requires_grad_(False)

    def train_step(model, optimizer, batch):
        images, labels = batch
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(averaged.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, 0.01)
        return loss.item()

    return suite(model, None, *cifar(data), train_step=train_step, optimizer=sgd(model))


@healthy("four accumulated gradients, each divided by four", part="training")
def _(data: Path):
    model = PlainNet()

    def train_step(model, optimizer, batch):
        images, labels = batch
        for x, y in zip(images.chunk(4), labels.chunk(4), strict=True):
            loss = F.cross_entropy(model(x), y) / 4
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return suite(model, None, *cifar(data), train_step=train_step, optimizer=adam(model))


@healthy("autocast to bfloat16", part="training")
def _(data: Path):
    criterion = nn.CrossEntropyLoss()

    def step(model, batch):
        images, labels = batch
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return criterion(model(images), labels)

    model = SmallNet()
    return suite(model, None, *cifar(data), step=step, optimizer=adam(model))


@healthy("GradScaler with unscale_ before clipping", part="training")
def _(data: Path):
    model = PlainNet()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def train_step(model, optimizer, batch):
        images, labels = batch
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(model(images), labels)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        return loss

    return suite(model, None, *cifar(data), train_step=train_step, optimizer=sgd(model), scaler=scaler)


@healthy("one-cycle schedule stepped at each batch", part="training")
def _(data: Path):
    model = SmallNet()

    def make_optimizer(model):
        optimizer = sgd(model, 0.1)
        optimizer.scheduler = lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=5000)
        return optimizer

    def train_step(model, optimizer, batch):
        images, labels = batch
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.scheduler.step()
        return loss

    return suite(model, None, *cifar(data), train_step=train_step, optimizer=make_optimizer)


@healthy("range test of a usual rate", part="training")
def _(data: Path):
    from dataaudit import modelcheck

    model = vision("resnet18")
    return modelcheck.rate_range(model, nn.CrossEntropyLoss(), *cifar(data), optimizer=sgd(model)).findings


@healthy("gradients of a ViT, a U-Net and a regression", part="training")
def _(data: Path):
    from dataaudit import modelcheck

    images, boxes = raccoons(data)
    first = modelcheck.gradients(vit(), nn.CrossEntropyLoss(), *cifar(data), optimizer=adam)
    second = modelcheck.gradients(UNet(), nn.CrossEntropyLoss(), *streets(data), optimizer=adam)
    third = modelcheck.gradients(vision("resnet18", 4), nn.L1Loss(), images, boxes / 64, optimizer=adam)
    fourth = modelcheck.gradients(lite0(80), nn.BCEWithLogitsLoss(), *coco_classes(data), optimizer=adam)
    return [*first.findings, *second.findings, *third.findings, *fourth.findings]
