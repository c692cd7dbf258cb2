"""What several processes import: models, losses, wrappers, loaders and seeds."""

from __future__ import annotations

import random

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, RandomSampler, TensorDataset

from ._models import SmallNet, UNet, vision, vit


def normed() -> nn.Module:
    """A CNN with batch norm."""
    torch.manual_seed(0)
    return SmallNet()


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return vision("resnet18")


def grouped() -> nn.Module:
    """A ResNet with group norm."""
    torch.manual_seed(0)
    return vision("resnet18", norm_layer=lambda channels: nn.GroupNorm(8, channels))


def transformer() -> nn.Module:
    torch.manual_seed(0)
    return vit()


class Frozen(nn.Module):
    """Batch norm in eval mode for fine-tuning, whatever mode the model is in."""

    def __init__(self) -> None:
        super().__init__()
        self.model = normed()

    def train(self, mode: bool = True):
        super().train(mode)
        for layer in self.model.features:
            if isinstance(layer, nn.BatchNorm2d):
                layer.eval()
        return self

    def forward(self, x):
        return self.model(x)


def frozen() -> nn.Module:
    return Frozen().train()


class Auxiliary(nn.Module):
    """An auxiliary head that was left over."""

    def __init__(self) -> None:
        super().__init__()
        self.body = vit()
        self.aux_head = nn.Linear(96, 10)

    def forward(self, x):
        return self.body(x)


def auxiliary() -> nn.Module:
    torch.manual_seed(0)
    return Auxiliary()


class Centred(nn.Module):
    """Keeps a moving mean of its outputs in a buffer, as DINO's centre, in the first process only."""

    def __init__(self) -> None:
        super().__init__()
        self.body = vit()
        self.register_buffer("center", torch.zeros(10))

    def forward(self, x):
        out = self.body(x)
        if self.training and (not dist.is_initialized() or dist.get_rank() == 0):
            self.center.mul_(0.9).add_(out.detach().mean(0), alpha=0.1)
        return out


def centred() -> nn.Module:
    torch.manual_seed(0)
    return Centred()


class Embedding(nn.Module):
    """Features of unit length."""

    def __init__(self) -> None:
        super().__init__()
        self.body = vit(32)

    def forward(self, x):
        return nn.functional.normalize(self.body(x), dim=1)


def embedding() -> nn.Module:
    torch.manual_seed(0)
    return Embedding()


class Masks(nn.Module):
    """A U-Net with group norm."""

    def __init__(self) -> None:
        super().__init__()
        self.model = UNet()
        for block in self.model.children():
            for i, layer in enumerate(block.children()):
                if isinstance(layer, nn.BatchNorm2d):
                    block[i] = nn.GroupNorm(4, layer.num_features)

    def forward(self, x):
        return self.model(x)


def masks() -> nn.Module:
    torch.manual_seed(0)
    return Masks()


# ------------------------------------------------------------------ losses


def cross_entropy(outputs, labels):
    return nn.functional.cross_entropy(outputs, labels)


def summed(outputs, labels):
    return nn.functional.cross_entropy(outputs, labels, reduction="sum")


def without_void(outputs, labels):
    return nn.functional.cross_entropy(outputs, labels, ignore_index=11)


def contrastive(features, labels):
    """Images of the same class are near, all others of the batch are far."""
    similar = features @ features.T / 0.2
    apart = torch.eye(len(features), dtype=torch.bool)
    logs = similar.masked_fill(apart, -1e4).log_softmax(1)
    same = (labels[:, None] == labels) & ~apart
    return -(logs * same).sum(1).mean()


# ------------------------------------------------------------------ wrappers, loaders and seeds


def bare(model):
    """Somebody forgot DistributedDataParallel."""
    return model


def inner(model):
    """Wrapped, and then the model inside is what is trained."""
    return DistributedDataParallel(model).module


def own_buffers(model):
    return DistributedDataParallel(model, broadcast_buffers=False)


def dataset() -> TensorDataset:
    return TensorDataset(torch.arange(64).float()[:, None].repeat(1, 3), torch.arange(64) % 10)


def plain_loader(rank: int, world: int) -> DataLoader:
    """Each process goes over the whole dataset."""
    return DataLoader(dataset(), batch_size=8, sampler=RandomSampler(dataset()))


def without_epoch(rank: int, world: int) -> DataLoader:
    """Nobody calls set_epoch."""
    sampler = DistributedSampler(dataset(), world, rank, shuffle=True)
    return DataLoader(dataset(), batch_size=8, sampler=sampler)


class Epochs:
    """A loader that tells its sampler which epoch it is, at the start of each."""

    def __init__(self, rank: int, world: int) -> None:
        self.sampler = DistributedSampler(dataset(), world, rank, shuffle=True, drop_last=True)
        self.loader = DataLoader(dataset(), batch_size=8, sampler=self.sampler)
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self):
        self.sampler.set_epoch(self.epoch)
        self.epoch += 1
        return iter(self.loader)


def with_epoch(rank: int, world: int) -> Epochs:
    return Epochs(rank, world)


def same_seed(rank: int) -> None:
    """As in the script for one process."""
    random.seed(42)
    np.random.seed(42)
    torch.manual_seed(42)


def own_seed(rank: int) -> None:
    random.seed(42 + rank)
    np.random.seed(42 + rank)
    torch.manual_seed(42 + rank)
