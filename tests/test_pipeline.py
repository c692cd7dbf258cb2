from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from detections import scenes
from pictures import tables_of, write_digits
from PIL import Image

from dataaudit import formats, registry, state
from dataaudit.errors import DataAuditError, InputError
from dataaudit.pipeline import audit, digest_of, embed
from dataaudit.registry import check, checks
from dataaudit.signals.backbones import Backbone, user_backbone
from dataaudit.types import Outcome, Report, Tables


@pytest.fixture(scope="module")
def pixels() -> Backbone:
    """The grey values of an 8 x 8 thumbnail as a backbone of the user."""
    from torch import nn

    return user_backbone(
        nn.Flatten(), lambda image: np.asarray(image.convert("L").resize((8, 8)), dtype=np.float32)
    )


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory, pixels: Backbone) -> tuple[Path, Report]:
    """150 digits, of which five have a wrong label, one is there twice and one is broken; and their audit."""
    root = tmp_path_factory.mktemp("planted") / "digits"
    files, _ = write_digits(root, 150)
    for file in files[10:15]:
        wrong = root / str((int(file[0]) + 1) % 10) / f"wrong{file[2:]}"
        (root / file).rename(wrong)
    shutil.copy(root / files[20], root / files[20].replace(".png", "-again.png"))
    (root / "0" / "broken.png").write_bytes(b"")
    return root, audit(root, backbone=pixels, progress=False)


@pytest.fixture
def folder(planted: tuple[Path, Report], tmp_path: Path) -> Path:
    """A copy of the planted folder, with its cache, that a test may change."""
    root = planted[0]
    shutil.copytree(root.parent, tmp_path / "copy")
    return tmp_path / "copy" / root.name


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Checks declared in a test are forgotten after it."""
    registry.checks()
    monkeypatch.setattr(registry, "_checks", dict(registry._checks))
    yield


def keys_of(report: Report) -> list[str]:
    return [finding.key for finding in report.items]


def test_an_audit_finds_what_was_planted(planted: tuple[Path, Report]) -> None:
    _, report = planted
    found = report.findings.groupby("code")["item_id"].agg(list)
    assert found["IMG001"] == ["0/broken.png"]
    assert len(found["DUP001"]) == 1
    assert sum("wrong" in item for item in found["LBL001"]) >= 4
    assert report.tables.images["digest"].notna().all()
    assert repr(report).startswith("Report(152 images, findings: DUP001 1,")


def test_a_check_that_cannot_run_is_skipped_with_its_reason(planted: tuple[Path, Report]) -> None:
    assert planted[1].skipped["SPL001"] == "the dataset has no splits"
    assert planted[1].skipped["LBL003"] == "each image has one label at most, not a set of them"
    assert {"DUP001", "DUP002", "IMG001", "LBL001", "LBL002"} <= set(planted[1].outcomes)


def test_tables_made_by_hand_give_the_same_audit(planted: tuple[Path, Report], pixels: Backbone) -> None:
    root, report = planted
    read = formats.read(root)
    by_hand = tables_of(root, list(read.images.index), [i.split("/")[0] for i in read.images.index])
    again = audit(by_hand, backbone=pixels, progress=False)
    assert again.digest == report.digest
    assert keys_of(again) == keys_of(report)
    pd.testing.assert_frame_equal(again.findings, report.findings)


def test_an_audit_again_decodes_nothing_and_finds_the_same(folder: Path, pixels: Backbone) -> None:
    first = audit(folder, backbone=pixels, progress=False)
    again = audit(folder, backbone=pixels, progress=False)
    assert again.n_decoded == 0
    assert keys_of(again) == keys_of(first)
    assert again.digest == first.digest
    uncached = audit(folder, backbone=pixels, progress=False, cache=folder.parent / "other")
    assert uncached.n_decoded == 151
    pd.testing.assert_frame_equal(uncached.findings, again.findings)


def test_moved_files_cost_no_decode_and_count_under_their_new_label(folder: Path, pixels: Backbone) -> None:
    before = audit(folder, backbone=pixels, progress=False)
    wrong = [finding for finding in before.items if finding.code == "LBL001" and "wrong" in finding.item_id][
        :3
    ]
    for finding in wrong:
        (folder / finding.item_id).rename(folder / str(finding.suggested) / Path(finding.item_id).name)
    after = audit(folder, backbone=pixels, progress=False)
    assert after.n_decoded == 0
    assert after.digest != before.digest
    left = {Path(finding.item_id).name for finding in after.items if finding.code == "LBL001"}
    assert not left & {Path(finding.item_id).name for finding in wrong}


def test_the_digest_sees_labels_and_splits_but_not_places(tmp_path: Path) -> None:
    tables = tables_of(tmp_path, ["a.png", "b.png"], ["x", "y"])
    tables = replace(tables, images=tables.images.assign(digest=["1", "2"]))
    moved = tables_of(tmp_path / "else", ["z.png", "c.png"], ["y", "x"])
    moved = replace(moved, images=moved.images.assign(digest=["2", "1"]))
    assert digest_of(moved) == digest_of(tables)
    assert digest_of(replace(tables, labels=tables.labels.assign(name=["y", "y"]))) != digest_of(tables)
    assert digest_of(replace(tables, labels=tables.labels.assign(name=[None, "y"]))) != digest_of(tables)
    assert digest_of(replace(tables, images=tables.images.assign(split=["train", None]))) != digest_of(tables)
    assert digest_of(replace(tables, images=tables.images.assign(digest=["1", "3"]))) != digest_of(tables)


def test_checks_are_selected_and_the_report_says_so(folder: Path) -> None:
    report = audit(folder, select="IMG", progress=False)
    assert set(report.outcomes) == {code for code in checks() if code.startswith("IMG")}
    assert report.params["select"] == ["IMG"]
    json.dumps(report.params)


def test_a_check_of_the_files_alone_loads_no_network(folder: Path) -> None:
    script = (
        "import sys; from dataaudit.pipeline import audit; from pathlib import Path\n"
        "report = audit(sys.argv[1], select=['IMG', 'DUP001'], progress=False, cache=Path(sys.argv[2]))\n"
        "print(len(report.outcomes) > 2, *({'torch', 'openvino', 'cleanlab', 'fiftyone'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script, str(folder), str(folder.parent / "empty")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["True"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"select": ["LBL099"]}, "No check's code begins with 'LBL099'. Did you mean 'LBL00"),
        (
            {"settings": {"LBL01": {}}},
            "settings for 'LBL01', which is neither a check nor a signal. Did you mean 'LBL0",
        ),
        (
            {"settings": {"neighbors": {"n_neighbor": 3}}},
            "neighbors has no setting 'n_neighbor'. Did you mean 'n_ne",
        ),
        ({"settings": {"LBL001": {"max_findings": "9"}}}, "max_findings = '9' is a str; expected a int"),
        ({"backbone": "resnt50"}, "No backbone is called 'resnt50'. Did you mean 'resnet50'?"),
    ],
)
def test_unknown_names_are_errors_that_name_the_nearest(
    folder: Path, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError) as caught:
        audit(folder, progress=False, **arguments)
    assert message in str(caught.value)


def test_settings_reach_checks_and_signals(folder: Path, pixels: Backbone) -> None:
    settings = {"LBL001": {"max_findings": 2}, "neighbors": {"n_neighbors": 5}}
    report = audit(folder, backbone=pixels, settings=settings, progress=False)
    assert report.outcomes["LBL001"].flagged.sum() == 2
    assert report.params["settings"]["neighbors"]["n_neighbors"] == 5


@pytest.mark.usefixtures("sandbox")
def test_a_check_that_fails_fails_the_audit_with_its_code(folder: Path) -> None:
    @check("XYZ001", level="image")
    def broken(images: pd.DataFrame) -> Outcome:
        """Broken."""
        raise ZeroDivisionError("by zero")

    @check("XYZ002", level="image")
    def out_of_range(images: pd.DataFrame) -> Outcome:
        """Out of range."""
        return Outcome(score=pd.Series(2.0, index=images.index), flagged=pd.Series(True, index=images.index))

    with pytest.raises(DataAuditError, match="XYZ001 broken failed: ZeroDivisionError: by zero") as caught:
        audit(folder, select=["XYZ001"], progress=False)
    assert "--ignore XYZ001" in str(caught.value)
    with pytest.raises(
        DataAuditError, match=r"XYZ002 out_of_range failed: InputError: Outcome.score reaches"
    ):
        audit(folder, select=["XYZ002"], progress=False)


def small(tmp_path: Path) -> Tables:
    names = []
    for number, name in enumerate(("b", "a", "a", "b", "a", "b")):
        file = f"{number}.png"
        Image.new("RGB", (16, 16), (number * 40, 10, 200 - number * 30)).save(tmp_path / file)
        names.append(name)
    return tables_of(tmp_path, [f"{number}.png" for number in range(6)], names)


GIVEN = [[0.1, 0.9], [0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.8, 0.2], [0.2, 0.8]]


@pytest.mark.parametrize("kind", ["array", "table", "shuffled table", "table with more rows"])
def test_the_users_probabilities_take_the_place_of_the_baseline(tmp_path: Path, kind: str) -> None:
    tables = small(tmp_path)
    table = pd.DataFrame(GIVEN, index=tables.images.index, columns=["a", "b"])
    values = {
        "array": np.array(GIVEN),
        "table": table,
        "shuffled table": table.iloc[::-1, ::-1],
        "table with more rows": pd.concat(
            [table, pd.DataFrame([[0.5, 0.5]], index=["other"], columns=["a", "b"])]
        ),
    }[kind]
    report = audit(tables, select=["LBL001"], pred_probs=values, progress=False)
    score = report.outcomes["LBL001"].score
    assert score.idxmin() == "3.png"
    assert score["0.png"] == score["2.png"] > score["4.png"] > 0.5 > score["3.png"]
    assert report.params["given"] == ["pred_probs"]


def changed(row: int, values: list[float]) -> np.ndarray:
    array = np.array(GIVEN)
    array[row] = values
    return array


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            np.zeros((5, 2)),
            r"pred_probs has the shape (5, 2); expected (6, 2): one row for each labeled sample",
        ),
        (np.zeros(6), "pred_probs has the shape (6,); expected (6, 2)"),
        (changed(2, [0.9, 0.2]), "The row of '2.png' in pred_probs sums to 1.1"),
        (changed(3, [1.5, -0.5]), "with a least value of -0.5; expected probabilities that sum to 1"),
        (changed(1, [np.nan, 1]), "The row of '1.png' in pred_probs sums to nan"),
        (
            pd.DataFrame(GIVEN, columns=["a", "c"]),
            "The columns of pred_probs are not the dataset's classes: ['c']",
        ),
        (pd.DataFrame([[1.0]] * 6, columns=["a"]), "['b'] are missing; the classes are ['a', 'b']"),
        (pd.DataFrame(GIVEN, columns=["a", "b"]), "No row of pred_probs has the id of a labeled sample"),
        (pd.DataFrame(GIVEN, columns=["a", "a"]), "pred_probs has the column 'a' more than once"),
        (
            pd.DataFrame(GIVEN, index=["0.png"] * 6, columns=["a", "b"]),
            "pred_probs has the row '0.png' more than once",
        ),
        (
            pd.DataFrame([["x", "y"]], index=["0.png"], columns=["a", "b"]),
            "pred_probs holds something that is no number",
        ),
    ],
)
def test_probabilities_that_do_not_fit_are_errors(tmp_path: Path, values: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        audit(small(tmp_path), select=["LBL001"], pred_probs=values, progress=False)
    assert message in str(caught.value)


@pytest.mark.parametrize("names", [["a", "b", "a"], ["a", "a", "a"], [None, None, None], ["a", "b", "c"]])
def test_three_images_are_audited_whatever_their_labels(
    tmp_path: Path, pixels: Backbone, names: list[str | None]
) -> None:
    tables = small(tmp_path)
    tables = tables_of(tmp_path, list(tables.images.index[:3]), names)
    report = audit(tables, backbone=pixels, progress=False)
    assert {*report.outcomes, *report.skipped} == set(registry.checks())


def test_identical_images_are_audited(tmp_path: Path, pixels: Backbone) -> None:
    for number in range(12):
        Image.new("RGB", (16, 16), (9, 9, 9)).save(tmp_path / f"{number:02d}.png")
    tables = tables_of(tmp_path, [f"{number:02d}.png" for number in range(12)], ["a", "b", "b"] * 4)
    report = audit(tables, backbone=pixels, progress=False)
    assert report.outcomes["DUP001"].flagged.sum() == 11
    assert report.outcomes["LBL002"].flagged.sum() == 4
    assert "no class has two different images" in report.skipped["LBL001"]


def test_without_an_image_that_decodes_the_checks_of_pictures_are_skipped(
    tmp_path: Path, pixels: Backbone
) -> None:
    (tmp_path / "a.png").write_bytes(b"text")
    report = audit(tables_of(tmp_path, ["a.png", "b.png"], ["x", "y"]), backbone=pixels, progress=False)
    assert report.outcomes["IMG001"].flagged.all()
    assert report.skipped["LBL001"] == "no image can be decoded"


def test_an_empty_dataset_is_audited(tmp_path: Path, pixels: Backbone) -> None:
    report = audit(tables_of(tmp_path, [], []), backbone=pixels, progress=False)
    assert report.items == ()


def test_embeddings_are_in_the_order_of_the_images(planted: tuple[Path, Report], pixels: Backbone) -> None:
    tables = formats.read(planted[0])
    found = embed(tables, backbone=pixels, progress=False)
    assert list(found.index) == [i for i in tables.images.index if i != "0/broken.png"]


def test_several_networks_side_by_side_are_asked_each(folder: Path, pixels: Backbone) -> None:
    def twice(image: Image.Image) -> np.ndarray:
        array = pixels.preprocess(image)
        return np.concatenate([array.ravel(), array[::-1, :4].ravel()])

    halves = replace(pixels, name="halves", preprocess=twice, blocks={"whole": 64, "left": 32})
    report = audit(folder, select=["LBL001"], backbone=halves, progress=False)
    assert {"other_networks", "pred_probs"} <= set(report.timings)
    found = embed(report.tables, backbone=halves, progress=False)
    assert found.columns.get_level_values("network").value_counts().to_dict() == {"whole": 64, "left": 32}
    again = audit(folder, select=["LBL001"], backbone=halves, progress=False)
    assert keys_of(again) == keys_of(report)
    assert sum(finding.sample_id.split("/")[1][:5] == "wrong" for finding in report.items) >= 4


def test_a_state_that_cannot_be_kept_is_an_error_that_names_the_folder(folder: Path) -> None:
    source = formats.read(folder).source
    assert source is not None
    shutil.rmtree(source.anchor / state.FOLDER)
    (source.anchor / state.FOLDER).write_text("in the way")
    with pytest.raises(InputError, match="The state of the dataset can't be kept"):
        audit(folder, select=["IMG"], progress=False)


def test_the_default_backbone_finds_a_wrong_label_and_starts_fast_the_second_time(digit_folder: Path) -> None:
    report = audit(digit_folder, progress=False)
    assert report.params["backbone"] == "efficientnet_lite0"
    assert len(report.outcomes["LBL001"].score) == 120
    assert audit(digit_folder, progress=False).n_decoded == 0


def test_tables_of_an_earlier_report_are_read_again_where_a_file_has_changed(
    folder: Path, pixels: Backbone
) -> None:
    report = audit(folder, backbone=pixels, progress=False)
    changed = report.tables.images.index[0]
    (folder / changed).write_bytes(b"")
    again = audit(report.tables, backbone=pixels, progress=False)
    assert changed in [item.sample_id for item in again.items if item.code == "IMG001"]


def test_a_cache_may_be_named_by_a_text(
    planted: tuple[Path, Report], pixels: Backbone, tmp_path: Path
) -> None:
    folder = tmp_path / "elsewhere"
    audit(planted[0], select=("DUP001",), cache=str(folder), backbone=pixels, progress=False)
    assert any(folder.iterdir())


def test_a_network_for_whole_images_doesnt_judge_objects() -> None:
    with pytest.raises(InputError, match="judges the classes of whole images, and these have objects"):
        audit(scenes(3), baseline="finetune", progress=False)
