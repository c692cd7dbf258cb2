from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance

from dataaudit.decode import decode
from dataaudit.signals.backbones import backbone_named, embedder
from dataaudit.signals.duplicates import near_duplicates
from dataaudit.signals.spectrum import neighbors, spectrum


def groups_of(images: Sequence[Image.Image], **settings: float) -> list[int]:
    """Group number of each picture, saved as PNG, with the default backbone's embeddings."""
    found = embedder(backbone_named(), device="cpu")
    streams = []
    for image in images:
        stream = io.BytesIO()
        image.save(stream, "PNG")
        streams.append(stream.getvalue())
    decoded = [decode(data, size=224) for data in streams]
    arrays = np.stack([found.preprocess(each.image) for each in decoded if each.image is not None])
    ids = pd.Index([f"i{number}" for number in range(len(images))])
    embeddings = pd.DataFrame(
        np.concatenate([found.embed(arrays[i : i + 16]) for i in range(0, len(ids), 16)]), index=ids
    )
    return near_duplicates(
        embeddings,
        neighbors(spectrum(embeddings)),
        pd.Series([each.phash for each in decoded], index=ids, dtype=np.uint64),
        pd.DataFrame([np.frombuffer(each.thumbnail, dtype=np.uint8) for each in decoded], index=ids),
        pd.DataFrame({"digest": [str(hash(data)) for data in streams]}, index=ids),
        **settings,
    ).tolist()


def compressed(image: Image.Image) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=50)
    return Image.open(io.BytesIO(stream.getvalue())).convert("RGB")


def test_copies_join_their_original_and_different_crops_do_not(crops: list[Image.Image]) -> None:
    originals = crops[::2]
    copies = [
        *(compressed(crop) for crop in originals[:8]),
        *(crop.resize((112, 112)) for crop in originals[8:16]),
        *(ImageEnhance.Brightness(crop).enhance(1.15) for crop in originals[16:24]),
        *(crop.copy() for crop in originals[24:28]),
    ]
    groups = groups_of([*originals, *copies])
    n = len(originals)
    joined = [groups[i] == groups[n + i] for i in range(len(copies))]
    assert np.mean(joined) >= 0.9
    assert all(joined[24:])
    # Neighbouring crops of one photograph overlap by a quarter or less here: they are different pictures.
    assert len(set(groups[:n])) >= n - 1


def test_equal_files_are_joined_whatever_else_says_so() -> None:
    ids = pd.Index(["a", "b", "c"])
    embeddings = pd.DataFrame(np.eye(3, dtype=np.float32), index=ids)
    found = near_duplicates(
        embeddings,
        neighbors(spectrum(embeddings)),
        pd.Series([0, 2**64 - 1, 2**32 - 1], index=ids, dtype=np.uint64),
        pd.DataFrame(np.eye(3, 256), index=ids),
        pd.DataFrame({"digest": ["x", "y", "x"]}, index=ids),
    )
    assert found["a"] == found["c"] != found["b"]
    assert found.index.equals(ids)


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_images_have_a_group_each(n: int) -> None:
    ids = pd.Index([f"i{number}" for number in range(n)])
    embeddings = pd.DataFrame(np.eye(n, 4, dtype=np.float32), index=ids)
    found = near_duplicates(
        embeddings,
        neighbors(spectrum(embeddings)),
        pd.Series([0, 2**64 - 1][:n], index=ids, dtype=np.uint64),
        pd.DataFrame(np.eye(n, 256), index=ids),
        pd.DataFrame({"digest": ["x", "y"][:n]}, index=ids),
    )
    assert found.nunique() == n
