from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import pytest

from dataaudit import registry
from dataaudit.errors import InputError
from dataaudit.registry import check, checks, select, signal, signals, with_settings
from dataaudit.types import Outcome


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Checks and signals declared in a test are forgotten after it."""
    checks()
    monkeypatch.setattr(registry, "_checks", dict(registry._checks))
    monkeypatch.setattr(registry, "_signals", dict(registry._signals))
    registry._discover.cache_clear()
    yield
    registry._discover.cache_clear()


def codes(*chosen: str, ignore: tuple[str, ...] = ()) -> list[str]:
    return [found.code for found in select(chosen, ignore)]


def test_every_check_is_found_in_the_order_of_the_codes() -> None:
    assert list(checks()) == sorted(checks())
    assert {"DUP001", "DUP002", "IMG001", "LBL001", "LBL002", "SPL001"} <= set(checks())
    assert {"spectrum", "neighbors", "near_duplicates", "pred_probs"} <= set(signals())


def test_a_check_is_described_by_its_function() -> None:
    found = checks()["LBL001"]
    assert (found.name, found.level, found.needs) == (
        "label_error",
        "object",
        ("label_errors", "labels", "pred_probs", "neighbors", "model_predictions"),
    )
    assert found.optional == ("neighbors", "model_predictions")
    assert found.settings["max_findings"] == 0
    assert found.summary == "The label is probably wrong: the image looks like another class."
    assert checks()["LBL002"].optional == ("pred_probs",)


@pytest.mark.parametrize(
    ("chosen", "ignore", "expected"),
    [
        ((), (), list(checks())),
        (("DUP",), (), ["DUP001", "DUP002"]),
        (("DUP001", "SPL"), ("SPL002",), ["DUP001", "SPL001"]),
        ((), ("DUP", "LBL001"), [code for code in checks() if code[:3] != "DUP" and code != "LBL001"]),
        (("DUP",), ("DUP002",), ["DUP001"]),
        (("LBL001",), ("LBL",), ["LBL001"]),
        (("LBL",), ("LBL",), []),
    ],
)
def test_checks_are_selected_by_prefix_and_the_longer_prefix_wins(
    chosen: tuple[str, ...], ignore: tuple[str, ...], expected: list[str]
) -> None:
    assert codes(*chosen, ignore=ignore) == expected


def test_one_prefix_may_be_given_as_text() -> None:
    assert [found.code for found in select("DUP", "DUP002")] == ["DUP001"]


@pytest.mark.parametrize(
    ("prefix", "hint"),
    [("LBL090", "Did you mean 'LBL0"), ("lbl001", "Did you mean 'LBL001'?"), ("", "There are: BOX001")],
)
def test_an_unknown_prefix_names_the_nearest(prefix: str, hint: str) -> None:
    for arguments in (((prefix,), ()), ((), (prefix,))):
        with pytest.raises(InputError, match="No check's code begins with") as caught:
            select(*arguments)
        assert hint in str(caught.value)


def test_settings_take_the_place_of_defaults() -> None:
    found = checks()["LBL001"]
    assert with_settings(found, {"min-probability": 1}) == {"min_probability": 1.0, "max_findings": 0}
    assert found.settings["min_probability"] == 0.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_probabilty": 0.5}, "LBL001 has no setting 'min_probabilty'. Did you mean 'min_probability'?"),
        ({"max_findings": 0.5}, "max_findings = 0.5 is a float; expected a int, as its default 0"),
        ({"min_probability": "0.5"}, "min_probability = '0.5' is a str; expected a float"),
        ({"min_probability": True}, "min_probability = True is a bool; expected a float"),
    ],
)
def test_settings_that_do_not_fit_are_errors(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        with_settings(checks()["LBL001"], settings)
    assert message in str(caught.value)


@pytest.mark.usefixtures("sandbox")
def test_a_check_is_declared_by_one_function() -> None:
    @check("XYZ001", level="image")
    def too_dark(images: pd.DataFrame, *, min_brightness: float = 0.1) -> Outcome:
        """Too dark to see."""
        return Outcome(score=pd.Series(1.0, index=images.index), flagged=pd.Series(False, index=images.index))

    assert checks()["XYZ001"].settings == {"min_brightness": 0.1}
    assert codes("XYZ") == ["XYZ001"]


@pytest.mark.usefixtures("sandbox")
def test_a_misspelt_need_is_an_error_at_discovery() -> None:
    @check("XYZ001", level="image")
    def too_dark(brightnes: pd.Series) -> Outcome:
        """Too dark to see."""
        raise AssertionError

    @signal
    def brightness(image_properties: pd.DataFrame) -> pd.Series:
        raise AssertionError

    with pytest.raises(
        InputError, match=r"too_dark needs 'brightnes', which nothing provides. Did you mean 'brightness'?"
    ):
        checks()


@pytest.mark.usefixtures("sandbox")
def test_signals_that_need_each_other_are_an_error_at_discovery() -> None:
    @signal
    def egg(hen: int) -> int:
        raise AssertionError

    @signal
    def hen(egg: int) -> int:
        raise AssertionError

    with pytest.raises(InputError, match="egg needs itself: egg, hen, egg"):
        checks()


@pytest.mark.usefixtures("sandbox")
def test_a_badly_declared_check_is_an_error() -> None:
    def nothing(images: pd.DataFrame) -> Outcome:
        raise AssertionError

    with pytest.raises(InputError, match="'Xyz1' is not three letters and three digits"):
        check("Xyz1", level="image")
    with pytest.raises(InputError, match="XYZ001 nothing has no docstring"):
        check("XYZ001", level="image")(nothing)
    nothing.__doc__ = "Nothing."
    with pytest.raises(InputError, match="LBL001 is both label_error and nothing"):
        check("LBL001", level="image")(nothing)


@pytest.mark.usefixtures("sandbox")
def test_a_setting_without_a_default_is_an_error() -> None:
    def nothing(images: pd.DataFrame, *, limit: float) -> Outcome:
        """Nothing."""
        raise AssertionError

    with pytest.raises(InputError, match="The setting limit of nothing has no default"):
        check("XYZ001", level="image")(nothing)
