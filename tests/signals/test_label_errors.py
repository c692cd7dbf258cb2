from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dataaudit.errors import InputError, Unavailable
from dataaudit.signals.label_errors import LabelErrors, label_errors

IDS = [f"i{number}" for number in range(400)]


def made(n_wrong: int = 40) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Probabilities of a model that is right nine times of ten, and labels of which the first are wrong."""
    rng = np.random.default_rng(1)
    truth = np.arange(400) % 2
    own = rng.beta(6, 1.2, 400)
    values = np.where(truth[:, None] == [0, 1], own[:, None], 1 - own[:, None]).astype(np.float32)
    given = truth.copy()
    given[:n_wrong] = 1 - given[:n_wrong]
    labels = pd.DataFrame(
        {"sample_id": IDS, "name": np.array(["a", "b"])[given]}, index=[f"L{i}" for i in IDS]
    )
    return pd.DataFrame(values, index=IDS, columns=["a", "b"]), labels


def found(errors: LabelErrors, n: int = 40) -> float:
    """Share of the wrong labels among the n most suspect."""
    worst = errors.table["score"].sort_values(kind="stable").index[:n]
    return sum(label in {f"Li{i}" for i in range(40)} for label in worst) / n


def test_each_label_has_a_row_with_score_chance_and_suggestion() -> None:
    errors = label_errors(*made())
    assert list(errors.table.index[:2]) == ["Li0", "Li1"]
    assert errors.table.loc["Li0", ["given", "suggested"]].tolist() == ["b", "a"]
    assert errors.table["probability"].between(0, 1).all()
    assert errors.n_verdicts == 0


def test_one_class_leaves_nothing_to_compare() -> None:
    probabilities, labels = made()
    with pytest.raises(Unavailable, match="one class"):
        label_errors(probabilities[["a"]], labels[labels["name"] == "a"])


def test_training_dynamics_help_where_the_probabilities_are_poor() -> None:
    probabilities, labels = made()
    rng = np.random.default_rng(2)
    poor = 0.5 + 0.2 * (probabilities - 0.5) + rng.normal(0, 0.1, (400, 1)) * [1, -1]
    poor = poor.clip(0.01, 0.99)
    poor = poor.div(poor.sum(axis=1), axis=0)
    margin = pd.DataFrame(
        {"margin": np.r_[np.full(40, -1.0), np.full(360, 1.0)] + rng.normal(0, 0.5, 400)}, IDS
    )
    without, with_margin = label_errors(poor, labels), label_errors(poor, labels, None, "probe", None, margin)
    assert found(with_margin) > found(without)
    assert with_margin.table.loc["Li0", "training_margin"] > 0.5
    as_loss = label_errors(poor, labels, None, "probe", None, pd.DataFrame({"loss": -margin["margin"]}))
    assert as_loss.table["score"].equals(with_margin.table["score"])


def test_dynamics_without_a_column_that_counts_are_an_error() -> None:
    probabilities, labels = made()
    with pytest.raises(InputError, match="expected 'margin', 'confidence' or 'loss'"):
        label_errors(probabilities, labels, None, "probe", None, pd.DataFrame({"area": 1.0}, index=IDS))


def test_predictions_of_the_user_are_joined_with_the_probabilities() -> None:
    probabilities, labels = made()
    one = pd.DataFrame({"sample_id": ["i300"], "name": ["b"], "confidence": [0.99]})
    before, after = (
        label_errors(probabilities, labels),
        label_errors(probabilities, labels, None, "probe", one),
    )
    assert labels.loc["Li300", "name"] == "a"
    assert after.table.loc["Li300", "score"] < before.table.loc["Li300", "score"]
    assert after.table.loc["Li301", "given_probability"] == before.table.loc["Li301", "given_probability"]


def verdicts(wrong: dict[str, bool], given: pd.Series) -> pd.DataFrame:
    judged = given.loc[list(wrong)]
    chosen = np.where(list(wrong.values()), judged.map({"a": "b", "b": "a"}), judged)
    return pd.DataFrame({"given": judged, "wrong": list(wrong.values()), "chosen": chosen, "digest": None})


def test_verdicts_settle_their_labels_and_move_the_chances_of_the_others() -> None:
    probabilities, labels = made()
    before = label_errors(probabilities, labels).table
    worst = list(before["score"].sort_values(kind="stable").index)
    kept = verdicts(dict.fromkeys(worst[:20], False), labels["name"])
    errors = label_errors(probabilities, labels, None, "probe", None, None, kept)
    assert errors.n_verdicts == 20
    assert (errors.table.loc[worst[:20], "probability"] == 0).all()
    assert (errors.table.loc[worst[:20], "score"] == 1).all()
    assert (
        errors.table.loc[worst[20:40], "probability"].sum()
        < 0.7 * before.loc[worst[20:40], "probability"].sum()
    )
    right = verdicts(dict.fromkeys(worst[:20], True), labels["name"])
    confirmed = label_errors(probabilities, labels, None, "probe", None, None, right).table
    assert (confirmed.loc[worst[:20], "probability"] == 1).all()
    rest = before.loc[worst[20:40], "probability"].sum()
    assert confirmed.loc[worst[20:40], "probability"].sum() >= 0.999 * rest


def test_verdicts_on_the_worst_say_nothing_about_labels_far_from_them() -> None:
    probabilities, labels = made()
    before = label_errors(probabilities, labels).table
    worst = list(before["score"].sort_values(kind="stable").index)
    told = verdicts({label: bool(i % 2) for i, label in enumerate(worst[:30])}, labels["name"])
    after = label_errors(probabilities, labels, None, "probe", None, None, told).table
    far = worst[200:]
    assert after.loc[far, "probability"].sum() == pytest.approx(
        before.loc[far, "probability"].sum(), abs=0.01
    )
    assert after.loc[worst[30:40], "probability"].sum() < 0.9 * before.loc[worst[30:40], "probability"].sum()


def test_a_verdict_on_a_label_that_was_corrected_since_says_nothing_about_the_new_one() -> None:
    probabilities, labels = made()
    corrected = labels.copy()
    corrected.loc["Li0", "name"] = "a"
    told = verdicts({"Li0": True}, labels["name"])
    errors = label_errors(probabilities, corrected, None, "probe", None, None, told)
    assert errors.n_verdicts == 1
    assert errors.table.loc["Li0", ["probability", "score"]].tolist() == [0, 1]


def test_a_judged_image_that_was_moved_is_known_again_by_its_digest() -> None:
    probabilities, labels = made()
    images = pd.DataFrame({"digest": [f"d{i}" for i in IDS]}, index=IDS)
    told = verdicts({"Li0": True}, labels["name"]).assign(digest="di0").set_axis(["b/old.png"])
    corrected = labels.copy()
    corrected.loc["Li0", "name"] = "a"
    errors = label_errors(probabilities, corrected, images, "probe", None, None, told)
    assert errors.n_verdicts == 1
    assert errors.table.loc["Li0", "probability"] == 0
    another = told.assign(digest="gone").set_axis(["Li0"])
    assert label_errors(probabilities, labels, images, "probe", None, None, another).n_verdicts == 0


def test_verdicts_on_labels_that_are_gone_are_left_out() -> None:
    probabilities, labels = made()
    told = pd.DataFrame(
        {"given": ["a", "zebra"], "wrong": True, "chosen": "b", "digest": None}, index=["gone", "Li0"]
    )
    assert label_errors(probabilities, labels, None, "probe", None, None, told).n_verdicts == 0
