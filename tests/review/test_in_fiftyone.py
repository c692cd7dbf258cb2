"""Findings in FiftyOne: what `push` writes and `clean` takes away."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from databases import fiftyone
from pictures import write_digits

import dataaudit as da
from dataaudit import formats, state
from dataaudit.errors import InputError
from dataaudit.review import in_fiftyone


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 digits, six under a wrong class and two there twice; read only."""
    folder = tmp_path_factory.mktemp("review") / "photos"
    write_digits(folder, 150)
    for number in range(0, 60, 10):
        file = next(folder.glob(f"*/{number:04d}.png"))
        file.rename(folder / str((int(file.parent.name) + 3) % 10) / file.name)
    for number in (71, 72):
        file = next(folder.glob(f"*/{number:04d}.png"))
        shutil.copy(file, file.with_name(f"copy-{number}.png"))
    return folder


@pytest.fixture(scope="module")
def report(photos: Path) -> da.Report:
    return da.audit(photos, progress=False)


@pytest.fixture
def dataset(photos: Path, request: pytest.FixtureRequest) -> Any:
    """The folder in FiftyOne, with a tag and a field of a person's own."""
    fiftyone()
    loaded = da.load(photos, name=request.node.name)
    loaded.limit(3).tag_samples("mine")
    loaded.set_values("note", list(range(len(loaded))))
    return loaded


def state_of(dataset: Any) -> dict[str, Any]:
    """All that a push could have changed."""
    dataset.reload()
    fields = [name for name in dataset.get_field_schema() if name != "last_modified_at"]
    return {
        "schema": list(dataset.get_field_schema()),
        "values": {name: list(map(str, dataset.values(name))) for name in fields},
        "views": dataset.list_saved_views(),
        "info": dict(dataset.info),
    }


def of(report: da.Report, code: str) -> list[Any]:
    return [item for item in report.items if item.code == code]


def test_scores_chances_and_suggestions_are_fields(report: da.Report, dataset: Any) -> None:
    da.push(report, dataset=dataset)
    worst = of(report, "LBL001")[0]
    sample = dataset.match({"dataaudit_id": worst.sample_id}).first()
    assert sample["LBL001_score"] == pytest.approx(worst.score, abs=1e-4)
    assert sample["LBL001_probability"] == pytest.approx(worst.probability, abs=1e-4)
    assert sample["LBL001_suggested"].label == worst.suggested
    assert sample["ground_truth"].label == worst.given


def test_duplicates_of_each_other_share_a_group(report: da.Report, dataset: Any) -> None:
    da.push(report, dataset=dataset)
    copies = dataset.match(fiftyone().ViewField("filepath").contains_str("copy-71"))
    group = copies.first()["DUP001_group"]
    assert dataset.match({"DUP001_group": group}).count() == 2


def test_flagged_samples_are_tagged_by_code(report: da.Report, dataset: Any) -> None:
    da.push(report, dataset=dataset)
    for code in ("LBL001", "DUP001"):
        expected = {item.sample_id for item in of(report, code)}
        assert expected
        assert set(dataset.match_tags(code).values("dataaudit_id")) == expected


def test_each_code_with_findings_has_a_saved_view_worst_first(report: da.Report, dataset: Any) -> None:
    da.push(report, dataset=dataset)
    names = {"LBL001": "LBL001 label_error", "DUP001": "DUP001 exact_duplicate"}
    assert set(names.values()) <= set(dataset.list_saved_views())
    assert {name[:6] for name in dataset.list_saved_views()} == {item.code for item in report.items}
    view = dataset.load_saved_view(names["LBL001"])
    scores = view.values("LBL001_score")
    assert len(scores) == len(of(report, "LBL001")) > 1
    assert scores == sorted(scores)
    assert view.first().dataaudit_id == of(report, "LBL001")[0].sample_id


def test_the_summary_is_in_the_info(report: da.Report, dataset: Any) -> None:
    da.push(report, dataset=dataset)
    summary = dataset.info["dataaudit"]["report"]
    assert summary["digest"] == report.digest
    assert summary["images"] == 152
    assert summary["findings"]["LBL001"] == len(of(report, "LBL001"))
    assert summary["skipped"] == report.skipped


def test_what_is_about_the_dataset_is_in_the_info(report: da.Report, dataset: Any) -> None:
    about = da.Finding(
        key="k", code="GRP002", item_id="file format", sample_id=None, score=0.0, probability=None,
        message="From the file format alone, '1' can be told.",
    )  # fmt: skip
    da.push(replace(report, items=(*report.items, about)), dataset=dataset)
    general = dataset.info["dataaudit"]["report"]["general"]
    assert {"code": "GRP002", "item": "file format", "message": about.message} in general
    assert not dataset.has_saved_view("GRP002 spurious_cue")


def test_pushing_twice_changes_nothing(report: da.Report, dataset: Any) -> None:
    da.push(report, dataset=dataset)
    once = state_of(dataset)
    da.push(report, dataset=dataset)
    assert state_of(dataset) == once


def test_a_later_report_takes_the_place_of_an_earlier_one(
    photos: Path, report: da.Report, dataset: Any
) -> None:
    da.push(report, dataset=dataset)
    da.push(da.audit(photos, select=["DUP001"], progress=False), dataset=dataset)
    assert dataset.list_saved_views() == ["DUP001 exact_duplicate"]
    assert set(dataset.count_sample_tags()) == {"mine", "DUP001"}
    assert not [name for name in dataset.get_field_schema() if name.startswith("LBL")]


def test_cleaning_leaves_everything_as_it_was_before_the_first_push(report: da.Report, dataset: Any) -> None:
    before = state_of(dataset)
    da.push(report, dataset=dataset)
    assert state_of(dataset) != before
    da.clean(dataset)
    assert state_of(dataset) == before
    da.clean(dataset)
    assert state_of(dataset) == before


def test_what_a_person_changed_after_the_push_survives_the_cleaning(report: da.Report, dataset: Any) -> None:
    da.push(report, dataset=dataset)
    dataset.limit(5).tag_samples("later")
    dataset.save_view("my view", dataset.match_tags("later"))
    da.clean(dataset)
    assert dataset.count_sample_tags() == {"mine": 3, "later": 5}
    assert dataset.list_saved_views() == ["my view"]
    assert dataset.values("note") == list(range(152))


def test_what_an_interrupted_push_leaves_is_taken_away(
    report: da.Report, dataset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state_of(dataset)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(in_fiftyone, "_write_views", interrupt)
    with pytest.raises(KeyboardInterrupt):
        da.push(report, dataset=dataset)
    assert state_of(dataset)["schema"] != before["schema"]
    da.clean(dataset)
    assert state_of(dataset) == before


def test_a_dataset_of_fiftyone_alone_is_audited_pushed_to_and_cleaned(photos: Path) -> None:
    fo = fiftyone()
    theirs = fo.Dataset.from_dir(
        str(photos),
        dataset_type=fo.types.ImageClassificationDirectoryTree,
        label_field="digit",
        progress=False,
    )
    before = state_of(theirs)
    report = da.audit(theirs, progress=False)
    assert da.push(report).name == theirs.name
    theirs.reload()
    found = theirs.load_saved_view("LBL001 label_error")
    assert found.values("id") == [item.sample_id for item in of(report, "LBL001")]
    again = da.audit(theirs, progress=False)
    assert again.items == report.items
    da.clean(theirs)
    assert state_of(theirs) == before
    theirs.delete()


def test_it_finds_in_fiftyone_what_it_finds_in_the_folder(photos: Path, report: da.Report) -> None:
    fo = fiftyone()
    theirs = fo.Dataset.from_dir(
        str(photos),
        dataset_type=fo.types.ImageClassificationDirectoryTree,
        label_field="digit",
        progress=False,
    )
    paths = dict(zip(theirs.values("id"), theirs.values("filepath"), strict=True))
    found = da.audit(theirs, progress=False)
    by_path = {(item.code, str(Path(paths[item.sample_id]).relative_to(photos))) for item in found.items}
    in_both = {"LBL001", "DUP001", "LBL002"}
    assert {each for each in by_path if each[0] in in_both - {"DUP001"}} == {
        (item.code, item.sample_id) for item in report.items if item.code in in_both - {"DUP001"}
    }
    theirs.delete()


def test_without_a_dataset_the_findings_go_where_the_files_are_loaded(
    photos: Path, report: da.Report
) -> None:
    fiftyone()
    assert da.push(report).name == da.load(photos).name


def test_a_dataset_of_other_samples_is_refused_and_stays_as_it_is(report: da.Report, tmp_path: Path) -> None:
    fo = fiftyone()
    other = fo.Dataset()
    other.add_samples([fo.Sample(filepath=str(tmp_path / "a.png"))], progress=False)
    before = state_of(other)
    with pytest.raises(InputError, match="has no sample of the report"):
        da.push(report, dataset=other)
    assert state_of(other) == before


def test_tables_made_by_hand_need_a_dataset(photos: Path) -> None:
    from dataclasses import replace

    report = da.audit(replace(formats.read(photos), source=None), select=["DUP001"], progress=False)
    fiftyone()
    with pytest.raises(InputError, match="made by hand"):
        da.push(report)


def test_an_audit_from_the_command_line_hears_of_what_python_wrote(photos: Path, report: da.Report) -> None:
    source = report.tables.source
    dataset = da.push(report)
    stamp = state.pushed_file(source)
    for change in (lambda: da.push(report), lambda: da.clean(dataset)):
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text("{}")
        change()
        assert not stamp.exists()


def test_writing_takes_far_fewer_commands_than_there_are_samples(report: da.Report, dataset: Any) -> None:
    database = fiftyone().core.odm.get_db_conn()

    def n_writes() -> int:
        commands = database.command("serverStatus")["metrics"]["commands"]
        return sum(int(commands[name]["total"]) for name in ("insert", "update", "delete", "findAndModify"))

    before = n_writes()
    da.push(report, dataset=dataset)
    n = n_writes() - before
    assert 5 < n < 100 < len(dataset)
    da.clean(dataset)
    assert n_writes() - before < len(dataset)
