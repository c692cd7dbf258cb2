from __future__ import annotations

import pytest

from dataaudit import registry
from dataaudit.errors import InputError
from dataaudit.rules import describe


def test_without_a_code_there_is_a_line_for_each_check() -> None:
    lines = describe().splitlines()
    assert [line.split()[0] for line in lines] == list(registry.rules())
    words = lines[list(registry.rules()).index("DUP001")].split(maxsplit=2)
    assert words == ["DUP001", "exact_duplicate", "The same file is there more than once."]


@pytest.mark.parametrize("code", ["LBL001", "lbl001"])
def test_a_check_is_described_with_its_settings(code: str) -> None:
    text = describe(code)
    assert text.startswith("LBL001 label_error (object)\n\nThe label is probably wrong")
    assert "  min_probability = 0.0" in text


def test_every_check_says_how_it_scores_what_it_flags_and_what_its_fix_does() -> None:
    for check in registry.checks().values():
        for part in ("Scoring:", "Flagged:", "Fix:"):
            assert part in check.explain, check.code


def test_the_catalogue_is_markdown_with_a_heading_a_check() -> None:
    text = describe(markdown=True)
    assert text.startswith("# Checks\n")
    assert "## IMG001 undecodable_image" in text.splitlines()
    assert "| `min_probability` | `0.0` |" in text
    assert describe("DUP001", markdown=True) in text


def test_an_unknown_code_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"There is no check 'lbl099'. Did you mean 'LBL00"):
        describe("lbl099")
