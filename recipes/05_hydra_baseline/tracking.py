"""Where runs are tracked, and which of them belong together."""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dataaudit.errors import MissingDependencyError

PREDICTIONS = "predictions.csv"
COMPLETE = "complete"
_NO_SETTING = ("seed", "trainer", "sanity", "reuse", "loggers", "tracking")
_NO_SETTING_OF_DATA = ("path", "version", "trusted", "workers")


def settings_of(config: DictConfig, record: dict[str, Any]) -> tuple[str, str]:
    """The setting, which runs share that may be compared, and the key of this run among them.

    Returns:
        A hash of the configuration without version and seed, and one of setting, content and seed.
    """
    plain = OmegaConf.to_container(config, resolve=True)
    setting = {name: value for name, value in plain.items() if name not in _NO_SETTING}
    setting["data"] = {k: v for k, v in plain["data"].items() if k not in _NO_SETTING_OF_DATA}
    setting |= {name: record[name] for name in ("dataset", "trusted_commit")}
    shared = _hash(setting)
    return shared, _hash([shared, record["commit"], plain["seed"]])


def _hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True).encode()
    return hashlib.md5(text, usedforsecurity=False).hexdigest()[:10]


def address(uri: str | None) -> str:
    """The tracking URI: as given, as the environment says, or a folder here."""
    found = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"file:{Path.cwd() / 'mlruns'}"
    if found.startswith("file:") or "://" not in found:
        # MLflow 3 wants to be asked for its file store; the database one needs all of mlflow and SQLAlchemy
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    return found


def client(uri: str | None) -> Any:
    """A client of MLflow.

    Raises:
        MissingDependencyError: it isn't installed.
    """
    where = address(uri)
    try:
        from mlflow.tracking import MlflowClient
    except ImportError as error:
        raise MissingDependencyError(
            "Runs are compared from MLflow, which isn't installed.", fix="pip install 'dataaudit[hydra]'"
        ) from error
    return MlflowClient(tracking_uri=where)


def experiment_id(mlflow: Any, name: str) -> str:
    """Id of an experiment, which is made where it isn't there."""
    known = mlflow.get_experiment_by_name(name)
    return known.experiment_id if known is not None else mlflow.create_experiment(name)


def complete_run(mlflow: Any, experiment: str, key: str) -> Any | None:
    """The newest complete run of a key."""
    wanted = f"tags.key = '{key}' and tags.{COMPLETE} = 'true'"
    found = mlflow.search_runs([experiment_id(mlflow, experiment)], wanted, max_results=1)
    return found[0] if found else None


def stop(message: object, code: int = 2) -> None:
    """End a job and the jobs after it with a sentence instead of a traceback."""
    print(f"dataaudit: {message}", file=sys.stderr)
    raise SystemExit(code)
