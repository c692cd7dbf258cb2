from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import tables_of, write_digits

import dataaudit as da
from dataaudit.cli import main
from dataaudit.errors import InputError, MissingDependencyError
from dataaudit.modelcheck import ModelReport, log_to_mlflow, log_to_tensorboard, tracking
from dataaudit.modelcheck.families import dep
from dataaudit.modelcheck.findings import finding
from dataaudit.modelcheck.reporting import Picture, Table

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc00000030101"
    "00c9fe92ef0000000049454e44ae426082"
)


def report() -> ModelReport:
    item = finding(
        next(rule for rule in vars(dep).values() if getattr(rule, "code", "") == "DEP001"), "model.onnx",
        "The largest difference is 0.25.", advice="Compare step by step.",
        evidence={"largest": 0.25, "flipped": 3, "note": "text", "nan": math.nan}, source="a.py:3",
    )  # fmt: skip
    table = Table(
        title="Differences", columns=("runtime", "largest", "p"),
        rows=(("onnx cpu/1", 0.25, 0.01), ("=script", 1e-6, math.inf)),
    )  # fmt: skip
    return ModelReport(
        name="m.py:make", command="parity", codes=("DEP001", "DEP002"), items=[item],
        parts=[table, Picture(title="Plot", png=PNG)], timings={"load": 0.5},
    )  # fmt: skip


NUMBERS = {
    "dataaudit/parity/findings": 1.0,
    "dataaudit/parity/DEP001/findings": 1.0,
    "dataaudit/parity/DEP002/findings": 0.0,
    "dataaudit/parity/DEP001/largest": 0.25,
    "dataaudit/parity/DEP001/flipped": 3.0,
    "dataaudit/parity/differences/onnx cpu_1/largest": 0.25,
    "dataaudit/parity/differences/onnx cpu_1/p": 0.01,
    "dataaudit/parity/differences/_script/largest": 1e-6,
    "dataaudit/parity/seconds/load": 0.5,
}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    return (tmp_path / "mlruns").as_uri()


def read_run(store: str, run_id: str) -> tuple[dict[str, float], dict[str, str], dict[str, Path]]:
    """Metrics, tags and artifacts of a run, from the files."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=store)
    run = client.get_run(run_id)
    root = Path(client.download_artifacts(run_id, ""))
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    return run.data.metrics, run.data.tags, files


def read_events(folder: Path) -> tuple[dict[str, float], dict[str, str], list[str]]:
    """Scalars, texts and names of images in event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    tags: Any = events.Tags()
    texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in tags["tensors"]}
    return {tag: events.Scalars(tag)[0].value for tag in tags["scalars"]}, texts, tags["images"]


def test_a_report_is_a_run_of_mlflow_with_metrics_tags_and_files(store: str) -> None:
    run = log_to_mlflow(report(), tracking_uri=store)
    metrics, tags, files = read_run(store, run)
    assert metrics == NUMBERS
    assert tags["dataaudit.parity.codes"] == "DEP001"
    assert tags["dataaudit.parity.estimate"] == "1 finding about model.onnx."
    assert sorted(files) == [
        "dataaudit/parity/differences.csv", "dataaudit/parity/findings.md",
        "dataaudit/parity/model-parity.html", "dataaudit/parity/model-parity.json",
        "dataaudit/parity/plot.png",
    ]  # fmt: skip
    assert files["dataaudit/parity/differences.csv"].read_text() == (
        "runtime,largest,p\nonnx cpu/1,0.25,0.01\n'=script,1e-06,inf\n"
    )
    text = files["dataaudit/parity/findings.md"].read_text()
    assert "### DEP001 model.onnx\n\n`a.py:3`\n\nThe largest difference is 0.25.\n\n**Change:**" in text


def test_a_run_that_is_active_or_named_is_added_to(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    mlflow.set_tracking_uri(store)
    try:
        with mlflow.start_run() as active:
            assert log_to_mlflow(report()) == active.info.run_id
        assert log_to_mlflow(report(), active.info.run_id, store) == active.info.run_id
        monkeypatch.setenv("MLFLOW_RUN_ID", active.info.run_id)
        assert log_to_mlflow(report(), tracking_uri=store) == active.info.run_id
    finally:
        mlflow.set_tracking_uri(None)


def test_mlflow_that_refuses_says_why(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"MLflow refuses: .*0123"):
        log_to_mlflow(report(), "0123", store)
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    with pytest.raises(InputError, match="MLFLOW_ALLOW_FILE_STORE=true"):
        log_to_mlflow(report(), tracking_uri=f"{store}-2")


def test_a_report_is_scalars_texts_and_images_of_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    log_to_tensorboard(report(), tmp_path)
    scalars, texts, images = read_events(tmp_path)
    assert scalars == pytest.approx(NUMBERS)
    assert texts["dataaudit/parity/findings/text_summary"].startswith("## dataaudit: m.py:make")
    assert (
        texts["dataaudit/parity/differences/text_summary"].splitlines()[2] == "| onnx cpu/1 | 0.25 | 0.01 |"
    )
    assert images == ["dataaudit/parity/plot"]


def test_a_writer_of_ones_own_stays_open(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(str(tmp_path))  # type: ignore[no-untyped-call]
    log_to_tensorboard(report(), writer, step=3)
    writer.add_scalar("own", 1.0)
    writer.close()
    assert read_events(tmp_path)[0]["own"] == 1.0
    with pytest.raises(InputError, match="The target is a int; expected a folder or a SummaryWriter"):
        log_to_tensorboard(report(), 3)


def test_an_audit_is_logged_with_its_counts_and_estimate(tmp_path: Path, store: str) -> None:
    pytest.importorskip("tensorboard")
    folder = tmp_path / "digits"
    files, _ = write_digits(folder, 60)
    tables = tables_of(folder, files, [file.split("/")[0] for file in files])
    audited = da.audit(tables, progress=False, select=["IMG", "DUP"], cache=None)
    metrics, tags, written = read_run(store, log_to_mlflow(audited, tracking_uri=store))
    assert metrics["dataaudit/audit/images"] == 60
    assert metrics["dataaudit/audit/classes"] == 10
    assert metrics["dataaudit/audit/DUP001/findings"] == len(audited.items)
    assert tags["dataaudit.audit.digest"] == audited.digest
    assert {"dataaudit/audit/report.html", "dataaudit/audit/findings.csv"} <= set(written)
    log_to_tensorboard(audited, tmp_path / "events")
    assert read_events(tmp_path / "events")[0]["dataaudit/audit/images"] == 60


def test_commands_log_where_they_are_told_to(
    tmp_path: Path, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    file = tmp_path / "metrics.csv"
    epochs = np.arange(20)
    rows = "\n".join(f"{at},{1 / (at + 1):.4f},{1 / (at + 1):.4f}" for at in epochs)
    file.write_text(f"epoch,train_loss,val_loss\n{rows}\n")
    main([
        "model", "curves", str(file), "--exit-zero", "--log-to", f"mlflow:{store}",
        "--log-to", f"tensorboard:{tmp_path / 'events'}",
    ])  # fmt: skip
    said = capsys.readouterr().err
    run = said.split("Logged: MLflow run ")[1].split()[0]
    assert "dataaudit/curves/findings" in read_run(store, run)[0]
    assert "dataaudit/curves/findings" in read_events(tmp_path / "events")[0]


@pytest.mark.parametrize("text", ["wandb", "tensorboard", "tensorboard:", ""])
def test_other_places_are_refused_before_anything_runs(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["model", "curves", "none.csv", "--log-to", text])
    assert stopped.value.code == 2
    assert "expected mlflow, mlflow:URI or tensorboard:FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["mlflow", "tensorboard"])
def test_a_package_that_is_missing_is_named_with_the_command(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=rf"pip install 'dataaudit\[{package}\]'"):
        tracking.log_to(report(), f"{package}:{tmp_path / 'runs'}")


def test_nothing_of_it_is_imported_unless_used() -> None:
    script = (
        "import sys\nimport dataaudit.modelcheck\nfrom dataaudit.modelcheck import tracking, SanityCheck\n"
        "heavy = {'mlflow', 'tensorboard', 'torch', 'pytorch_lightning', 'lightning'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
