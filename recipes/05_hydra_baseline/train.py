"""Train a baseline on versions of a dataset and compare them on the same held-out images.

python train.py -m data.path=photos/ data.version=v1,v2 seed=0,1,2
"""

import logging
import warnings
from pathlib import Path
from typing import Any

import hydra
import pandas as pd
import pytorch_lightning as pl
import torch
import tracking
from data import Data, Pictures, load, unsaved
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from stopping import Stopping
from torch.nn import functional
from torch.utils.data import DataLoader

from dataaudit.errors import DataAuditError, InputError

log = logging.getLogger(__name__)


class Classifier(pl.LightningModule):
    """A network, cross-entropy, AdamW and a rate that falls as a cosine to zero."""

    def __init__(self, network: torch.nn.Module, config: DictConfig) -> None:
        super().__init__()
        self.network, self.config = network, config

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images)

    def _step(self, batch: Any, name: str) -> torch.Tensor:
        images, targets, _ = batch
        scores = self(images)
        smoothing = self.config.label_smoothing if name == "train" else 0.0
        loss = functional.cross_entropy(scores, targets, label_smoothing=smoothing)
        right = (scores.argmax(1) == targets).float().mean()
        logged = {f"{name}_loss": loss.detach(), f"{name}_accuracy": right}
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=len(targets))
        return loss

    def training_step(self, batch: Any, number: int) -> torch.Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: Any, number: int) -> None:
        self._step(batch, "val")

    def predict_step(self, batch: Any, number: int) -> torch.Tensor:
        return self(batch[0]).softmax(1)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.parameters(), lr=self.config.learning_rate, weight_decay=self.config.weight_decay
        )
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def loggers_of(config: DictConfig, folder: Path, tags: dict[str, str]) -> list[Any]:
    """The loggers that the configuration names.

    Raises:
        DataAuditError: MLflow is named and isn't installed.
    """
    from pytorch_lightning import loggers

    made: list[Any] = []
    if "csv" in config.loggers:
        made.append(loggers.CSVLogger(folder, name="csv", version=""))
    if "tensorboard" in config.loggers:
        made.append(
            loggers.TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False)
        )
    if "mlflow" in config.loggers:
        mlflow = tracking.client(config.tracking.uri)
        tracking.experiment_id(mlflow, config.tracking.experiment)
        made.append(
            loggers.MLFlowLogger(
                config.tracking.experiment, run_name=f"{tags['version']}-seed{config.seed}", tags=tags,
                tracking_uri=tracking.address(config.tracking.uri),
            )
        )  # fmt: skip
    return made


def callbacks_of(config: DictConfig, stopping: Stopping) -> list[Any]:
    """The rate is logged; dataaudit checks the first job before its first step, and watches all."""
    from pytorch_lightning.callbacks import LearningRateMonitor

    from dataaudit.modelcheck import SanityCheck

    made: list[Any] = [stopping, *([LearningRateMonitor("epoch")] if config.loggers else [])]
    if config.sanity:
        made.append(SanityCheck(sanity=is_first(), on_finding="warn" if is_first() else "ignore"))
    return made


def is_first() -> bool:
    """Whether this is the first job of a multirun, or the only one."""
    return not HydraConfig.get().job.get("num", 0)


def fit(
    config: DictConfig, data: Data, folder: Path, tags: dict[str, str], stopping: Stopping
) -> tuple[pl.Trainer, pd.DataFrame]:
    """Train a network and predict the held-out images: sample_id, digest, given, predicted, probability."""
    pl.seed_everything(config.seed, workers=True, verbose=False)
    size, batch = config.model.image_size, config.data.batch_size
    pictures = [
        Pictures(rows, data.classes, size, flip=flip and config.data.flip)
        for rows, flip in ((data.train, True), (data.validation, False), (data.test, False))
    ]
    train, validation, test = (
        DataLoader(each, batch, shuffle=each is pictures[0], num_workers=config.data.workers,
                   drop_last=each is pictures[0] and len(each) > batch)
        for each in pictures
    )  # fmt: skip
    network = hydra.utils.instantiate(config.model, n_classes=len(data.classes))
    module = Classifier(network, config)
    trainer = pl.Trainer(
        **config.trainer, max_epochs=config.epochs, default_root_dir=folder, num_sanity_val_steps=0,
        logger=loggers_of(config, folder, tags) or False, callbacks=callbacks_of(config, stopping),
    )  # fmt: skip
    for logger in trainer.loggers:
        logger.log_hyperparams({**flat(config), **data.record})
    trainer.fit(module, train, validation if len(pictures[1]) else None)
    scores = torch.cat(trainer.predict(module, test))
    probability, predicted = scores.max(1)
    rows = data.test[["sample_id", "digest"]].assign(
        given=data.test["name"], predicted=[data.classes[at] for at in predicted.tolist()],
        probability=probability.tolist(),
    )  # fmt: skip
    return trainer, rows


def flat(config: DictConfig) -> dict[str, Any]:
    """The configuration as ``data.batch_size: 32``."""
    plain = OmegaConf.to_container(config, resolve=True)
    return {str(column): row for column, row in pd.json_normalize(plain).iloc[0].items()}


def record(config: DictConfig, trainer: pl.Trainer, rows: pd.DataFrame, folder: Path) -> float:
    """Keep the predictions and the accuracy with the run; complete is said last."""
    accuracy = float((rows["given"] == rows["predicted"]).mean())
    rows.to_csv(folder / tracking.PREDICTIONS, index=False)
    for logger in trainer.loggers:
        logger.log_metrics({"test_accuracy": accuracy}, step=trainer.global_step)
        logger.save()
        if hasattr(logger, "run_id"):
            mlflow = logger.experiment
            mlflow.log_artifact(logger.run_id, str(folder / tracking.PREDICTIONS))
            mlflow.set_tag(logger.run_id, tracking.COMPLETE, "true")
            mlflow.set_terminated(logger.run_id, "FINISHED")
    return accuracy


def job(config: DictConfig, stopping: Stopping) -> dict[str, Any]:
    folder = Path(HydraConfig.get().runtime.output_dir)
    for name in ("path", "version"):
        if OmegaConf.is_missing(config.data, name):
            raise InputError(f"data.{name} isn't given.", fix=tracking.EXAMPLE)
    if is_first() and (n := unsaved(config.data.path)):
        what = "1 change is" if n == 1 else f"{n} changes are"
        log.warning("%s: %s in no version, and nothing trains on that.", config.data.path, what)
    data = load(config.data.path, str(config.data.version), config.data.trusted, config.data.validation)
    setting, key = tracking.settings_of(config, data.record)
    name = f"{data.record['version']}, seed {config.seed}"
    if config.reuse and "mlflow" in config.loggers:
        known = tracking.complete_run(tracking.client(config.tracking.uri), config.tracking.experiment, key)
        if known is not None:
            log.info("%s: trained before (run %s)", name, known.info.run_id)
            return {"setting": setting, "accuracy": known.data.metrics["test_accuracy"]}
    tags = {each: str(data.record[each]) for each in ("dataset", "version", "commit", "trusted", "dvc_md5")}
    tags |= {"setting": setting, "key": key, "seed": str(config.seed), "folder": str(folder)}
    stopping.check()
    trainer, rows = fit(config, data, folder, tags, stopping)
    accuracy = record(config, trainer, rows, folder)
    log.info("%s: %.1f %% of %d held-out images right", name, 100 * accuracy, len(rows))
    return {"setting": setting, "accuracy": accuracy}


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> dict[str, Any]:
    for words in ("does not have many workers", "LeafSpec", "smaller than the logging interval"):
        warnings.filterwarnings("ignore", f".*{words}.*")
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    try:
        with Stopping() as stopping:
            found = job(config, stopping)
            stopping.check()
            return found
    except DataAuditError as error:
        tracking.stop(error)
    except (KeyboardInterrupt, SystemExit):  # Lightning turns the first into the second
        tracking.stop("stopped. Complete runs are kept: the same command goes on with the rest.", 130)
    raise AssertionError


if __name__ == "__main__":
    main()
