from __future__ import annotations

import json
import string
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_reports import relabel, report_of, tables_of

from dataaudit.errors import InputError
from dataaudit.report import summarize
from dataaudit.types import Finding, Locator, Outcome, Report, Source


def test_a_summary_counts_images_labels_splits_and_what_is_open(report: Report) -> None:
    assert summarize(report)["counts"] == {
        "images": 6,
        "labels": 6,
        "objects": None,
        "classes": 2,
        "splits": {"train": 4, "test": 2},
        "unlabeled": 0,
        "findings": 4,
        "open": 3,
        "kept": 1,
        "flagged_images": 3,
        "doubtful_labels": 1,
        "expected_wrong": 0.96,
    }


def test_an_image_without_a_class_is_unlabeled() -> None:
    counts = summarize(report_of(tables_of({"1.jpg": "cat", "2.jpg": None})))["counts"]
    assert (counts["images"], counts["labels"], counts["unlabeled"]) == (2, 1, 1)


def test_each_check_that_ran_has_an_entry_with_its_findings(report: Report) -> None:
    rows = [
        (row["code"], row["findings"], row["open"], row["expected"]) for row in summarize(report)["codes"]
    ]
    assert rows == [
        ("DUP001", 1, 1, 1.0),
        ("DUP002", 0, 0, None),
        ("IMG001", 1, 1, 1.0),
        ("LBL001", 2, 1, 0.96),
    ]


def test_a_code_that_no_check_has_is_shown_without_a_name() -> None:
    tables = tables_of({"1.jpg": "cat"})
    odd = Finding(
        key="k",
        code="ZZZ999",
        item_id="1.jpg",
        sample_id="1.jpg",
        score=0.5,
        probability=None,
        message="Odd.",
    )
    row = summarize(report_of(tables, odd))["codes"][0]
    assert (row["code"], row["name"], row["summary"], row["findings"]) == ("ZZZ999", "", "", 1)


def test_the_findings_stand_worst_first(report: Report) -> None:
    assert [finding["key"] for finding in summarize(report)["findings"]] == ["k3", "k4", "k1", "k2"]


def test_a_finding_has_what_its_image_is_and_where_its_label_stands(report: Report) -> None:
    found = next(finding for finding in summarize(report)["findings"] if finding["key"] == "k1")
    assert found["filepath"].endswith("photos/train/cat/1.jpg")
    del found["filepath"]
    assert found == {
        "key": "k1",
        "code": "LBL001",
        "item_id": "L0",
        "sample_id": "train/cat/1.jpg",
        "image": "train/cat/1.jpg",
        "given": "cat",
        "suggested": "dog",
        "suggests": "class",
        "change": None,
        "score": 0.02,
        "probability": 0.96,
        "message": "Looks like dog.",
        "decision": None,
        "group": None,
        "evidence": {},
        "fix": {
            "op": "relabel",
            "sample_id": "train/cat/1.jpg",
            "label_id": "L0",
            "locator": {"file": "train/cat/1.jpg", "item": None, "field": None},
            "old": "cat",
            "new": "dog",
            "old_box": None,
            "box": None,
        },
        "box": None,
        "suggested_box": None,
        "split": "train",
        "digest": "0" * 32,
        "label": "cat",
        "locator": {"file": "train/cat/1.jpg", "item": None, "field": None},
    }


def test_a_suggested_image_is_told_from_a_suggested_class(report: Report) -> None:
    suggests = {finding["key"]: finding["suggests"] for finding in summarize(report)["findings"]}
    assert suggests == {"k1": "class", "k2": "class", "k3": "sample", "k4": None}


def test_the_class_table_says_what_each_class_mostly_looks_like(report: Report) -> None:
    assert summarize(report)["classes"] == [
        {
            "name": "cat",
            "n": 2,
            "flagged": 1,
            "share": 0.5,
            "expected": 0.96,
            "suggestion": "dog",
            "suggestion_n": 1,
        },
        {
            "name": "dog",
            "n": 4,
            "flagged": 0,
            "share": 0.0,
            "expected": None,
            "suggestion": None,
            "suggestion_n": 0,
        },
    ]


def test_a_label_with_two_findings_is_one_doubtful_label() -> None:
    tables = tables_of({"1.jpg": "cat", "2.jpg": "dog"})
    one = relabel("a", tables, "L0", "dog", probability=0.5)
    two = replace(one, key="b", code="LBL002", probability=0.75)
    summary = summarize(report_of(tables, one, two))
    assert summary["counts"]["doubtful_labels"] == 1
    assert summary["counts"]["expected_wrong"] == 0.75
    assert summary["matrix"]["counts"] == [[0, 1], [0, 0]]


def test_the_matrix_has_given_classes_as_rows_and_suggested_ones_as_columns(report: Report) -> None:
    assert summarize(report)["matrix"] == {
        "classes": ["cat", "dog"],
        "counts": [[0, 1], [0, 0]],
        "classes_left_out": 0,
        "findings_left_out": 0,
    }


def test_the_matrix_of_many_classes_has_the_40_most_affected() -> None:
    names = [a + b for a in string.ascii_lowercase[:10] for b in string.ascii_lowercase[:10]]
    tables = tables_of({f"{name}.jpg": name for name in names})
    findings = [relabel(f"k{at}", tables, f"L{at}", names[at + 50]) for at in range(50)]
    matrix = summarize(report_of(tables, *findings))["matrix"]
    assert len(matrix["classes"]) == 40
    assert matrix["classes_left_out"] == 60
    assert sum(map(sum, matrix["counts"])) + matrix["findings_left_out"] == 50


def test_the_histogram_counts_flagged_and_other_labels_in_20_bins(report: Report) -> None:
    histogram = summarize(report)["histogram"]
    assert histogram["edges"][:3] == [0.0, 0.05, 0.1]
    assert histogram["flagged"] == [1, 0, 0, 0, 0, 0, 1] + [0] * 13
    assert histogram["not_flagged"] == [0] * 18 + [1, 3]


def test_a_report_without_label_scores_has_no_histogram() -> None:
    assert summarize(report_of(tables_of({"1.jpg": "cat"})))["histogram"] is None


@pytest.mark.parametrize(
    ("probabilities", "sentence"),
    [
        ((), "Nothing to fix in 3 images."),
        ((None,), "1 finding in 3 images."),
        ((0.9,), "One label is doubtful, with a chance of 90% that it is wrong."),
        ((0.2, 0.1), "Of these 2 doubtful labels, less than one is wrong."),
        ((0.9, 0.8, 0.4), "Of these 3 doubtful labels, about 2 are wrong."),
    ],
)
def test_the_estimate_is_a_sentence(probabilities: tuple[float | None, ...], sentence: str) -> None:
    tables = tables_of({f"{at}.jpg": "cat" for at in range(3)}, classes=("dog",))
    findings = [
        relabel(f"k{at}", tables, f"L{at}", "dog", probability=p) for at, p in enumerate(probabilities)
    ]
    assert summarize(report_of(tables, *findings))["estimate"] == sentence


def test_the_estimate_names_other_findings_and_kept_ones(report: Report) -> None:
    assert summarize(report)["estimate"] == (
        "One label is doubtful, with a chance of 96% that it is wrong. 2 other findings. "
        "1 more was kept by a person."
    )


def test_max_shown_cuts_the_list_and_not_the_counts(report: Report) -> None:
    whole, cut = summarize(report), summarize(report, max_shown=1)
    assert [finding["key"] for finding in cut["findings"]] == ["k3"]
    assert cut["left_out"] == 3
    assert (cut["counts"], cut["codes"], cut["open"]) == (whole["counts"], whole["codes"], whole["open"])


def test_a_negative_max_shown_is_refused(report: Report) -> None:
    with pytest.raises(InputError, match="max_shown is -1"):
        summarize(report, max_shown=-1)


def test_the_sum_of_the_timings_and_the_decoded_images_are_no_steps(report: Report) -> None:
    summary = summarize(report)
    assert summary["timings"] == {"sweep": 1.5, "LBL001": 0.25}
    assert summary["seconds"] == 2.0


def test_a_summary_is_strict_json_whatever_the_evidence_holds() -> None:
    tables = tables_of({"1.jpg": "cat", "2.jpg": "dog"})
    evidence = {
        "a": np.float32(0.5), "b": np.arange(2), "c": float("nan"), "d": {"e": (1, None)}, "f": pd.NA,
        "g": {"y", "x"},
    }  # fmt: skip
    report = report_of(tables, relabel("k", tables, "L0", "dog", evidence=evidence, probability=float("nan")))
    summary = summarize(report)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["findings"][0]["evidence"] == {
        "a": 0.5, "b": [0, 1], "c": None, "d": {"e": [1, None]}, "f": None, "g": ["x", "y"],
    }  # fmt: skip
    assert summary["findings"][0]["probability"] is None


def test_an_empty_dataset_has_an_empty_summary() -> None:
    summary = summarize(report_of(tables_of({})))
    assert summary["counts"]["images"] == 0
    assert summary["findings"] == summary["codes"] == summary["groups"] == []


def test_a_group_has_its_flagged_images_and_the_one_to_keep(report: Report) -> None:
    (group,) = summarize(report)["groups"]
    assert group["codes"] == ["DUP001"]
    members = [(member["sample_id"], member["label"], member["keep"]) for member in group["members"]]
    assert members == [("train/dog/1.jpg", "dog", True), ("train/dog/2.jpg", "dog", False)]


def test_findings_of_two_checks_about_the_same_images_are_one_group(report: Report) -> None:
    leak = Finding(
        key="k5", code="SPL001", item_id="train/dog/1.jpg", sample_id="train/dog/1.jpg", score=0.0,
        probability=None, message="The same bytes in the split 'test'.", given="dog",
        suggested="test/dog/3.jpg", evidence={"group": "SPL001-0"},
    )  # fmt: skip
    (group,) = summarize(replace(report, items=(*report.items, leak)))["groups"]
    assert group["codes"] == ["DUP001", "SPL001"]
    assert [member["sample_id"] for member in group["members"] if member["keep"]] == [
        "test/dog/3.jpg",
        "train/dog/1.jpg",
    ]
    assert len(group["members"]) == 3


def test_members_that_are_not_flagged_come_from_the_evidence_of_the_check() -> None:
    tables = tables_of({"1.jpg": "cat", "2.jpg": "dog", "3.jpg": "dog"})
    evidence = pd.DataFrame(
        {"message": "Differ.", "suggested": "dog", "group": "g1"}, index=["L0", "L1", "L2"]
    )
    scores = pd.Series([0.1, 0.9, 0.9], index=tables.labels.index)
    outcome = Outcome(score=scores, flagged=scores < 0.5, evidence=evidence)
    found = replace(relabel("k", tables, "L0", "dog", evidence={"group": "g1"}), code="LBL002")
    (group,) = summarize(report_of(tables, found, outcomes={"LBL002": outcome}))["groups"]
    assert [(member["sample_id"], member["keep"]) for member in group["members"]] == [
        ("1.jpg", False),
        ("2.jpg", False),
        ("3.jpg", False),
    ]


def test_an_image_of_a_fiftyone_dataset_is_shown_by_its_path() -> None:
    tables = tables_of({"65f0": "cat", "65f1": "dog"})
    paths = ["/data/a/cat/1.jpg", "/data/a/dog/1.jpg"]
    source = Source(format="fiftyone", root=None, path="animals", anchor=Path("/data"))
    tables = replace(tables, images=tables.images.assign(filepath=paths), source=source)
    copy = Finding(
        key="d", code="DUP002", item_id="65f1", sample_id="65f1", score=0.0, probability=None,
        message="Same.", suggested="65f0", evidence={"group": "g"},
    )  # fmt: skip
    summary = summarize(report_of(tables, relabel("k", tables, "L0", "dog"), copy))
    assert [finding["image"] for finding in summary["findings"]] == ["dog/1.jpg", "cat/1.jpg"]
    members = [(member["sample_id"], member["image"]) for member in summary["groups"][0]["members"]]
    assert members == [("65f0", "cat/1.jpg"), ("65f1", "dog/1.jpg")]


def test_a_locator_of_the_fix_wins_over_that_of_the_table() -> None:
    tables = tables_of({"1.jpg": "cat", "2.jpg": "dog"})
    found = relabel("k", tables, "L0", "dog")
    assert found.fix is not None
    moved = replace(found, fix=replace(found.fix, locator=Locator(file="labels.csv", item=7, field="label")))
    assert summarize(report_of(tables, moved))["findings"][0]["locator"] == {
        "file": "labels.csv",
        "item": 7,
        "field": "label",
    }
