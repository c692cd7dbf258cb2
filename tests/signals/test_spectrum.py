from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from dataaudit.signals import spectrum as module
from dataaudit.signals.spectrum import Spectrum, first_network, neighbors, other_networks, spectrum


def values_of(n: int, d: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 5
    return pd.DataFrame(values.astype(np.float32), index=[f"i{number}" for number in range(n)])


@pytest.mark.parametrize(("n", "d"), [(200, 12), (20, 50)])
def test_the_spectrum_is_that_of_principal_component_analysis(n: int, d: int) -> None:
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import StandardScaler

    values = values_of(n, d)
    found = spectrum(values)
    scaled = StandardScaler().fit_transform(values.to_numpy(dtype=np.float64))
    reference = PCA().fit(scaled)
    r = found.components.shape[1]
    assert r == min(n - 1, d)
    expected = reference.transform(scaled)[:, :r]
    signs = np.sign((found.components * expected).sum(0))
    assert np.abs(found.components * signs - expected).max() < 2e-3
    assert found.eigenvalues == pytest.approx(reference.explained_variance_[:r] * (n - 1) / n, rel=1e-3)


def test_the_components_are_centred_and_uncorrelated() -> None:
    found = spectrum(values_of(300, 10))
    assert np.abs(found.components.mean(0)).max() < 1e-4
    covariance = found.components.T @ found.components / 300
    assert np.abs(covariance - np.diag(found.eigenvalues)).max() < 1e-3


def test_a_constant_feature_changes_nothing() -> None:
    values = values_of(100, 6)
    wider = values.assign(constant=np.float32(3.3))
    assert spectrum(wider).eigenvalues == pytest.approx(spectrum(values).eigenvalues, rel=1e-3)


@pytest.mark.parametrize("chunk", [7, 10_000])
def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    expected = spectrum(values_of(100, 6))
    monkeypatch.setattr(module, "_ROWS_AT_A_TIME", chunk)
    assert np.abs(spectrum(values_of(100, 6)).components - expected.components).max() < 1e-3


def brute_force(found: Spectrum, k: int) -> tuple[np.ndarray, np.ndarray]:
    points = found.components / found.eigenvalues**0.25
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    similar = points @ points.T
    np.fill_diagonal(similar, -np.inf)
    order = np.argsort(-similar, axis=1)[:, :k]
    return order, np.take_along_axis(similar, order, axis=1)


def test_neighbors_are_those_of_brute_force() -> None:
    found = spectrum(values_of(150, 9))
    near = neighbors(found, n_neighbors=7)
    order, similar = brute_force(found, 7)
    assert (near.indices == order).mean() > 0.99
    assert np.abs(near.similarities - similar).max() < 1e-4


def test_an_image_is_not_its_own_neighbour_among_identical_images() -> None:
    values = values_of(120, 9)
    values.iloc[:80] = values.iloc[0].to_numpy()
    near = neighbors(spectrum(values), n_neighbors=10)
    assert near.indices.shape == (120, 10)
    assert not (near.indices == np.arange(120)[:, None]).any()
    assert np.abs(near.similarities[:80] - 1).max() < 1e-4


def test_images_that_are_all_alike_have_others_as_neighbours() -> None:
    values = pd.DataFrame(np.full((12, 5), 0.1, dtype=np.float32))
    near = neighbors(spectrum(values), n_neighbors=4)
    assert near.indices.shape == (12, 4)
    assert not (near.indices == np.arange(12)[:, None]).any()


@pytest.mark.parametrize(("n", "k"), [(1, 0), (2, 1), (3, 2)])
def test_a_few_images_have_as_many_neighbours_as_there_are(n: int, k: int) -> None:
    near = neighbors(spectrum(values_of(n, 5)))
    assert near.indices.shape == near.similarities.shape == (n, k)


def test_the_inverted_file_finds_nearly_what_brute_force_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_EXACT_UP_TO", 100)
    found = spectrum(values_of(2000, 9))
    near = neighbors(found, n_neighbors=5)
    order, _ = brute_force(found, 5)
    hits = [len(set(a) & set(b)) for a, b in zip(near.indices.tolist(), order.tolist(), strict=True)]
    assert np.mean(hits) / 5 > 0.8


def test_where_an_inverted_file_finds_too_few_the_image_itself_stands_in() -> None:
    # Row 0: found itself and one other; row 1: an identical image first; row 2: itself is not among them.
    indices = np.array([[0, 2, 0, 0], [0, 1, 2, 3], [0, 1, 3, 4]])
    kept = np.take_along_axis(indices, module._others(indices), axis=1)
    assert kept.tolist() == [[2, 0, 0], [0, 2, 3], [0, 1, 3]]


def two_networks(n: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    first, second = values_of(n, 9), values_of(n, 5) ** 2
    both = pd.concat({"a": first, "b": second}, axis=1)
    return first, second, both


def test_the_first_of_several_networks_stands_for_the_images() -> None:
    first, _, both = two_networks(60)
    assert (first_network(both).to_numpy() == first.to_numpy()).all()
    assert (spectrum(both).components == spectrum(first).components).all()


def test_each_further_network_has_components_and_neighbours_of_its_own() -> None:
    first, second, both = two_networks(60)
    (found,) = other_networks(both, neighbors(spectrum(both), n_neighbors=7))
    assert (found.spectrum.components == spectrum(second).components).all()
    assert (found.neighbors.indices == neighbors(spectrum(second), n_neighbors=7).indices).all()
    assert other_networks(first, neighbors(spectrum(first))) == ()
