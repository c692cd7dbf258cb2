"""What was learnt of boxes, kept on disk as long as what it was learnt from stays the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dataaudit.cache import read_arrays, write_arrays
from dataaudit.signals.crops.dense import Dense
from dataaudit.signals.crops.judging import Head

__all__ = ["kept_judge", "key_of"]

Arrays = Mapping[str, np.ndarray[Any, Any]]

_VERSION = 1
_MOST_BYTES = 2**29
_KEEP = 2


def key_of(*parts: str | npt.NDArray[Any]) -> str:
    """Changes with everything that is learnt from."""
    digest = hashlib.md5(str(_VERSION).encode(), usedforsecurity=False)
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes())
        digest.update(b"\0")
    return digest.hexdigest()


def kept_judge(
    folder: Path | None, key: str, learn: Callable[[], tuple[Dense, list[Head]]]
) -> tuple[Dense, list[Head]]:
    """The answers for the cells and the heads, from disk when they are there under `key`."""
    if folder is None:
        return learn()
    file = folder / "signals" / f"box_judge-{key}.npz"
    arrays = read_arrays(file)
    if arrays is not None:
        return _unpacked(arrays)
    found = learn()
    packed = _packed(*found)
    if sum(array.nbytes for array in packed.values()) <= _MOST_BYTES:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_arrays(file, packed)
        others = sorted(file.parent.glob("box_judge-*.npz"), key=lambda other: other.stat().st_mtime)
        for old in others[:-_KEEP]:
            old.unlink(missing_ok=True)
    return found


def _packed(dense: Dense, heads: list[Head]) -> Arrays:
    arrays = {
        "stride": np.array(dense.stride),
        "shapes": np.array([each.shape for each in dense.maps], dtype=np.int64),
        "cells": np.concatenate([each.ravel() for each in dense.maps]),
    }
    for number, head in enumerate(heads):
        arrays |= {f"{number}.{name}": value.numpy() for name, value in head.state_dict().items()}
    return arrays


def _unpacked(arrays: Arrays) -> tuple[Dense, list[Head]]:
    shapes = arrays["shapes"]
    edges = np.cumsum(shapes.prod(1))[:-1]
    parts = np.split(arrays["cells"], edges)
    maps = [part.reshape(shape) for part, shape in zip(parts, shapes.tolist(), strict=True)]
    states: dict[int, dict[str, torch.Tensor]] = {}
    for key in arrays:
        number, dot, name = key.partition(".")
        if dot:
            states.setdefault(int(number), {})[name] = torch.from_numpy(arrays[key])
    heads = []
    for _, state in sorted(states.items()):
        head = Head(state["mean"], state["deviation"])
        head.load_state_dict(state)
        heads.append(head.eval())
    return Dense(stride=int(arrays["stride"]), maps=maps), heads
