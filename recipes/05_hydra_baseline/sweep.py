"""What happens before the first and after the last job of a multirun."""

from typing import Any

import tracking
from data import load
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from dataaudit.errors import DataAuditError


class Versions(Callback):
    """Every version is looked for before one is trained on; in the end they are compared."""

    def __init__(self) -> None:
        self.settings: list[str] = []

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        chosen = choices(config)
        try:
            for path in chosen["data.path"]:
                for version in chosen["data.version"]:
                    for trusted in chosen["data.trusted"]:
                        load(path, version, trusted, config.data.validation)
        except DataAuditError as error:
            tracking.stop(error)

    def on_job_end(self, config: DictConfig, job_return: Any, **kwargs: Any) -> None:
        if isinstance(job_return._return_value, dict):
            self.settings.append(job_return._return_value["setting"])

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        if "mlflow" not in config.loggers:
            return
        from compare import report

        for setting in dict.fromkeys(self.settings):
            try:
                print(
                    report(config.tracking.uri, config.tracking.experiment, setting, config.hydra.sweep.dir)
                )
            except DataAuditError as error:
                print(f"dataaudit: {error}")


def choices(config: DictConfig) -> dict[str, list[Any]]:
    """The values of the settings that say which data is read, also where several are tried."""
    found: dict[str, list[Any]] = {}
    for name in ("data.path", "data.version", "data.trusted"):
        missing = OmegaConf.is_missing(config.data, name.removeprefix("data."))
        found[name] = [] if missing else [OmegaConf.select(config, name)]
    for override in OverridesParser.create().parse_overrides(list(config.hydra.overrides.task)):
        if override.key_or_group in found and override.is_sweep_override():
            found[override.key_or_group] = [str(value) for value in override.sweep_string_iterator()]
    for name in ("data.path", "data.version"):
        if not found[name]:
            tracking.stop(f"{name} isn't given. {tracking.EXAMPLE}")
    return found
