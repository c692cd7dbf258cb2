"""Bugs of the training step and of the optimizer."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import nn
from torch.optim import lr_scheduler

from . import planted
from ._images import cifar, coco_classes, streets
from ._models import AutoEncoder, PlainNet, SmallNet, UNet, lite0, mlp, suite, timm_model, vision, vit

F = nn.functional

# ------------------------------------------------------------------ the step


@planted(
    "resnet18, zero_grad never called",
    kind="zero_grad forgotten", part="training", causes=["TRN007"], mentions=["zero_grad"],
)  # fmt: skip
def _(data: Path):
    model = vision("resnet18")
    criterion = nn.CrossEntropyLoss()

    def train_step(model, optimizer, batch):
        images, labels = batch
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return suite(model, None, *cifar(data), train_step=train_step, optimizer=optimizer)


@planted(
    "U-Net, gradients cleared only at the start of an epoch",
    kind="zero_grad forgotten", part="training", causes=["TRN007"], mentions=["zero_grad"],
)  # fmt: skip
def _(data: Path):
    model = UNet()

    def train_step(model, optimizer, batch):
        x, masks = batch
        if getattr(train_step, "first_of_epoch", True):
            optimizer.zero_grad(set_to_none=True)
            train_step.first_of_epoch = False
        loss = F.cross_entropy(model(x), masks, ignore_index=11)
        loss.backward()
        optimizer.step()
        return loss

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    return suite(model, None, *streets(data), train_step=train_step, optimizer=optimizer)


@planted(
    "mobilenet_v3_small, zero_grad between backward and step",
    kind="zero_grad after backward", part="training", causes=["TRN007"], mentions=["zero_grad"],
)  # fmt: skip
def _(data: Path):
    model = vision("mobilenet_v3_small")

    def train_step(model, optimizer, batch):
        images, labels = batch
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.zero_grad()
        optimizer.step()
        return loss.detach()

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    return suite(model, None, *cifar(data, side=64), train_step=train_step, optimizer=optimizer)


@planted(
    "small CNN, step before backward",
    kind="step before backward", part="training", causes=["TRN007"], mentions=["step", "backward"],
)  # fmt: skip
def _(data: Path):
    class Trainer:
        def __init__(self):
            self.model = SmallNet()
            self.optimizer = torch.optim.Adam(self.model.parameters(), lr=2e-3)
            self.criterion = nn.CrossEntropyLoss()

        def train_step(self, model, optimizer, batch):
            x, y = batch
            optimizer.zero_grad()
            loss = self.criterion(model(x), y)
            optimizer.step()
            loss.backward()
            return loss.item()

    trainer = Trainer()
    return suite(
        trainer.model, None, *cifar(data), train_step=trainer.train_step, optimizer=trainer.optimizer
    )


@planted(
    "shufflenet, the scheduler is stepped and the optimizer isn't",
    kind="step forgotten", part="training", causes=["TRN007"], mentions=["step"],
)  # fmt: skip
def _(data: Path):
    model = vision("shufflenet_v2_x0_5")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    scheduler = lr_scheduler.CosineAnnealingLR(optimizer, T_max=1000)

    def train_step(model, optimizer, batch):
        images, labels = batch
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        scheduler.step()
        return float(loss)

    return suite(model, None, *cifar(data, side=64), train_step=train_step, optimizer=optimizer)


@planted("MLP, the loss is made anew of a number", kind="loss made of a number", part="training",
         causes=["TRN002", "TRN007"])  # fmt: skip
def _(data: Path):
    model = mlp()

    def train_step(model, optimizer, batch):
        x, y = batch
        optimizer.zero_grad()
        total = 0.0
        for image, label in zip(x, y, strict=True):
            total += F.cross_entropy(model(image[None]), label[None]).item()
        loss = torch.tensor(total / len(x), requires_grad=True)
        loss.backward()
        optimizer.step()
        return loss

    return suite(
        model, None, *cifar(data), train_step=train_step, optimizer=torch.optim.Adam(model.parameters())
    )


@planted(
    "resnet18, gradients clipped to 1e-6",
    kind="clipping far too low", part="training", causes=["TRN007"], mentions=["clip"],
)  # fmt: skip
def _(data: Path):
    model = vision("resnet18")

    def train_step(model, optimizer, batch):
        images, labels = batch
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-6)
        optimizer.step()
        return loss

    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return suite(model, None, *cifar(data), train_step=train_step, optimizer=optimizer)


@planted(
    "autoencoder, gradient values clipped to a millionth",
    kind="clipping far too low", part="training", causes=["TRN007"], mentions=["clip"],
)  # fmt: skip
def _(data: Path):
    model = AutoEncoder()
    images, _ = cifar(data)

    def train_step(model, optimizer, batch):
        x, same = batch
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), same)
        loss.backward()
        for parameter in model.parameters():
            parameter.grad.clamp_(-1e-6, 1e-6)
        optimizer.step()
        return loss.item()

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return suite(model, None, images, images.clone(), train_step=train_step, optimizer=optimizer)


@planted("resnet18, four accumulated gradients aren't divided", kind="accumulation not divided",
         part="training", causes=["TRN007"])  # fmt: skip
def _(data: Path):
    model = vision("resnet18")
    accumulate = 4

    def train_step(model, optimizer, batch):
        images, labels = batch
        optimizer.zero_grad()
        for x, y in zip(images.chunk(accumulate), labels.chunk(accumulate), strict=True):
            loss = F.cross_entropy(model(x), y)
            loss.backward()
        optimizer.step()
        return loss

    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    return suite(model, None, *cifar(data), train_step=train_step, optimizer=optimizer)


@planted(
    "small CNN, scaled gradients are clipped before unscale_",
    kind="clipping before unscale_", part="training", causes=["TRN007"], mentions=["unscale"],
)  # fmt: skip
def _(data: Path):
    model = PlainNet()
    scaler = torch.amp.GradScaler("cpu")

    def train_step(model, optimizer, batch):
        images, labels = batch
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(model(images), labels)
        scaler.scale(loss).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        return loss

    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return suite(
        model, None, *cifar(data), train_step=train_step, optimizer=optimizer, scaler=scaler
    )  # fmt: skip


@planted("small CNN, the loss is that of the averaged copy", kind="loss of another model",
         part="training", causes=["TRN007", "TRN002"])  # fmt: skip
def _(data: Path):
    model = SmallNet()
    averaged = copy.deepcopy(model)

    def train_step(model, optimizer, batch):
        x, y = batch
        optimizer.zero_grad()
        loss = F.cross_entropy(averaged(x), y)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(averaged.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, 0.01)
        return loss.item()

    return suite(
        model, None, *cifar(data), train_step=train_step, optimizer=torch.optim.Adam(model.parameters())
    )


@planted("the step shuffles the images and not the labels", kind="labels shuffled against images",
         part="training", causes=["TRN001"])  # fmt: skip
def _(data: Path):
    model = vision("resnet18")

    def train_step(model, optimizer, batch):
        images, labels = batch
        images = images[torch.randperm(len(images))]
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    return suite(model, None, *cifar(data), train_step=train_step, optimizer=optimizer)


@planted("the scheduler that decays by epoch is stepped at each batch", kind="rate becomes 0",
         part="training", causes=["TRN004"])  # fmt: skip
def _(data: Path):
    model = PlainNet()

    def make_optimizer(model):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        optimizer.scheduler = lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.1)
        return optimizer

    def train_step(model, optimizer, batch):
        images, labels = batch
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.scheduler.step()
        return loss.item()

    return suite(model, None, *cifar(data), train_step=train_step, optimizer=make_optimizer)


# ------------------------------------------------------------------ what the optimizer holds


@planted(
    "resnet18, head replaced after the optimizer was made",
    kind="optimizer before the head", part="training", causes=["TRN003"], mentions=["fc"],
)  # fmt: skip
def _(data: Path):
    model = vision("resnet18", 1000)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    model.fc = nn.Linear(model.fc.in_features, 10)
    return suite(model, nn.CrossEntropyLoss(), *cifar(data), optimizer=optimizer)


@planted("squeezenet, weights drawn anew into new Parameters after the optimizer was made",
         kind="optimizer before the head", part="training", causes=["TRN003"])  # fmt: skip
def _(data: Path):
    model = vision("squeezenet1_1")
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight = nn.Parameter(nn.init.kaiming_normal_(torch.empty_like(module.weight)))
    return suite(model, nn.CrossEntropyLoss(), *cifar(data, side=64), optimizer=optimizer)


@planted("shufflenet, the optimizer holds the averaged copy", kind="optimizer of another model",
         part="training", causes=["TRN003"])  # fmt: skip
def _(data: Path):
    model = vision("shufflenet_v2_x0_5")
    averaged = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(averaged.parameters(), lr=1e-3)
    return suite(model, nn.CrossEntropyLoss(), *cifar(data, side=64), optimizer=optimizer)


@planted(
    "autoencoder, the optimizer is given the decoder alone",
    kind="part left out of the optimizer", part="training", causes=["TRN003"], mentions=["encoder"],
)  # fmt: skip
def _(data: Path):
    model = AutoEncoder()
    images, _ = cifar(data)

    def make_optimizer(model):
        return torch.optim.Adam(model.decoder.parameters())

    return suite(model, nn.MSELoss(), images, images.clone(), optimizer=make_optimizer)


@planted("convnext_atto, norms and biases in neither of two groups", kind="part left out of the optimizer",
         part="training", causes=["TRN003"])  # fmt: skip
def _(data: Path):
    model = timm_model("convnext_atto")

    def make_optimizer(model):
        named = dict(model.named_parameters())
        decayed = [value for name, value in named.items() if name.endswith("weight") and value.ndim > 1]
        plain = [value for name, value in named.items() if name.endswith("gamma")]
        return torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}], lr=1e-3
        )

    return suite(model, nn.CrossEntropyLoss(), *cifar(data, side=64), optimizer=make_optimizer)


# ------------------------------------------------------------------ what the optimizer does


@planted("resnet18, SGD with a rate of 20", kind="rate too high", part="training", causes=["TRN004"])
def _(data: Path):
    model = vision("resnet18")
    return suite(
        model, nn.CrossEntropyLoss(), *cifar(data),
        optimizer=torch.optim.SGD(model.parameters(), lr=20.0, momentum=0.9),
    )  # fmt: skip


@planted("ViT, Adam with the 0.1 of an SGD", kind="rate too high", part="training", causes=["TRN004"])
def _(data: Path):
    model = vit()
    return suite(
        model, nn.CrossEntropyLoss(label_smoothing=0.1), *cifar(data),
        optimizer=torch.optim.Adam(model.parameters(), lr=0.1),
    )  # fmt: skip


@planted("multi-label head on mobilenet, Adam at 1e-9", kind="rate too low", part="training",
         causes=["TRN004"])  # fmt: skip
def _(data: Path):
    model = vision("mobilenet_v3_small", 80)
    return suite(
        model, nn.BCEWithLogitsLoss(), *coco_classes(data),
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=1e-9),
    )  # fmt: skip


@planted("U-Net, SGD at 1e-7", kind="rate too low", part="training", causes=["TRN004"])
def _(data: Path):
    model = UNet()
    return suite(
        model, nn.CrossEntropyLoss(ignore_index=11), *streets(data),
        optimizer=torch.optim.SGD(model.parameters(), lr=1e-7, momentum=0.9),
    )  # fmt: skip


@planted("warm-up from 0 whose scheduler is never stepped", kind="rate is 0", part="training",
         causes=["TRN004"])  # fmt: skip
def _(data: Path):
    model = vit()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 500))
    return suite(model, nn.CrossEntropyLoss(), *cifar(data), optimizer=optimizer)


@planted("optimizer resumed from the end of a cosine schedule", kind="rate is 0", part="training",
         causes=["TRN004"])  # fmt: skip
def _(data: Path):
    import warnings

    model = SmallNet()
    before = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = lr_scheduler.CosineAnnealingLR(before, T_max=50)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(50):
            schedule.step()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    optimizer.load_state_dict(before.state_dict())
    return suite(model, nn.CrossEntropyLoss(), *cifar(data), optimizer=optimizer)


@planted(
    "plain CNN, Adam with a weight decay of 10",
    kind="weight decay far too high", part="training", causes=["TRN008"], mentions=["decay"],
)  # fmt: skip
def _(data: Path):
    model = PlainNet()
    return suite(
        model, nn.CrossEntropyLoss(), *cifar(data),
        optimizer=torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=10),
    )  # fmt: skip


@planted(
    "MLP, SGD with a weight decay of 5",
    kind="weight decay far too high", part="training", causes=["TRN008"], mentions=["decay"],
)  # fmt: skip
def _(data: Path):
    return suite(
        mlp(act=nn.GELU), nn.CrossEntropyLoss(), *cifar(data),
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5),
    )  # fmt: skip


@planted(
    "small CNN, SGD with a momentum of 1.05",
    kind="momentum above 1", part="training", causes=["TRN004"], mentions=["momentum"],
)  # fmt: skip
def _(data: Path):
    model = PlainNet()
    return suite(
        model, nn.CrossEntropyLoss(), *cifar(data),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.05, momentum=1.05),
    )  # fmt: skip


@planted(
    "squeezenet, the optimizer maximises the loss",
    kind="wrong sign", part="training", causes=["TRN004"], mentions=["maximize"],
)  # fmt: skip
def _(data: Path):
    model = vision("squeezenet1_1")
    return suite(
        model, nn.CrossEntropyLoss(), *cifar(data, side=64),
        optimizer=torch.optim.Adam(model.parameters(), lr=3e-4, maximize=True),
    )  # fmt: skip


@planted("range test: fine-tuning Lite0 at 1e-9", kind="rate too low", part="training", causes=["TRN030"])
def _(data: Path):
    from dataaudit import modelcheck

    model = lite0()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9, momentum=0.9)
    return modelcheck.rate_range(
        model, nn.CrossEntropyLoss(), *cifar(data, side=64), optimizer=optimizer, steps=60
    ).findings


@planted("range test: AdamW at 1 on a ViT", kind="rate too high", part="training", causes=["TRN030"])
def _(data: Path):
    from dataaudit import modelcheck

    model = vit()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)
    return modelcheck.rate_range(model, nn.CrossEntropyLoss(), *cifar(data), optimizer=optimizer).findings
