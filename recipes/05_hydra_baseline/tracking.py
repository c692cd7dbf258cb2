"""Where runs are tracked, and which of them belong together."""

import hashlib
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dataaudit.errors import FormatError, MissingDependencyError

PREDICTIONS = "predictions.csv"
COMPLETE = "complete"
EXAMPLE = "Such as: python train.py -m data.path=photos/ data.version=v1,v2 seed=0,1,2"
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
    found = search(mlflow, experiment_id(mlflow, experiment), wanted)
    return found[0] if found else None


def search(mlflow: Any, experiment: str, wanted: str) -> list[Any]:
    """All runs that a filter finds, newest first, page by page.

    Raises:
        FormatError: MLflow can't read a run; the files that a kill cut off are named.
    """
    found: list[Any] = []
    token = None
    while True:
        try:
            page = mlflow.search_runs(
                [experiment], wanted, order_by=["attributes.start_time DESC"], page_token=token
            )
        except ValueError as error:
            empty = _cut_off(mlflow.tracking_uri, experiment)
            if not empty:
                raise
            raise FormatError(
                f"A run was killed while a metric was written, and MLflow can read none of the runs: {error}",
                where=empty[0],
                fix="Delete what is empty: rm " + " ".join(shlex.quote(str(file)) for file in empty),
            ) from error
        found += page
        token = page.token
        if not token:
            return found


def _cut_off(uri: str, experiment: str) -> list[Path]:
    """Empty files of metrics in MLflow's file store."""
    root = Path(uri.removeprefix("file://").removeprefix("file:")) / experiment
    return [
        file for file in sorted(root.glob("*/metrics/**/*")) if file.is_file() and not file.stat().st_size
    ]


def stop(message: object, code: int = 2) -> None:
    """End a job and the jobs after it with a sentence instead of a traceback."""
    print(f"dataaudit: {message}", file=sys.stderr)
    raise SystemExit(code)
