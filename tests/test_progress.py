from __future__ import annotations

import pytest

from dataaudit.progress import bar


def test_nothing_is_shown_when_it_is_not_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    with bar("Reading", shown=False) as update:
        assert update is None
    assert capsys.readouterr() == ("", "")


def test_progress_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with bar("Reading", shown=True) as update:
        assert update is not None
        update(0, 50)
        update(50, 50)
    assert capsys.readouterr().out == ""


def test_an_error_passes_through_the_bar() -> None:
    with pytest.raises(KeyboardInterrupt), bar("Reading"):
        raise KeyboardInterrupt
