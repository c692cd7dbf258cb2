"""Signals computed from other signals, kept on disk as long as what they were computed from stays the same.

Rows are in the order of the images' digests, so that a kept signal is still right when a fix moves a file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dataaudit.cache import read_arrays, write_arrays
from dataaudit.signals.spectrum import Network, Spectrum
from dataaudit.types import CORNERS, Neighbors

__all__ = ["is_kept", "kept"]

Arrays = Mapping[str, np.ndarray[Any, Any]]

_LARGEST = 2**30
_KEEP = 4


def kept(name: str, key: str, folder: Path | None, ids: pd.Index, compute: Callable[[], Any]) -> Any:
    """The signal `name`, from disk when it is there under `key`.

    Args:
        name: name of the signal.
        key: changes with everything that the signal depends on.
        folder: the cache; None keeps nothing.
        ids: sample ids in the order of the embeddings.
        compute: makes the signal.
    """
    if folder is None or name not in _PACKED:
        return compute()
    pack, unpack = _PACKED[name]
    file = folder / "signals" / f"{name}-{key}.npz"
    arrays = read_arrays(file)
    if arrays is not None:
        return unpack(arrays, ids)
    value = compute()
    packed = pack(value, ids)
    if sum(array.nbytes for array in packed.values()) <= _LARGEST:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_arrays(file, packed)
        others = sorted(file.parent.glob(f"{name}-*.npz"), key=lambda other: other.stat().st_mtime)
        for old in others[:-_KEEP]:
            old.unlink(missing_ok=True)
    return value


def is_kept(name: str) -> bool:
    """Whether a signal is kept on disk."""
    return name in _PACKED


def _pack_spectrum(value: Spectrum, ids: pd.Index) -> Arrays:
    return {"components": value.components, "eigenvalues": value.eigenvalues}


def _unpack_spectrum(arrays: Arrays, ids: pd.Index) -> Spectrum:
    return Spectrum(ids=ids, components=arrays["components"], eigenvalues=arrays["eigenvalues"])


def _pack_neighbors(value: Neighbors, ids: pd.Index) -> Arrays:
    return {"indices": value.indices.astype(np.int32), "similarities": value.similarities}


def _unpack_neighbors(arrays: Arrays, ids: pd.Index) -> Neighbors:
    return Neighbors(ids=ids, indices=arrays["indices"].astype(np.int64), similarities=arrays["similarities"])


def _pack_networks(value: tuple[Network, ...], ids: pd.Index) -> Arrays:
    packed: dict[str, np.ndarray[Any, Any]] = {}
    for number, network in enumerate(value):
        parts = {**_pack_spectrum(network.spectrum, ids), **_pack_neighbors(network.neighbors, ids)}
        packed |= {f"{number}_{name}": array for name, array in parts.items()}
    return packed


def _unpack_networks(arrays: Arrays, ids: pd.Index) -> tuple[Network, ...]:
    n_networks = len({name.partition("_")[0] for name in arrays})
    by_network = [
        {name.partition("_")[2]: array for name, array in arrays.items() if name.startswith(f"{number}_")}
        for number in range(n_networks)
    ]
    return tuple(
        Network(spectrum=_unpack_spectrum(parts, ids), neighbors=_unpack_neighbors(parts, ids))
        for parts in by_network
    )


def _pack_groups(value: pd.Series[int], ids: pd.Index) -> Arrays:
    return {"groups": value.loc[ids].to_numpy(dtype=np.int64)}


def _unpack_groups(arrays: Arrays, ids: pd.Index) -> pd.Series[int]:
    groups: pd.Series[int] = pd.Series(arrays["groups"], index=ids, name="group", dtype="int64")
    return groups


def _pack_probabilities(value: pd.DataFrame, ids: pd.Index) -> Arrays:
    return {
        "rows": ids.get_indexer(value.index),
        "classes": np.array(list(value.columns), dtype=str),
        "values": value.to_numpy(dtype=np.float32),
    }


def _unpack_probabilities(arrays: Arrays, ids: pd.Index) -> pd.DataFrame:
    classes = pd.Index(arrays["classes"].tolist(), dtype=object)
    return pd.DataFrame(arrays["values"], index=ids[arrays["rows"]], columns=classes)


def _pack_detections(value: pd.DataFrame, ids: pd.Index) -> Arrays:
    names, numbers = np.unique(value["name"].to_numpy(dtype=str), return_inverse=True)
    return {
        "rows": ids.get_indexer(pd.Index(value["sample_id"])).astype(np.int32),
        "classes": names,
        "numbers": numbers.astype(np.int32),
        "values": value[["confidence", *CORNERS]].to_numpy(dtype=np.float64),
    }


def _unpack_detections(arrays: Arrays, ids: pd.Index) -> pd.DataFrame:
    values = pd.DataFrame(arrays["values"], columns=["confidence", *CORNERS])
    values.insert(0, "sample_id", ids.to_numpy(dtype=object)[arrays["rows"]])
    values.insert(1, "name", arrays["classes"].astype(object)[arrays["numbers"]])
    return values


_PACKED: dict[str, tuple[Callable[[Any, pd.Index], Arrays], Callable[[Arrays, pd.Index], Any]]] = {
    "spectrum": (_pack_spectrum, _unpack_spectrum),
    "neighbors": (_pack_neighbors, _unpack_neighbors),
    "other_networks": (_pack_networks, _unpack_networks),
    "near_duplicates": (_pack_groups, _unpack_groups),
    "pred_probs": (_pack_probabilities, _unpack_probabilities),
    "multilabel_probs": (_pack_probabilities, _unpack_probabilities),
    "detections": (_pack_detections, _unpack_detections),
}
