"""Losses that aren't given what they expect: outputs, axes, shapes, targets."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from . import planted
from ._images import cifar, coco_classes, raccoons, streets
from ._models import AutoEncoder, PlainNet, SmallNet, UNet, mlp, suite, timm_model, vision, vit

F = nn.functional


def adam(model: nn.Module, lr: float = 1e-3) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=lr)


# ------------------------------------------------------------------ activations


@planted("resnet18 ends in a softmax, and the loss is cross entropy", kind="softmax twice", part="loss",
         causes=["MOD020"])  # fmt: skip
def _(data: Path):
    model = vision("resnet18")
    model.fc = nn.Sequential(nn.Linear(512, 10), nn.Softmax(dim=1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    return suite(model, nn.CrossEntropyLoss(), *cifar(data), optimizer=optimizer)


@planted("softmax in the step of a U-Net", kind="softmax twice", part="loss", causes=["MOD020"])
def _(data: Path):
    criterion = nn.CrossEntropyLoss(ignore_index=11)

    def step(model, batch):
        images, masks = batch
        probabilities = torch.softmax(model(images), dim=1)
        return criterion(probabilities, masks)

    model = UNet()
    return suite(model, None, *streets(data), step=step, optimizer=adam(model))


@planted("focal loss of a ViT's probabilities", kind="softmax twice", part="loss", causes=["MOD020"])
def _(data: Path):
    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = vit()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x).softmax(-1)

    class Focal(nn.Module):
        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            each = F.cross_entropy(output, target, reduction="none")
            return ((1 - torch.exp(-each)) ** 2 * each).mean()

    model = Classifier()
    return suite(model, Focal(), *cifar(data), optimizer=adam(model, 3e-4))


@planted("sigmoid before BCEWithLogitsLoss, several classes an image", kind="sigmoid twice", part="loss",
         causes=["MOD020"])  # fmt: skip
def _(data: Path):
    model = nn.Sequential(vision("mobilenet_v3_small", 80), nn.Sigmoid())
    return suite(model, nn.BCEWithLogitsLoss(), *coco_classes(data), optimizer=adam)


@planted("own dice loss with a sigmoid after the model's own", kind="sigmoid twice", part="loss",
         causes=["MOD020"])  # fmt: skip
def _(data: Path):
    class Binary(UNet):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(super().forward(x))

    def dice_loss(output: Tensor, target: Tensor) -> Tensor:
        p = torch.sigmoid(output)
        both = (p * target).sum((1, 2, 3))
        return (1 - (2 * both + 1) / (p.sum((1, 2, 3)) + target.sum((1, 2, 3)) + 1)).mean()

    images, masks = streets(data)
    model = Binary(classes=1)
    return suite(model, dice_loss, images, (masks == 3).float()[:, None], optimizer=adam(model))


@planted("NLLLoss of logits", kind="logits into NLLLoss", part="loss", causes=["MOD021"])
def _(data: Path):
    return suite(vision("shufflenet_v2_x0_5"), nn.NLLLoss(), *cifar(data, side=64), optimizer=adam)


@planted("NLLLoss of probabilities", kind="probabilities into NLLLoss", part="loss", causes=["MOD021"])
def _(data: Path):
    model = nn.Sequential(mlp(act=nn.GELU), nn.Softmax(dim=-1))
    return suite(model, nn.NLLLoss(), *cifar(data), optimizer=adam)


@planted("BCELoss of logits", kind="logits into BCELoss", part="loss", causes=["MOD021"])
def _(data: Path):
    model = timm_model("convnext_atto", 80)
    return suite(model, nn.BCELoss(), *coco_classes(data), optimizer=adam)


@planted("distillation by KLDivLoss of the student's probabilities", kind="KL of probabilities",
         part="loss", causes=["MOD021"])  # fmt: skip
def _(data: Path):
    images, _ = cifar(data, side=64)
    teacher = vision("resnet18").eval()
    with torch.no_grad():
        soft = F.softmax(teacher(images) * 4, dim=1)

    def distil(output: Tensor, target: Tensor) -> Tensor:
        return F.kl_div(F.softmax(output / 2, dim=1), target, reduction="batchmean")

    model = vision("mobilenet_v3_small")
    return suite(model, distil, images, soft, optimizer=adam)


@planted("kl_div against the teacher's logarithms without log_target", kind="KL of probabilities",
         part="loss", causes=["MOD021"])  # fmt: skip
def _(data: Path):
    images, _ = cifar(data)
    torch.manual_seed(1)
    with torch.no_grad():
        soft = F.log_softmax(SmallNet().eval()(images) * 20, dim=1)

    def step(model, batch):
        x, target = batch
        return F.kl_div(F.log_softmax(model(x), dim=1), target, reduction="batchmean")

    model = SmallNet()
    return suite(model, None, images, soft, step=step, optimizer=adam(model))


# ------------------------------------------------------------------ axes and shapes


@planted("classes on the last axis of a segmentation", kind="class axis", part="loss", causes=["MOD022"])
def _(data: Path):
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = UNet(12)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x).permute(0, 2, 3, 1)

    model = Last()
    return suite(model, nn.CrossEntropyLoss(), *streets(data), optimizer=adam(model))


@planted("view(-1, classes) on maps of (n, classes, height, width)", kind="class axis", part="loss",
         causes=["MOD022"])  # fmt: skip
def _(data: Path):
    def criterion(output: Tensor, masks: Tensor) -> Tensor:
        return F.cross_entropy(output.reshape(-1, 12), masks.view(-1), ignore_index=11)

    model = UNet(12)
    return suite(model, criterion, *streets(data), optimizer=adam(model))


@planted("log_softmax over the batch", kind="softmax over the wrong axis", part="loss", causes=["MOD022"])
def _(data: Path):
    class Net(PlainNet):
        def forward(self, x: Tensor) -> Tensor:
            return F.log_softmax(super().forward(x), dim=0)

    model = Net()
    return suite(model, nn.NLLLoss(), *cifar(data), optimizer=adam(model))


@planted("log_softmax over the rows of a segmentation", kind="softmax over the wrong axis", part="loss",
         causes=["MOD022"])  # fmt: skip
def _(data: Path):
    model = nn.Sequential(UNet(12), nn.LogSoftmax(dim=2))
    return suite(model, nn.NLLLoss(ignore_index=11), *streets(data), optimizer=adam)


@planted("MSELoss of (n, 1) against (n,)", kind="silent broadcast", part="loss", causes=["MOD023"])
def _(data: Path):
    images, boxes = raccoons(data)
    return suite(vision("resnet18", 1), nn.MSELoss(), images, boxes[:, 0] / 64, optimizer=adam)


@planted("own mean of squares of (n, 1) against (n,)", kind="silent broadcast", part="loss",
         causes=["MOD023"])  # fmt: skip
def _(data: Path):
    def step(model, batch):
        x, height = batch
        error = model(x) - height
        return (error**2).mean()

    images, boxes = raccoons(data)
    model = vision("shufflenet_v2_x0_5", 1)
    return suite(
        model, None, images, (boxes[:, 3] - boxes[:, 1]) / 64, step=step, optimizer=adam(model)
    )  # fmt: skip


@planted("BCE of the logarithms, (n, 1) against (n,)", kind="silent broadcast", part="loss",
         causes=["MOD023"])  # fmt: skip
def _(data: Path):
    def bce(output: Tensor, target: Tensor) -> Tensor:
        return -(target * F.logsigmoid(output) + (1 - target) * F.logsigmoid(-output)).mean()

    images, labels = cifar(data)
    return suite(SmallNet(1), bce, images, (labels % 2).float(), optimizer=adam)


# ------------------------------------------------------------------ targets


@planted("labels counted from 1", kind="labels from 1", part="loss", causes=["MOD024"])
def _(data: Path):
    images, labels = cifar(data, side=64)
    return suite(vision("squeezenet1_1"), nn.CrossEntropyLoss(), images, labels + 1, optimizer=adam)


@planted("targets of -1 and 1 for BCEWithLogitsLoss", kind="targets out of range", part="loss",
         causes=["MOD024"])  # fmt: skip
def _(data: Path):
    images, labels = cifar(data)
    model = nn.Sequential(SmallNet(1), nn.Flatten(0))
    return suite(model, nn.BCEWithLogitsLoss(), images, (labels % 2).float() * 2 - 1, optimizer=adam)


@planted("masks of 0 and 255 for BCEWithLogitsLoss", kind="targets out of range", part="loss",
         causes=["MOD024"])  # fmt: skip
def _(data: Path):
    images, masks = streets(data)
    mask = ((masks == 4) * 255).float()[:, None]
    return suite(UNet(1), nn.BCEWithLogitsLoss(), images, mask, optimizer=adam)


@planted("void is class 11 of a model with 11 classes", kind="void not ignored", part="loss",
         causes=["MOD024"], mentions=["11"])  # fmt: skip
def _(data: Path):
    return suite(UNet(11), nn.CrossEntropyLoss(ignore_index=255), *streets(data), optimizer=adam)


@planted("class indices as floats", kind="target type", part="loss", causes=["MOD024"])
def _(data: Path):
    images, labels = cifar(data)
    return suite(vit(), nn.CrossEntropyLoss(), images, labels.float(), optimizer=adam)


@planted("a box is missing in the table and becomes NaN", kind="NaN in the target", part="loss",
         causes=["MOD024"], mentions=["NaN"])  # fmt: skip
def _(data: Path):
    images, boxes = raccoons(data)
    boxes[3, 2] = float("nan")
    return suite(vision("resnet18", 4), nn.SmoothL1Loss(), images, boxes / 64, optimizer=adam)


@planted("two views pulled together, neither detached", kind="target with a gradient", part="loss",
         causes=["MOD024"])  # fmt: skip
def _(data: Path):
    def step(model, batch):
        x, _ = batch
        first, second = model(x), model(x.flip(-1))
        return F.mse_loss(first, second)

    model = SmallNet(32)
    return suite(model, None, *cifar(data), step=step, optimizer=adam(model))


@planted("several ones a row given to CrossEntropyLoss", kind="multi-label into cross entropy",
         part="loss", causes=["MOD025"])  # fmt: skip
def _(data: Path):
    return suite(timm_model("convnext_atto", 80), nn.CrossEntropyLoss(), *coco_classes(data), optimizer=adam)


@planted("one-hot integers given to CrossEntropyLoss", kind="one-hot for indices", part="loss",
         causes=["MOD025"])  # fmt: skip
def _(data: Path):
    images, labels = cifar(data)
    return suite(PlainNet(), nn.CrossEntropyLoss(), images, F.one_hot(labels, 10), optimizer=adam)


@planted("one-hot masks with the classes last", kind="one-hot on the wrong axis", part="loss",
         causes=["MOD022", "MOD025"])  # fmt: skip
def _(data: Path):
    images, masks = streets(data)
    return suite(UNet(), nn.CrossEntropyLoss(), images, F.one_hot(masks, 12).float(), optimizer=adam)


@planted("mean squared error of ten outputs against the index", kind="indices for one-hot", part="loss",
         causes=["MOD025", "MOD023"])  # fmt: skip
def _(data: Path):
    images, labels = cifar(data)
    return suite(vision("resnet18"), nn.MSELoss(), images, labels.float()[:, None], optimizer=adam)


@planted("class indices spread over the columns for BCEWithLogitsLoss", kind="indices for one-hot",
         part="loss", causes=["MOD025", "MOD024"])  # fmt: skip
def _(data: Path):
    def criterion(output: Tensor, labels: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(output, labels[:, None].expand_as(output).float())

    return suite(mlp(), criterion, *cifar(data), optimizer=adam)


@planted("masks read through ToTensor, so that all are class 0, which is ignored",
         kind="everything ignored", part="loss", causes=["MOD026"])  # fmt: skip
def _(data: Path):
    images, masks = streets(data)
    scaled = (masks.float() / 255).long()
    return suite(UNet(), nn.CrossEntropyLoss(ignore_index=0), images, scaled, optimizer=adam)


@planted("class weights divided as integers", kind="everything ignored", part="loss", causes=["MOD026"])
def _(data: Path):
    images, labels = cifar(data)
    counts = torch.bincount(labels, minlength=10)
    weights = (counts // counts.sum()).float()
    return suite(vision("resnet18"), nn.CrossEntropyLoss(weight=weights), images, labels, optimizer=adam)


@planted("threshold above which a sample counts is never reached", kind="everything ignored", part="loss",
         causes=["MOD026", "TRN002"])  # fmt: skip
def _(data: Path):
    def confident(output: Tensor, labels: Tensor) -> Tensor:
        sure = output.softmax(1).amax(1) > 0.95
        each = F.cross_entropy(output, labels, reduction="none")
        return (each * sure).mean()

    return suite(SmallNet(), confident, *cifar(data), optimizer=adam)


# ------------------------------------------------------------------ sums and signs


@planted("cross entropy summed over the batch", kind="summed loss", part="loss", causes=["MOD027"])
def _(data: Path):
    model = vision("mobilenet_v3_small")
    return suite(model, nn.CrossEntropyLoss(reduction="sum"), *cifar(data, side=64), optimizer=adam)


@planted("squared error summed over all pixels", kind="summed loss", part="loss", causes=["MOD027"])
def _(data: Path):
    def reconstruction(output: Tensor, target: Tensor) -> Tensor:
        return ((output - target) ** 2).sum()

    images, _ = cifar(data)
    model = AutoEncoder()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    return suite(model, reconstruction, images, images.clone(), optimizer=optimizer)


@planted("a loss for each sample", kind="loss is no number", part="loss", causes=["MOD027"])
def _(data: Path):
    return suite(vit(), nn.CrossEntropyLoss(reduction="none"), *cifar(data), optimizer=adam)


@planted("cross entropy with a minus before it", kind="wrong sign", part="loss", causes=["TRN014"])
def _(data: Path):
    def criterion(output: Tensor, labels: Tensor) -> Tensor:
        chosen = F.log_softmax(output, dim=1).gather(1, labels[:, None])
        return chosen.mean()

    return suite(vision("resnet18"), criterion, *cifar(data), optimizer=adam)


@planted("the dice score is minimised in place of one minus it", kind="wrong sign", part="loss",
         causes=["TRN014"])  # fmt: skip
def _(data: Path):
    def dice(output: Tensor, target: Tensor) -> Tensor:
        p = torch.sigmoid(output)
        return (2 * (p * target).sum() + 1) / (p.sum() + target.sum() + 1)

    images, masks = streets(data)
    return suite(UNet(1), dice, images, (masks == 3).float()[:, None], optimizer=adam)
