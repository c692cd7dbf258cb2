from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from made_reports import relabel, report_of, tables_of

from dataaudit.report import summarize, to_github, to_json, to_junit, to_markdown, to_sarif
from dataaudit.types import Finding, Fix, Locator, Report


def in_manifest(tables: Any, item: int) -> Finding:
    found = relabel("k", tables, "L0", "dog")
    fix = Fix(
        op="relabel", sample_id="images/1.jpg", label_id="L0",
        locator=Locator(file="labels.csv", item=item, field="label"), old="cat", new="dog",
    )  # fmt: skip
    return replace(found, fix=fix)


def test_json_is_the_summary(report: Report) -> None:
    assert json.loads(to_json(report)) == summarize(report)


def test_json_of_a_name_that_is_not_utf_8_can_be_encoded_and_read_back() -> None:
    tables = tables_of({"caf\udce9.jpg": "cat"}, classes=("dog",))
    text = to_json(report_of(tables, relabel("k", tables, "L0", "dog")))
    assert json.loads(text.encode())["findings"][0]["sample_id"] == "caf\udce9.jpg"


def test_sarif_has_what_the_standard_requires(report: Report) -> None:
    log = json.loads(to_sarif(report))
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    (run,) = log["runs"]
    assert run["tool"]["driver"]["name"] == "dataaudit"
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == ["DUP001", "DUP002", "IMG001", "LBL001"]
    assert all(rule["shortDescription"]["text"] and rule["fullDescription"]["text"] for rule in rules)
    assert len(run["results"]) == 4
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("none", "note", "warning", "error")
        assert 0 <= result["rank"] <= 100
        assert result["message"]["text"]
        assert all(isinstance(value, str) for value in result["partialFingerprints"].values())
        assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    (invocation,) = run["invocations"]
    assert invocation["executionSuccessful"] is True
    (notice,) = invocation["toolExecutionNotifications"]
    assert notice["message"]["text"] == "Skipped: the dataset has no splits"
    assert notice["descriptor"] == {"id": "SPL001"}


def test_a_sarif_result_names_image_fingerprint_and_figures(report: Report) -> None:
    results = json.loads(to_sarif(report))["runs"][0]["results"]
    assert results[2] == {
        "ruleId": "LBL001",
        "ruleIndex": 3,
        "level": "error",
        "rank": 98.0,
        "message": {"text": "Looks like dog (96% likely an error)"},
        "partialFingerprints": {"finding/v1": "k1"},
        "properties": {"score": 0.02, "probability": 0.96, "given": "cat", "suggested": "dog"},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": "train/cat/1.jpg"}}}],
    }


def test_a_kept_finding_is_suppressed_in_sarif_and_an_unlikely_one_a_warning(report: Report) -> None:
    kept = json.loads(to_sarif(report))["runs"][0]["results"][3]
    assert kept["suppressions"][0]["kind"] == "external"
    assert kept["level"] == "warning"


def test_sarif_uris_are_percent_encoded() -> None:
    tables = tables_of({"train/a b/50%#1é.jpg": "cat"}, classes=("dog",))
    (result,) = json.loads(to_sarif(report_of(tables, relabel("k", tables, "L0", "dog"))))["runs"][0][
        "results"
    ]
    uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert uri == "train/a%20b/50%25%231%C3%A9.jpg"


def test_a_label_of_a_manifest_stands_at_its_line(tmp_path: Path) -> None:
    tables = tables_of({"images/1.jpg": "cat"}, classes=("dog",), root=tmp_path / "data")
    report = report_of(tables, in_manifest(tables, 17))
    (result,) = json.loads(to_sarif(report, base=tmp_path))["runs"][0]["results"]
    place = result["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "data/labels.csv"}, "region": {"startLine": 17}}
    image = result["relatedLocations"][0]["physicalLocation"]["artifactLocation"]
    assert image == {"uri": "data/images/1.jpg"}
    assert to_github(report).splitlines()[0].startswith("::error file=labels.csv,line=17,title=LBL001")


def test_a_file_outside_the_base_is_named_from_the_root_of_the_dataset(tmp_path: Path) -> None:
    tables = tables_of({"images/1.jpg": "cat"}, classes=("dog",), root=tmp_path / "data")
    report = report_of(tables, relabel("k", tables, "L0", "dog"))
    assert "file=images/1.jpg," in to_github(report, base=tmp_path / "other")
    assert "file=data/images/1.jpg," in to_github(report, base=tmp_path)


def test_an_image_in_two_rows_of_a_manifest_is_one_file(tmp_path: Path) -> None:
    tables = tables_of({"images/1.jpg#3": "cat"}, classes=("dog",), root=tmp_path)
    tables = replace(tables, images=tables.images.assign(filepath=str(tmp_path / "images/1.jpg")))
    assert "file=images/1.jpg," in to_github(report_of(tables, relabel("k", tables, "L0", "dog")))


def test_junit_has_one_case_for_each_check(report: Report) -> None:
    root = ElementTree.fromstring(to_junit(report))
    assert root.tag == "testsuites"
    assert (root.get("tests"), root.get("failures"), root.get("skipped")) == ("5", "3", "1")
    cases = {str(case.get("name")).split()[0]: case for case in root.iter("testcase")}
    assert list(cases) == ["DUP001", "DUP002", "IMG001", "LBL001", "SPL001"]
    failure = cases["LBL001"].find("failure")
    assert failure is not None
    assert failure.get("message") == "1 finding in 1 image"
    assert failure.text == "train/cat/1.jpg: Looks like dog (96% likely an error)"
    assert cases["LBL001"].get("time") == "0.250"
    assert len(cases["DUP002"]) == 0
    skipped = cases["SPL001"].find("skipped")
    assert skipped is not None
    assert skipped.get("message") == "the dataset has no splits"


def test_junit_is_valid_xml_whatever_the_names_hold() -> None:
    tables = tables_of({"a\x00\x1b]]>&<.jpg": "cat\udce9"}, classes=("dog",))
    root = ElementTree.fromstring(
        to_junit(report_of(tables, relabel("k", tables, "L0", "dog", message="\x08]]>")))
    )
    (failure,) = root.iter("failure")
    assert failure.text == "a\\x00\\x1b]]>&<.jpg: \\x08]]> (90% likely an error)"


def test_github_commands_are_escaped() -> None:
    tables = tables_of({"a,b:c%.jpg": "cat"}, classes=("dog",))
    text = to_github(
        report_of(tables, relabel("k", tables, "L0", "dog", message="50%\nof::it", probability=None))
    )
    first = text.splitlines()[0]
    assert first.startswith("::error file=a%2Cb%3Ac%25.jpg,title=LBL001 ")
    assert first.endswith("::50%25\\x0aof::it")


def test_github_annotations_end_with_a_count_and_are_50_at_most() -> None:
    tables = tables_of({f"{at}.jpg": "cat" for at in range(60)}, classes=("dog",))
    report = report_of(tables, *(relabel(f"k{at}", tables, f"L{at}", "dog") for at in range(60)))
    lines = to_github(report).splitlines()
    assert len(lines) == 51
    assert lines[-1] == (
        "::notice title=dataaudit::Of these 60 doubtful labels, about 54 are wrong. "
        "Not shown here: 10 findings."
    )


def test_github_leaves_out_what_was_kept(report: Report) -> None:
    assert "train/dog/1.jpg," not in to_github(report)
    assert to_github(report).count("::error") == 3


def test_markdown_lists_checks_and_findings_with_names_as_text() -> None:
    tables = tables_of({"a|b.jpg": "<img>"}, classes=("*dog*",))
    report = report_of(
        tables, relabel("k", tables, "L0", "*dog*", message="<b>*x*</b>"), skipped={"SPL001": "no | splits."}
    )
    text = to_markdown(report)
    assert "| LBL001 | a\\|b.jpg | \\<b\\>\\*x\\*\\</b\\> | 90% |" in text
    assert "Skipped: SPL001 no \\| splits" in text


def test_markdown_says_how_many_findings_it_leaves_out(report: Report) -> None:
    assert "2 more findings are not listed." in to_markdown(report, max_listed=1)
