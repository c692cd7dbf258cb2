from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from dataaudit.signals.kept import kept
from dataaudit.signals.spectrum import Network, neighbors, other_networks, spectrum


def embeddings_of(n_networks: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.concat(
        {f"n{i}": pd.DataFrame(rng.normal(size=(30, 4)).astype(np.float32)) for i in range(n_networks)},
        axis=1,
    )


def test_the_further_networks_come_back_from_disk_as_they_were(tmp_path: Path) -> None:
    for n_networks in (1, 3):
        values = embeddings_of(n_networks)
        near = neighbors(spectrum(values))
        key, ids = str(n_networks), values.index
        made = kept("other_networks", key, tmp_path, ids, lambda v=values, k=near: other_networks(v, k))

        def never() -> tuple[Network, ...]:
            raise AssertionError("it is on disk")

        again = kept("other_networks", key, tmp_path, ids, never)
        assert len(made) == len(again) == n_networks - 1
        for one, other in zip(made, again, strict=True):
            assert (one.spectrum.components == other.spectrum.components).all()
            assert (one.spectrum.eigenvalues == other.spectrum.eigenvalues).all()
            assert (one.neighbors.indices == other.neighbors.indices).all()
            assert (one.neighbors.similarities == other.neighbors.similarities).all()
