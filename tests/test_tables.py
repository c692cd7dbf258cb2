"""Files become a persistent FiftyOne dataset, and a dataset becomes tables."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from databases import fiftyone
from pictures import write_digits

import dataaudit as da
from dataaudit import formats, tables
from dataaudit.errors import FormatError, InputError


@pytest.fixture
def fo() -> Any:
    return fiftyone()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_digits(tmp_path / "photos", 12)
    return tmp_path / "photos"


def samples(dataset: Any) -> dict[str, tuple[str, str, list[str]]]:
    """What FiftyOne holds by sample id: FiftyOne's id, label and tags."""
    columns = ["dataaudit_id", "id", "ground_truth.label", "tags"]
    return {sample_id: rest for sample_id, *rest in zip(*dataset.values(columns), strict=True)}


def made(fo: Any, tmp_path: Path, **labels: list[str | None]) -> Any:
    """A dataset that lives in FiftyOne alone, with a `Classification` field for each keyword."""
    dataset = fo.Dataset()
    n = max(map(len, labels.values()), default=2)
    dataset.add_samples([fo.Sample(filepath=str(tmp_path / f"{i}.png")) for i in range(n)], progress=False)
    for field, names in labels.items():
        values = [None if name is None else fo.Classification(label=name) for name in names]
        dataset.set_values(field, values)
    return dataset


def test_a_folder_becomes_a_persistent_dataset_that_shows_the_files_where_they_lie(photos, fo):
    dataset = da.load(photos)
    assert dataset.persistent
    assert sorted(dataset.values("filepath")) == sorted(str(file) for file in photos.rglob("*.png"))
    assert dataset.default_classes == [str(number) for number in range(10)]
    assert samples(dataset)["7/0007.png"][1:] == ["7", []]


def test_loading_again_makes_no_second_dataset_and_keeps_what_people_added(photos, fo):
    dataset = da.load(photos)
    before = samples(dataset)
    dataset.match({"dataaudit_id": "7/0007.png"}).tag_samples("mine")
    dataset.set_values("note", {before["7/0007.png"][0]: "look"}, key_field="id")
    n_datasets = len(fo.list_datasets())
    again = da.load(photos)
    assert again.name == dataset.name
    assert len(fo.list_datasets()) == n_datasets
    assert {key: value[0] for key, value in samples(again).items()} == {k: v[0] for k, v in before.items()}
    assert again[before["7/0007.png"][0]].tags == ["mine"]
    assert again[before["7/0007.png"][0]].note == "look"


def test_a_moved_file_keeps_its_sample_with_tags_and_gets_its_new_label(photos, fo):
    dataset = da.load(photos)
    old = samples(dataset)["7/0007.png"][0]
    dataset.select(old).tag_samples("mine")
    (photos / "7/0007.png").rename(photos / "1/0007.png")
    now = samples(da.load(photos))
    assert "7/0007.png" not in now
    assert now["1/0007.png"] == [old, "1", ["mine"]]
    assert dataset[old].filepath == str(photos / "1/0007.png")


def test_a_file_that_two_copies_of_replace_is_followed_to_one_of_them(photos, fo):
    dataset = da.load(photos)
    old = samples(dataset)["7/0007.png"][0]
    shutil.copy(photos / "7/0007.png", photos / "1/a.png")
    (photos / "7/0007.png").rename(photos / "1/b.png")
    now = samples(da.load(photos))
    assert len(now) == 13
    assert now["1/a.png"][0] == old != now["1/b.png"][0]


def test_the_sample_of_a_deleted_file_goes_and_a_new_file_gets_one(photos, fo):
    before = samples(da.load(photos))
    (photos / "7/0007.png").unlink()
    (photos / "3/new.png").write_bytes(b"another content")
    now = samples(da.load(photos))
    assert set(now) == set(before) - {"7/0007.png"} | {"3/new.png"}
    assert now["3/new.png"][1] == "3"
    assert now["3/new.png"][0] != before["7/0007.png"][0]


def test_a_label_that_changed_in_a_manifest_changes_in_fiftyone_and_its_other_attributes_stay(photos, fo):
    manifest = photos / "labels.csv"
    manifest.write_text("filepath,label\n7/0007.png,seven\n3/0003.png,three\n")
    dataset = da.load(manifest)
    dataset.set_values("ground_truth.confidence", [0.5, 0.25])
    manifest.write_text("filepath,label\n7/0007.png,one\n3/0003.png,\n")
    dataset = da.load(manifest)
    assert {key: value[1] for key, value in samples(dataset).items()} == {
        "7/0007.png": "one",
        "3/0003.png": None,
    }
    assert dataset.match({"dataaudit_id": "7/0007.png"}).values("ground_truth.confidence") == [0.5]
    assert dataset.default_classes == ["one"]


def test_splits_are_a_field_and_tags_and_follow_a_file_into_another_split(tmp_path, fo):
    write_digits(tmp_path / "photos/train", 5)
    write_digits(tmp_path / "photos/test", 5, offset=20)
    dataset = da.load(tmp_path / "photos")
    assert dataset.count_values("split") == {"train": 5, "test": 5}
    assert dataset.count_sample_tags() == {"train": 5, "test": 5}
    dataset.match({"dataaudit_id": "train/0/0000.png"}).tag_samples("mine")
    (tmp_path / "photos/train/0/0000.png").rename(tmp_path / "photos/test/0/0000.png")
    dataset = da.load(tmp_path / "photos")
    assert samples(dataset)["test/0/0000.png"][2] == ["mine", "test"]
    assert dataset.count_values("split") == {"train": 4, "test": 6}


def test_two_folders_of_one_name_are_two_datasets(tmp_path, fo):
    write_digits(tmp_path / "a/photos", 3)
    write_digits(tmp_path / "b/photos", 4)
    a, b = da.load(tmp_path / "a/photos"), da.load(tmp_path / "b/photos")
    assert a.name != b.name
    assert (len(a), len(b)) == (3, 4)
    assert da.load(tmp_path / "b/../a/photos").name == a.name


def test_a_dataset_that_holds_something_else_is_not_touched(tmp_path, photos, fo):
    theirs = made(fo, tmp_path, animal=["cat", "dog"])
    with pytest.raises(InputError, match="wasn't loaded from these files"):
        da.load(photos, name=theirs.name)
    write_digits(tmp_path / "others", 3)
    ours = da.load(tmp_path / "others", name="shared name")
    with pytest.raises(InputError, match=r"holds .*others; expected .*photos"):
        da.load(photos, name="shared name")
    assert (len(theirs), len(ours)) == (2, 3)


def test_a_dataset_that_holds_only_findings_of_ours_is_not_taken_for_a_loaded_one(tmp_path, photos, fo):
    theirs = made(fo, tmp_path, animal=["cat", "dog"])
    theirs.info["dataaudit"] = {"made": {"fields": [], "views": [], "tags": []}}
    theirs.save()
    with pytest.raises(InputError, match="wasn't loaded"):
        da.load(photos, name=theirs.name)
    assert len(theirs) == 2


def test_tables_made_by_hand_need_a_name_and_keep_it(photos, fo):
    from dataclasses import replace

    hand_made = replace(formats.read(photos), source=None)
    with pytest.raises(InputError, match="no source to name"):
        tables.write(hand_made)
    assert len(tables.write(hand_made, name="by hand")) == 12
    assert len(tables.write(hand_made, name="by hand")) == 12


def test_reading_a_loaded_dataset_gives_the_tables_of_its_files(photos, fo):
    expected = formats.read(photos)
    found = tables.read(da.load(photos))
    pd.testing.assert_frame_equal(found.images, expected.images, check_dtype=False, check_names=False)
    pd.testing.assert_frame_equal(found.labels, expected.labels, check_dtype=False, check_names=False)
    assert found.classes == expected.classes
    assert found.source.root == expected.source.root


def test_places_of_labels_in_a_manifest_are_found_again_through_fiftyone(photos, fo):
    manifest = photos / "labels.csv"
    manifest.write_text("filepath,label\n7/0007.png,seven\n3/0003.png,three\n")
    found = tables.read(da.load(manifest))
    assert str(found.labels.at["3/0003.png", "locator"]) == "labels.csv:3:label"


def test_a_sample_that_a_person_added_stays_and_the_dataset_is_read_as_fiftyones_own(photos, tmp_path, fo):
    dataset = da.load(photos)
    dataset.add_samples([fo.Sample(filepath=str(tmp_path / "mine.png"))], progress=False)
    assert len(da.load(photos)) == 13
    assert tables.read(dataset).source.format == "fiftyone"


def test_the_only_classification_field_holds_the_labels(tmp_path, fo):
    found = tables.read(made(fo, tmp_path, animal=["cat", "dog", None]))
    assert found.classes == ("cat", "dog")
    assert found.source.options == {"label_field": "animal"}
    assert found.labels["name"].tolist() == ["cat", "dog", None]


def test_of_several_classification_fields_one_has_to_be_named(tmp_path, fo):
    dataset = made(fo, tmp_path, animal=["cat", "dog"], place=["field", "house"])
    with pytest.raises(InputError, match=r"2 Classification fields: animal, place; which") as error:
        tables.read(dataset)
    assert "--option label_field=NAME" in str(error.value)
    assert tables.read(dataset, label_field="place").classes == ("field", "house")
    with pytest.raises(InputError, match=r"no Classification field 'plaec'. Did you mean 'place'"):
        tables.read(dataset, label_field="plaec")


def test_a_suggestion_of_a_person_counts_as_a_field_and_one_of_an_audit_does_not(tmp_path, fo):
    dataset = made(fo, tmp_path, animal=["cat", "dog"], LBL001_suggested=["dog", None])
    assert tables.read(dataset).classes == ("cat", "dog")
    dataset = made(fo, tmp_path, animal=["cat", "dog"], my_suggested=["dog", None])
    with pytest.raises(InputError, match="animal, my_suggested"):
        tables.read(dataset)


def test_a_dataset_without_a_classification_field_is_refused(tmp_path, fo):
    with pytest.raises(InputError, match="has no Classification field"):
        tables.read(made(fo, tmp_path))


def test_a_dataset_is_read_by_its_name_and_a_misspelt_name_says_so(tmp_path, fo):
    dataset = made(fo, tmp_path, animal=["cat", "dog"])
    assert formats.read(dataset.name).images.index.tolist() == dataset.values("id")
    with pytest.raises(FormatError, match="no such file, folder or dataset"):
        formats.read("no dataset of this name")
    with pytest.raises(FormatError, match="has no samples"):
        formats.read(fo.Dataset().name)


def test_splits_of_a_fiftyone_dataset_come_from_a_field_or_else_from_tags(tmp_path, fo):
    dataset = made(fo, tmp_path, animal=["cat", "dog", "cat"])
    dataset.set_values("tags", [["train", "mine"], ["test"], ["train", "test"]])
    assert tables.read(dataset).images["split"].tolist() == ["train", "test", None]
    dataset.set_values("split", ["a", "b", None])
    assert tables.read(dataset).images["split"].tolist() == ["a", "b", None]


def test_a_split_field_that_is_a_label_is_left_for_the_tags(tmp_path, fo):
    dataset = made(fo, tmp_path, animal=["cat", "dog"], split=["x", "y"])
    dataset.set_values("tags", [["train"], ["val"]])
    assert tables.read(dataset, label_field="animal").images["split"].tolist() == ["train", "val"]


def test_video_is_refused(tmp_path, fo):
    dataset = fo.Dataset()
    dataset.add_samples([fo.Sample(filepath=str(tmp_path / "a.mp4"))], progress=False)
    with pytest.raises(FormatError, match="holds video; expected images"):
        tables.read(dataset)
