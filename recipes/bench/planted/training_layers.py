"""Bugs for which layers don't learn: initialisation, gradients, frozen weights, inputs."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from . import planted
from ._images import DEVIATION, MEAN, cifar, cifar_pixels, coco_classes, raccoons, streets
from ._models import AutoEncoder, PlainNet, SmallNet, UNet, lite0, mlp, suite, vision, vit

F = nn.functional


def sgd(model: nn.Module, lr: float = 0.05) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def adam(model: nn.Module, lr: float = 1e-3) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=lr)


# ------------------------------------------------------------------ gradients cut off


@planted(
    "backbone run under no_grad although it shall be tuned",
    kind="no_grad in forward", part="training", causes=["TRN002"], mentions=["backbone", "no_grad"],
)  # fmt: skip
def _(data: Path):
    class Tuned(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = vision("shufflenet_v2_x0_5", 64)
            self.head = nn.Linear(64, 10)

        @torch.no_grad()
        def features(self, x: Tensor) -> Tensor:
            return self.backbone(x)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.features(x)))

    model = Tuned()
    return suite(model, nn.CrossEntropyLoss(), *cifar(data, side=64), optimizer=adam(model))


@planted(
    "U-Net whose bottom is detached",
    kind="detach in forward", part="training", causes=["TRN002"], mentions=["middle", "detach"],
)  # fmt: skip
def _(data: Path):
    class Detached(UNet):
        def forward(self, x: Tensor) -> Tensor:
            first = self.down1(x)
            second = self.down2(F.max_pool2d(first, 2))
            bottom = self.middle(F.max_pool2d(second, 2)).detach()
            x = self.merge2(torch.cat([self.up2(bottom), second], dim=1))
            return self.head(self.merge1(torch.cat([self.up1(x), first], dim=1)))

    model = Detached()
    return suite(model, nn.CrossEntropyLoss(ignore_index=11), *streets(data), optimizer=adam(model))


@planted(
    "features go through NumPy on their way",
    kind="NumPy round trip", part="training", causes=["TRN002"], mentions=["stem"],
)  # fmt: skip
def _(data: Path):
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(3, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU())
            self.head = nn.Linear(24 * 16, 10)

        def forward(self, x: Tensor) -> Tensor:
            maps = self.stem(x).detach().cpu().numpy()
            n, channels, height, width = maps.shape
            maps = maps.reshape(n, channels, 4, height // 4, 4, width // 4).mean(axis=(3, 5))
            return self.head(torch.from_numpy(maps).to(x.device).flatten(1))

    model = Pooled()
    return suite(model, nn.CrossEntropyLoss(), *cifar(data), optimizer=sgd(model))


@planted(
    "mean squared error of the predicted class",
    kind="argmax before the loss", part="training", causes=["TRN002"], mentions=["argmax"],
)  # fmt: skip
def _(data: Path):
    def step(model, batch):
        images, labels = batch
        predicted = model(images).argmax(dim=1).float()
        loss = F.mse_loss(predicted, labels.float())
        loss.requires_grad_(True)
        return loss

    model = vision("resnet18")
    return suite(model, None, *cifar(data), step=step, optimizer=adam(model))


@planted("losses of samples gathered with torch.tensor", kind="loss made of a number", part="training",
         causes=["TRN002"])  # fmt: skip
def _(data: Path):
    def criterion(outputs: Tensor, boxes: Tensor) -> Tensor:
        losses = [F.l1_loss(one, box) for one, box in zip(outputs, boxes, strict=True)]
        return torch.mean(torch.tensor(losses, requires_grad=True))

    model = vision("mobilenet_v3_small", 4)
    images, boxes = raccoons(data)
    return suite(model, criterion, images, boxes / 64, optimizer=adam(model))


@planted(
    "weights wrapped in .data in forward",
    kind="detach in forward", part="training", causes=["TRN002"], mentions=["attention"],
)  # fmt: skip
def _(data: Path):
    class Gated(SmallNet):
        def __init__(self):
            super().__init__()
            self.attention = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 64), nn.Sigmoid())

        def forward(self, x: Tensor) -> Tensor:
            maps = self.features(x)
            weights = self.attention(maps.mean((2, 3))).data
            return self.classifier((maps * weights[:, :, None, None]).mean((2, 3)))

    model = Gated()
    return suite(model, nn.CrossEntropyLoss(), *cifar(data), optimizer=adam(model))


@planted(
    "activations rounded to 16 levels",
    kind="rounding in forward", part="training", causes=["TRN002", "TRN023"], mentions=["round"],
)  # fmt: skip
def _(data: Path):
    class Quantised(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, 16, 3, stride=2, padding=1)
            self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1)
            self.fc = nn.Linear(32 * 64, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.round(F.relu6(self.conv1(x)) * 16) / 16
            x = torch.round(F.relu6(self.conv2(x)) * 16) / 16
            return self.fc(x.flatten(1))

    model = Quantised()
    return suite(model, nn.CrossEntropyLoss(), *cifar(data), optimizer=adam(model))


@planted("own autograd function hands back zeros", kind="own backward wrong", part="training",
         causes=["TRN002", "TRN023"])  # fmt: skip
def _(data: Path):
    class Binary(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.sign()

        @staticmethod
        def backward(ctx, gradient):
            return torch.zeros_like(gradient)

    class BinaryNet(PlainNet):
        def forward(self, x: Tensor) -> Tensor:
            x = self.pool(Binary.apply(self.conv1(x)))
            x = self.pool(Binary.apply(self.conv2(x)))
            return self.fc2(self.act(self.fc1(x.flatten(1))))

    model = BinaryNet()
    return suite(model, nn.CrossEntropyLoss(), *cifar(data), optimizer=adam(model))


@planted(
    "second projection is never called",
    kind="layer unused", part="training", causes=["TRN013"], mentions=["project2"],
)  # fmt: skip
def _(data: Path):
    class Twin(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = vit(64)
            self.project1, self.project2 = nn.Linear(64, 64), nn.Linear(64, 64)
            self.head = nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = F.gelu(self.project1(self.body(x)))
            return self.head(F.gelu(self.project1(x)))

    model = Twin()
    return suite(model, nn.CrossEntropyLoss(), *cifar(data), optimizer=adam(model, 3e-4))


# ------------------------------------------------------------------ frozen


@planted("everything frozen, the new head too", kind="all frozen", part="training", causes=["TRN011"])
def _(data: Path):
    model = vision("resnet18")
    model.fc = nn.Linear(512, 10)
    for parameter in model.parameters():
        parameter.requires_grad = False
    return suite(model, nn.CrossEntropyLoss(), *cifar(data), optimizer=sgd)


@planted("only the last parameter unfrozen, which is the bias", kind="too much frozen", part="training",
         causes=["TRN011"])  # fmt: skip
def _(data: Path):
    model = lite0()
    for parameter in model.parameters():
        parameter.requires_grad = False
    list(model.parameters())[-1].requires_grad = True
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return suite(
        model, nn.CrossEntropyLoss(), *cifar(data, side=64), optimizer=torch.optim.Adam(trained, lr=1e-2)
    )


@planted("resnet18 with batch norm frozen as for fine-tuning, without pretrained weights",
         kind="batch norm frozen", part="training", causes=["TRN009"])  # fmt: skip
def _(data: Path):
    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = vision("resnet18")

        def train(self, mode: bool = True):
            super().train(mode)
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
            return self

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    model = Frozen()
    return suite(model, nn.CrossEntropyLoss(), *cifar(data), optimizer=sgd(model))


# ------------------------------------------------------------------ initialisation


@planted("all weights set to 0", kind="constant initialisation", part="training", causes=["TRN010"])
def _(data: Path):
    model = PlainNet()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return suite(model, nn.CrossEntropyLoss(), *cifar(data), optimizer=adam(model))


@planted("MLP, all weights set to 0.01", kind="constant initialisation", part="training", causes=["TRN010"])
def _(data: Path):
    model = mlp()

    def initialise(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.constant_(module.weight, 0.01)
            nn.init.zeros_(module.bias)

    model.apply(initialise)
    return suite(model, nn.CrossEntropyLoss(), *cifar(data), optimizer=adam(model))


@planted("weights drawn with deviation 1", kind="huge initialisation", part="training", causes=["TRN010"])
def _(data: Path):
    model = PlainNet()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return suite(model, nn.CrossEntropyLoss(), *cifar(data), optimizer=sgd(model, 0.01))


@planted("biases set to -20 before each ReLU", kind="dead ReLU", part="training",
         causes=["TRN005", "MOD011"])  # fmt: skip
def _(data: Path):
    model = PlainNet()
    for module in (model.conv1, model.conv2, model.fc1):
        nn.init.constant_(module.bias, -20)
    return suite(model, nn.CrossEntropyLoss(), *cifar(data), optimizer=adam(model))


@planted("ten sigmoid layers", kind="vanishing gradient", part="training", causes=["TRN021"])
def _(data: Path):
    model = mlp(width=64, depth=10, act=nn.Sigmoid)
    return suite(model, nn.CrossEntropyLoss(), *cifar(data), optimizer=sgd(model, 0.01))


@planted("twelve convolutions with tanh and tiny weights", kind="vanishing gradient", part="training",
         causes=["TRN021", "TRN010"])  # fmt: skip
def _(data: Path):
    layers: list[nn.Module] = []
    for i in range(12):
        layers += [nn.Conv2d(3 if i == 0 else 16, 16, 3, padding=1), nn.Tanh()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.01)
    return suite(model, nn.CrossEntropyLoss(), *cifar(data), optimizer=adam(model))


@planted(
    "dropout of 0.99 in mobilenet's head",
    kind="dropout far too high", part="training", causes=["TRN008"], mentions=["ropout"],
)  # fmt: skip
def _(data: Path):
    model = vision("mobilenet_v3_small", dropout=0.99)
    return suite(model, nn.CrossEntropyLoss(), *cifar(data, side=64), optimizer=adam(model))


@planted(
    "dropout of 0.95 after each layer, where 0.95 was to be kept",
    kind="dropout far too high", part="training", causes=["TRN008"], mentions=["ropout"],
)  # fmt: skip
def _(data: Path):
    keep = 0.95

    class Dropped(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2 = nn.Linear(3072, 128), nn.Linear(128, 128)
            self.fc3 = nn.Linear(128, 10)

        def forward(self, x: Tensor) -> Tensor:
            x = F.dropout(F.relu(self.fc1(x.flatten(1))), keep, training=self.training)
            x = F.dropout(F.relu(self.fc2(x)), keep, training=self.training)
            return self.fc3(x)

    model = Dropped()
    return suite(model, nn.CrossEntropyLoss(), *cifar(data), optimizer=adam(model))


@planted("ReLU after the last layer of a regression to standardised targets", kind="output cannot reach",
         part="training", causes=["TRN005", "MOD024"])  # fmt: skip
def _(data: Path):
    class Regression(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = vision("resnet18", 4)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.body(x))

    images, boxes = raccoons(data)
    targets = (boxes - boxes.mean(0)) / boxes.std(0)
    model = Regression()
    return suite(model, nn.MSELoss(), images, targets, optimizer=adam(model))


@planted("autoencoder with a sigmoid at its end and normalised images", kind="output cannot reach",
         part="training", causes=["MOD024", "TRN005"])  # fmt: skip
def _(data: Path):
    images, _ = cifar(data)
    model = AutoEncoder(nn.Sigmoid())
    return suite(model, nn.MSELoss(), images, images.clone(), optimizer=adam(model, 3e-3))


# ------------------------------------------------------------------ NaN


@planted("distance of equal embeddings by sqrt", kind="gradient of sqrt at 0", part="training",
         causes=["TRN020"], mentions=["sqrt"])  # fmt: skip
def _(data: Path):
    images, labels = cifar(data)

    def contrastive(embedded: Tensor, labels: Tensor) -> Tensor:
        distances = torch.sqrt(((embedded[:, None] - embedded[None]) ** 2).sum(-1))
        same = (labels[:, None] == labels[None]).float()
        return (same * distances**2 + (1 - same) * F.relu(1 - distances) ** 2).mean()

    model = vision("shufflenet_v2_x0_5", 32)
    return suite(model, contrastive, images, labels % 3, optimizer=adam(model))


@planted("own cross entropy with log of clamped values", kind="log of 0", part="training",
         causes=["TRN020"], mentions=["log"])  # fmt: skip
def _(data: Path):
    def own_bce(output: Tensor, target: Tensor) -> Tensor:
        p = output.clamp(0, 1)
        return -(target * torch.log(p) + (1 - target) * torch.log(1 - p)).mean()

    model = vision("mobilenet_v3_small", 80)
    return suite(model, own_bce, *coco_classes(data), optimizer=adam(model))


@planted("attention over tokens that are all masked", kind="softmax over nothing", part="training",
         causes=["MOD010", "TRN020"], mentions=["attention"])  # fmt: skip
def _(data: Path):
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = nn.Conv2d(3, 48, 8, stride=8)
            self.attention = nn.MultiheadAttention(48, 4, batch_first=True)
            self.head = nn.Linear(48, 10)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.patches(x).flatten(2).transpose(1, 2)
            dark = F.avg_pool2d(x.mean(1, keepdim=True), 8).flatten(1) < 0
            tokens, _ = self.attention(tokens, tokens, tokens, key_padding_mask=dark)
            return self.head(tokens.mean(1))

    images, labels = cifar(data)
    images[3] = (0 - MEAN) / DEVIATION
    model = Masked()
    return suite(model, nn.CrossEntropyLoss(), images, labels, optimizer=adam(model))


@planted("features squared in half precision", kind="overflow of half precision", part="training",
         causes=["MOD010", "TRN020"], mentions=["energy"])  # fmt: skip
def _(data: Path):
    class Energy(nn.Module):
        def forward(self, maps: Tensor) -> Tensor:
            half = (maps * 256).half()
            return (half * half).float() / 65536

    model = nn.Sequential()
    model.add_module("stem", nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU()))
    model.add_module("energy", Energy())
    model.add_module("head", nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10)))
    return suite(model, nn.CrossEntropyLoss(), *cifar(data), optimizer=adam(model))


# ------------------------------------------------------------------ inputs


@planted("plain CNN given pixels of 0 to 255", kind="input not scaled", part="training", causes=["TRN012"])
def _(data: Path):
    raw, labels = cifar_pixels(data)
    model = PlainNet()
    return suite(model, nn.CrossEntropyLoss(), raw.float(), labels, optimizer=sgd(model, 0.01))


@planted("MLP given pixels of 0 to 255", kind="input not scaled", part="training", causes=["TRN012"])
def _(data: Path):
    raw, labels = cifar_pixels(data)
    return suite(
        mlp(), nn.CrossEntropyLoss(), raw.float(), labels, optimizer=lambda model: sgd(model, 0.01)
    )  # fmt: skip


@planted("pixels divided by 255 twice", kind="input scaled twice", part="training", causes=["TRN012"])
def _(data: Path):
    raw, labels = cifar_pixels(data)
    model = PlainNet()
    return suite(model, nn.CrossEntropyLoss(), raw.float() / 255 / 255, labels, optimizer=sgd(model, 0.01))


@planted("images divided by their own deviation, of which one is black", kind="NaN in the input",
         part="training", causes=["TRN012"], mentions=["NaN"])  # fmt: skip
def _(data: Path):
    raw, labels = cifar_pixels(data)
    images = raw.float()
    images[2] = 0
    images = (images - images.mean((1, 2, 3), keepdim=True)) / images.std((1, 2, 3), keepdim=True)
    model = vision("resnet18")
    return suite(model, nn.CrossEntropyLoss(), images, labels, optimizer=sgd(model))


@planted("the loader gives the last image for each index", kind="all inputs equal", part="training",
         causes=["TRN006", "TRN012"])  # fmt: skip
def _(data: Path):
    images, labels = cifar(data)

    class Files(torch.utils.data.Dataset):
        def __init__(self):
            for self.image, self.label in zip(images, labels, strict=True):
                pass

        def __len__(self):
            return len(images)

        def __getitem__(self, index):
            return self.image, labels[index]

    model = SmallNet()
    batch = next(iter(torch.utils.data.DataLoader(Files(), batch_size=8)))
    return suite(model, nn.CrossEntropyLoss(), *batch, optimizer=adam(model))


@planted("two files stand in two class folders each", kind="contradicting labels", part="training",
         causes=["TRN006"])  # fmt: skip
def _(data: Path):
    images, labels = cifar(data)
    images[4], images[5] = images[0].clone(), images[1].clone()
    return suite(vit(), nn.CrossEntropyLoss(), images, labels, optimizer=lambda model: adam(model, 5e-4))
