"""Train with Lightning and a callback that checks the set-up; audit the labels with how each was learned.

    python recipes/06_lightning_callback.py photos/

`photos/` has a folder for each class. Copy `Images` and the line with `SanityCheck` into your own training.
"""

import sys

import pandas as pd
import pytorch_lightning as lightning
import torch
from torch.utils.data import DataLoader
from torchvision import datasets, models, transforms

import dataaudit as da
from dataaudit.modelcheck import SanityCheck


class Images(datasets.ImageFolder):
    """Images with their class and, third, their path: by that the callback and the audit know each sample."""

    def __getitem__(self, at):
        return *super().__getitem__(at), self.samples[at][0]


class Classifier(lightning.LightningModule):
    def __init__(self, n_classes):
        super().__init__()
        self.net = models.resnet18(num_classes=n_classes)

    def training_step(self, batch, batch_idx):
        images, given, _ = batch
        loss = torch.nn.functional.cross_entropy(self.net(images), given)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(images))
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-3)


def train_and_audit(folder: str, epochs: int) -> None:
    lightning.seed_everything(0)
    data = Images(folder, transforms.Compose([transforms.Resize((64, 64)), transforms.ToTensor()]))
    check = SanityCheck(root=folder)
    trainer = lightning.Trainer(max_epochs=epochs, accelerator="cpu", callbacks=[check], logger=False)
    trainer.fit(Classifier(len(data.classes)), DataLoader(data, 32, shuffle=True))

    # The same as: dataaudit audit photos/ --training-dynamics dataaudit/training_dynamics.parquet
    dynamics = pd.read_parquet(check.training_dynamics)
    found = da.audit(folder, training_dynamics=dynamics, select=["LBL001"], progress=False)
    for item in found.items[:10]:
        print(f"{item.sample_id}: {item.message}")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    train_and_audit(sys.argv[1], int(sys.argv[2]) if len(sys.argv) == 3 else 5)
