"""Models whose forward pass isn't what it seems: bugs, and sound ones that look alike."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from torch import Tensor, nn

from . import healthy, planted
from ._images import cifar, cifar_pixels, normalised, raccoons, streets
from ._models import PlainNet, SmallNet, UNet, lite0, suite, timm_model, vision, vit

F = nn.functional


def determinism(model: nn.Module, images: Tensor):
    from dataaudit import modelcheck

    return modelcheck.determinism(model, images, real=True)


def trace(model: nn.Module, images: Tensor):
    from dataaudit import modelcheck

    return modelcheck.trace(model, images).findings


# ------------------------------------------------------------------ random in eval mode


@planted("F.dropout without its training flag", kind="random in eval mode", part="model",
         causes=["MOD001"], mentions=["dropout"])  # fmt: skip
def _(data: Path):
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.fc = vision("resnet18", 64), nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(F.dropout(F.relu(self.body(x)), 0.3))

    return determinism(Head(), cifar(data)[0])


@planted("augmentation inside forward", kind="random in eval mode", part="model", causes=["MOD001"],
         mentions=["augment"])  # fmt: skip
def _(data: Path):
    from torchvision.transforms import v2

    class Augment(nn.Module):
        def __init__(self):
            super().__init__()
            self.flip = v2.RandomHorizontalFlip()

        def forward(self, x: Tensor) -> Tensor:
            return self.flip(x) if random.random() < 0.9 else x.flip(-2)

    model = nn.Sequential()
    model.add_module("augment", Augment())
    model.add_module("net", lite0())
    return determinism(model, cifar(data, side=64)[0])


@planted("own stochastic depth that also drops in eval mode", kind="random in eval mode", part="model",
         causes=["MOD001"], mentions=["drop_path"])  # fmt: skip
def _(data: Path):
    class DropPath(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            keep = torch.bernoulli(torch.full((len(x), 1, 1, 1), 0.8))
            return x * keep / 0.8

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(16, 16, 3, padding=1), nn.GroupNorm(4, 16)
            self.drop_path = DropPath()

        def forward(self, x: Tensor) -> Tensor:
            return x + self.drop_path(F.silu(self.norm(self.conv(x))))

    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), Block(), Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 10),
    )  # fmt: skip
    return determinism(model, cifar(data)[0])


@planted("noise from a generator of its own", kind="generator of its own", part="model",
         causes=["MOD004", "MOD001"])  # fmt: skip
def _(data: Path):
    generator = torch.Generator().manual_seed(0)

    class Noisy(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + 0.1 * torch.randn(x.shape, generator=generator))

    return determinism(Noisy(), cifar(data)[0])


# ------------------------------------------------------------------ state


@planted("features are centred by a mean that follows in eval mode too", kind="state between calls",
         part="model", causes=["MOD002"], mentions=["centre"])  # fmt: skip
def _(data: Path):
    class Centred(SmallNet):
        def __init__(self):
            super().__init__()
            self.register_buffer("centre", torch.zeros(64))

        def forward(self, x: Tensor) -> Tensor:
            features = self.features(x).mean((2, 3))
            self.centre = 0.9 * self.centre + 0.1 * features.mean(0).detach()
            return self.classifier(features - self.centre)

    return determinism(Centred(), cifar(data)[0])


@planted("recurrent head that keeps its hidden state", kind="state between calls", part="model",
         causes=["MOD002"], mentions=["hidden"])  # fmt: skip
def _(data: Path):
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru, self.fc = nn.GRU(96, 48, batch_first=True), nn.Linear(48, 10)
            self.hidden = None

        def forward(self, x: Tensor) -> Tensor:
            rows = x.permute(0, 2, 1, 3).flatten(2)
            out, hidden = self.gru(rows, self.hidden)
            self.hidden = hidden.detach()
            return self.fc(out[:, -1])

    return determinism(Rows(), cifar(data)[0])


@planted("position embedding grows with +=", kind="state between calls", part="model",
         causes=["MOD002"], mentions=["position"])  # fmt: skip
def _(data: Path):
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.head = nn.Conv2d(3, 48, 8, stride=8), nn.Linear(48, 10)
            self.register_buffer("position", torch.randn(1, 16, 48))
            self.layer = nn.TransformerEncoderLayer(48, 4, 96, dropout=0.0, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.patches(x).flatten(2).transpose(1, 2)
            embedded = self.position
            embedded += tokens.mean(0, keepdim=True).detach()
            return self.head(self.layer(tokens + embedded).mean(1))

    return determinism(Tokens(), cifar(data)[0])


@planted("a default argument gathers features", kind="state between calls", part="model",
         causes=["MOD002", "MOD004"])  # fmt: skip
def _(data: Path):
    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.stages = nn.ModuleList(
                nn.Conv2d(inside, 16, 3, stride=2, padding=1) for inside in (3, 16, 16)
            )
            self.fc = nn.Linear(16, 10)

        def forward(self, x: Tensor, seen: list[Tensor] = []) -> Tensor:  # noqa: B006
            for stage in self.stages:
                x = F.relu(stage(x))
                seen.append(x.mean((0, 2, 3)).detach())
            return self.fc(torch.stack(seen).mean(0) + x.mean((2, 3)))

    return determinism(Pyramid(), cifar(data)[0])


@planted("pooled values are written into torch.empty, the last column isn't", kind="uninitialised memory",
         part="model", causes=["MOD003"])  # fmt: skip
def _(data: Path):
    class Pooled(SmallNet):
        def forward(self, x: Tensor) -> Tensor:
            maps = self.features(x)
            pooled = torch.empty(len(x), maps.shape[1])
            for channel in range(maps.shape[1] - 1):
                pooled[:, channel] = maps[:, channel].amax((1, 2))
            return self.classifier(pooled)

    return determinism(Pooled(), cifar(data)[0])


# ------------------------------------------------------------------ the batch


@planted("attention over tokens without batch_first", kind="samples mixed", part="model",
         causes=["MOD005"], mentions=["attention"])  # fmt: skip
def _(data: Path):
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.head = nn.Conv2d(3, 48, 8, stride=8), nn.Linear(48, 10)
            self.attention = nn.MultiheadAttention(48, 4)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.patches(x).flatten(2).transpose(1, 2)
            return self.head(self.attention(tokens, tokens, tokens)[0].mean(1))

    return determinism(Attends(), cifar(data)[0])


@planted("inputs are normalised by the batch's mean and deviation", kind="samples mixed", part="model",
         causes=["MOD005"])  # fmt: skip
def _(data: Path):
    class Normalising(PlainNet):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward((x - x.mean()) / x.std())

    raw, _ = cifar_pixels(data)
    return determinism(Normalising(), raw.float())


@planted("embeddings divided by their norm over the batch", kind="samples mixed", part="model",
         causes=["MOD005"])  # fmt: skip
def _(data: Path):
    class Embedding(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = vision("squeezenet1_1", 64)

        def forward(self, x: Tensor) -> Tensor:
            return F.normalize(self.body(x), dim=0)

    return determinism(Embedding(), cifar(data, side=64)[0])


@planted("batch norm without running statistics", kind="samples mixed", part="model",
         causes=["MOD005"], mentions=["norm"])  # fmt: skip
def _(data: Path):
    class Block(nn.Module):
        def __init__(self, inside: int, outside: int):
            super().__init__()
            self.conv = nn.Conv2d(inside, outside, 3, stride=2, padding=1)
            self.norm = nn.BatchNorm2d(outside, track_running_stats=False)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.norm(self.conv(x)))

    model = nn.Sequential(
        Block(3, 16), Block(16, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)
    )
    return determinism(model, cifar(data)[0])


# ------------------------------------------------------------------ modes and layers


@planted(
    "train() overridden so that the head always trains",
    kind="eval mode not reached", part="model", causes=["MOD006"], mentions=["head"],
)  # fmt: skip
def _(data: Path):
    class AlwaysTrains(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = lite0(64)
            self.head = nn.Sequential(nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))

        def train(self, mode: bool = True):
            super().train(mode)
            self.body.eval()
            self.head.train()
            return self

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x))

    return determinism(AlwaysTrains(), cifar(data, side=64)[0])


@planted("blocks in a Python list", kind="layers in a list", part="model", causes=["MOD008"],
         mentions=["blocks"])  # fmt: skip
def _(data: Path):
    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 24, 3, padding=1), nn.Linear(24, 10)
            self.blocks = [
                nn.Sequential(nn.Conv2d(24, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU())
                for _ in range(3)
            ]

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            for block in self.blocks:
                x = x + block(x)
            return self.head(x.mean((2, 3)))

    model = Listed()
    return suite(
        model, nn.CrossEntropyLoss(), *cifar(data), optimizer=torch.optim.Adam(model.parameters(), lr=1e-3)
    )


@planted("heads by task in a plain dict", kind="layers in a list", part="model", causes=["MOD008"],
         mentions=["heads"])  # fmt: skip
def _(data: Path):
    class Tasks(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = vit(64)
            self.heads = {"box": nn.Linear(64, 4), "score": nn.Linear(64, 1)}

        def forward(self, x: Tensor) -> Tensor:
            x = self.body(x)
            return torch.cat([self.heads["box"](x), self.heads["score"](x)], dim=1)

    images, boxes = raccoons(data, side=32)
    model = Tasks()
    targets = torch.cat([boxes / 32, torch.ones(len(boxes), 1)], dim=1)
    return suite(
        model, nn.SmoothL1Loss(), images, targets, optimizer=torch.optim.AdamW(model.parameters(), lr=1e-3)
    )


@planted("the model normalises its input in place", kind="input changed", part="model", causes=["MOD009"])
def _(data: Path):
    class Normalising(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = vision("mobilenet_v3_small")

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x.sub_(0.45).div_(0.225))

    raw, _ = cifar_pixels(data, side=64)
    return determinism(Normalising(), raw.float() / 255)


@planted("first layer is a LeakyReLU in place", kind="input changed", part="model", causes=["MOD009"])
def _(data: Path):
    model = nn.Sequential(nn.LeakyReLU(0.1, inplace=True), UNet())
    return determinism(model, streets(data)[0])


@planted("batch norm with a momentum of 0", kind="running statistics", part="model", causes=["MOD007"])
def _(data: Path):
    raw, labels = cifar_pixels(data, n=16)
    images = raw.float() / 255 * 12
    model = SmallNet()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(30):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return determinism(model, images)


@planted("pretrained Lite0 given pixels of 0 to 255", kind="running statistics", part="model",
         causes=["MOD007"])  # fmt: skip
def _(data: Path):
    raw, _ = cifar_pixels(data, side=64)
    return determinism(lite0(), raw.float())


# ------------------------------------------------------------------ values


@planted("channels divided by their deviation over one pixel", kind="NaN in forward", part="model",
         causes=["MOD010"], mentions=["standardise"])  # fmt: skip
def _(data: Path):
    class Standardise(nn.Module):
        def forward(self, maps: Tensor) -> Tensor:
            return (maps - maps.mean((2, 3), keepdim=True)) / maps.std((2, 3), keepdim=True)

    model = nn.Sequential()
    model.add_module("body", nn.Sequential(*list(vision("resnet18").children())[:-1]))
    model.add_module("standardise", Standardise())
    model.add_module("head", nn.Sequential(nn.Flatten(), nn.Linear(512, 10)))
    return trace(model, cifar(data)[0])


@planted("cosine similarity of embeddings that ReLU made zero", kind="NaN in forward", part="model",
         causes=["MOD010"], mentions=["cosine"])  # fmt: skip
def _(data: Path):
    class Cosine(nn.Module):
        def __init__(self):
            super().__init__()
            self.prototypes = nn.Parameter(torch.randn(10, 32))

        def forward(self, x: Tensor) -> Tensor:
            return (x / x.norm(dim=1, keepdim=True)) @ F.normalize(self.prototypes, dim=1).T

    model = PlainNet(32)
    nn.init.constant_(model.fc2.bias, -3.0)
    whole = nn.Sequential()
    whole.add_module("body", nn.Sequential(model, nn.ReLU()))
    whole.add_module("cosine", Cosine())
    return trace(whole, cifar(data)[0])


@planted("group norm with one value in each group", kind="constant output", part="model",
         causes=["MOD011"], mentions=["norm"])  # fmt: skip
def _(data: Path):
    class Head(SmallNet):
        def __init__(self):
            super().__init__()
            self.norm = nn.GroupNorm(64, 64)

        def forward(self, x: Tensor) -> Tensor:
            return self.classifier(self.norm(self.features(x).mean((2, 3))))

    model = Head()
    return suite(
        model, nn.CrossEntropyLoss(), *cifar(data), optimizer=torch.optim.Adam(model.parameters(), lr=1e-3)
    )


@planted("layer norm after the single output of a regression", kind="constant output", part="model",
         causes=["MOD011"])  # fmt: skip
def _(data: Path):
    images, boxes = raccoons(data)
    model = nn.Sequential(vision("shufflenet_v2_x0_5", 64), nn.ReLU(), nn.Linear(64, 1), nn.LayerNorm(1))
    return suite(
        model, nn.MSELoss(), images, boxes[:, :1] / 64,
        optimizer=torch.optim.Adam(model.parameters(), lr=1e-3),
    )  # fmt: skip


# ------------------------------------------------------------------ sound


@healthy("dropout of 0.5 and stochastic depth, as they should be", part="model")
def _(data: Path):
    model = nn.Sequential(timm_model("convnext_atto", 64, drop_path_rate=0.2), nn.Dropout(0.5))
    return determinism(model, cifar(data, side=64)[0])


@healthy("pretrained Lite0 on images as it wants them", part="model")
def _(data: Path):
    raw, _ = cifar_pixels(data, side=64)
    return determinism(lite0(), (raw.float() - 127) / 128)


@healthy("untrained deep net on real images", part="model")
def _(data: Path):
    model, images = vision("efficientnet_b0"), cifar(data, side=64)[0]
    return [*determinism(model, images), *trace(model, images)]


@healthy("attention with batch_first, buffer of positions, hidden state made anew", part="model")
def _(data: Path):
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.head = nn.Conv2d(3, 48, 8, stride=8), nn.Linear(48, 10)
            self.register_buffer("position", torch.randn(1, 16, 48) * 0.02)
            self.attention = nn.MultiheadAttention(48, 4, dropout=0.1, batch_first=True)
            self.gru = nn.GRU(48, 48, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.patches(x).flatten(2).transpose(1, 2) + self.position
            tokens = tokens + self.attention(tokens, tokens, tokens)[0]
            return self.head(self.gru(tokens)[0][:, -1])

    return determinism(Attends(), cifar(data)[0])


@healthy("uint8 images scaled inside, cache of a grid by size", part="model")
def _(data: Path):
    class Inside(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.grids = vision("shufflenet_v2_x0_5", 10), {}

        def forward(self, x: Tensor) -> Tensor:
            if x.shape[-2:] not in self.grids:
                height, width = x.shape[-2:]
                self.grids[x.shape[-2:]] = torch.linspace(-0.1, 0.1, width).expand(3, height, width)
            return self.net(normalised(x) + self.grids[x.shape[-2:]])

    return determinism(Inside(), cifar_pixels(data, side=64)[0])


@healthy("U-Net on streets, trained for a while", part="model")
def _(data: Path):
    images, masks = streets(data)
    model = UNet()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(30):
        optimizer.zero_grad()
        F.cross_entropy(model(images), masks, ignore_index=11).backward()
        optimizer.step()
    return [*determinism(model, images), *trace(model, images)]
