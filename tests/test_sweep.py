from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pictures import write_digits
from PIL import Image

from dataaudit.errors import InputError
from dataaudit.sweep import Embedder, sweep

BOTH = pytest.mark.parametrize("workers", [1, 4])


def embedder_of(counts: list[int] | None = None) -> Embedder:
    """The 64 grey values of an 8 x 8 thumbnail; `counts` takes the size of each batch."""

    def embed(batch: np.ndarray) -> np.ndarray:
        if counts is not None:
            counts.append(len(batch))
        return batch.reshape(len(batch), -1).astype(np.float32)

    return Embedder(
        name="pixels",
        size=8,
        preprocess=lambda image: np.asarray(image.convert("L").resize((8, 8))),
        embed=embed,
        batch=32,
    )


def settle(*files: Path) -> None:
    """Make files old enough for their digests to be believed."""
    for file in files:
        os.utime(file, (1_600_000_000, 1_600_000_000))


@pytest.fixture
def paths(tmp_path: Path) -> pd.Series:
    files, _ = write_digits(tmp_path / "digits", 100)
    settle(*(tmp_path / "digits" / file for file in files))
    return pd.Series([str(tmp_path / "digits" / file) for file in files], index=files)


@BOTH
def test_each_file_is_decoded_and_embedded_once(paths: pd.Series, tmp_path: Path, workers: int) -> None:
    counts: list[int] = []
    first = sweep(paths, embedder=embedder_of(counts), cache=tmp_path / "cache", workers=workers)
    assert (first.n_decoded, sum(counts)) == (100, 100)
    again = sweep(paths, embedder=embedder_of(counts), cache=tmp_path / "cache", workers=workers)
    assert (again.n_decoded, sum(counts)) == (0, 100)
    pd.testing.assert_frame_equal(first.embeddings, again.embeddings)
    pd.testing.assert_frame_equal(first.properties, again.properties)
    pd.testing.assert_series_equal(first.phash, again.phash)


def test_the_result_is_equal_with_one_worker_and_with_four(paths: pd.Series) -> None:
    one, four = (sweep(paths, embedder=embedder_of(), workers=workers) for workers in (1, 4))
    pd.testing.assert_frame_equal(one.embeddings, four.embeddings)
    pd.testing.assert_frame_equal(one.properties, four.properties)
    pd.testing.assert_series_equal(one.digests, four.digests)


def test_features_stand_beside_their_image(paths: pd.Series) -> None:
    swept = sweep(paths, embedder=embedder_of(), workers=4)
    for sample_id in paths.index[::17]:
        with Image.open(paths[sample_id]) as image:
            expected = np.asarray(image.convert("RGB").convert("L").resize((8, 8))).ravel()
        assert swept.embeddings.loc[sample_id].tolist() == expected.tolist()
    assert (swept.properties["width"] == 32).all()


def test_without_an_embedder_there_are_properties_only(paths: pd.Series) -> None:
    swept = sweep(paths)
    assert swept.embeddings is None
    assert len(swept.phash) == 100


def test_no_images_are_no_problem() -> None:
    swept = sweep(pd.Series([], dtype=object), embedder=embedder_of())
    assert (len(swept.digests), len(swept.embeddings), swept.n_decoded) == (0, 0, 0)


def test_a_changed_file_is_seen(paths: pd.Series, tmp_path: Path) -> None:
    before = sweep(paths, embedder=embedder_of(), cache=tmp_path / "cache")
    changed = Path(paths.iloc[3])
    Image.new("L", (40, 40), 200).save(changed)
    after = sweep(paths, embedder=embedder_of(), cache=tmp_path / "cache")
    assert after.n_decoded == 1
    assert after.digests.iloc[3] != before.digests.iloc[3]
    assert after.embeddings.iloc[3].tolist() == [200.0] * 64


def test_a_file_changed_right_after_it_was_read_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    paths = pd.Series([str(file)], index=["a.png"])
    for grey in (10, 20, 30):
        Image.new("L", (40, 40), grey).save(file, compress_level=0)
        assert sweep(paths, embedder=embedder_of(), cache=tmp_path / "cache").embeddings.iloc[0, 0] == grey


def test_a_moved_file_costs_no_decode(paths: pd.Series, tmp_path: Path) -> None:
    before = sweep(paths, embedder=embedder_of(), cache=tmp_path / "cache")
    moved = tmp_path / "moved.png"
    Path(paths.iloc[0]).rename(moved)
    after = sweep(paths.replace(paths.iloc[0], str(moved)), embedder=embedder_of(), cache=tmp_path / "cache")
    assert after.n_decoded == 0
    assert after.embeddings.iloc[0].tolist() == before.embeddings.iloc[0].tolist()


def test_equal_files_of_one_chunk_are_decoded_once(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("L", (40, 40), 7).save(tmp_path / name)
    swept = sweep(
        pd.Series({name: str(tmp_path / name) for name in ("a.png", "b.png")}), embedder=embedder_of()
    )
    assert swept.n_decoded == 1
    assert (swept.embeddings == 7).all(axis=None)


def test_a_known_digest_spares_the_reading(paths: pd.Series, tmp_path: Path) -> None:
    before = sweep(paths, embedder=embedder_of(), cache=tmp_path / "cache")
    Path(paths.iloc[0]).unlink()
    after = sweep(paths, embedder=embedder_of(), cache=tmp_path / "cache", digests=before.digests)
    assert (after.n_decoded, len(after.errors)) == (0, 0)


def test_missing_and_broken_files_have_reasons_and_no_features(paths: pd.Series, tmp_path: Path) -> None:
    Path(paths.iloc[1]).unlink()
    Path(paths.iloc[2]).write_bytes(b"")
    Path(paths.iloc[4]).write_text("text")
    swept = sweep(paths, embedder=embedder_of(), cache=tmp_path / "cache")
    assert swept.errors.to_dict() == {
        paths.index[1]: "the file can't be opened: it is missing, or may not be read",
        paths.index[2]: "the file is empty (0 bytes)",
        paths.index[4]: "not an image: its 4 bytes begin with b'text'",
    }
    assert list(swept.embeddings.index) == [i for i in paths.index if i not in swept.errors.index]
    assert list(swept.phash.index) == list(swept.embeddings.index)
    assert swept.digests[paths.index[1]] is None
    again = sweep(paths, embedder=embedder_of(), cache=tmp_path / "cache")
    assert again.n_decoded == 0
    pd.testing.assert_series_equal(again.errors, swept.errors)


def test_a_folder_in_the_place_of_an_image_is_an_error_of_that_image(tmp_path: Path) -> None:
    assert list(sweep(pd.Series({"a": str(tmp_path)})).errors.index) == ["a"]


@BOTH
def test_ctrl_c_keeps_what_was_done(paths: pd.Series, tmp_path: Path, workers: int) -> None:
    counts: list[int] = []

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(
            paths, embedder=embedder_of(counts), cache=tmp_path / "cache", workers=workers, progress=interrupt
        )
    done = sum(counts)
    assert done >= 32
    again = sweep(paths, embedder=embedder_of(counts), cache=tmp_path / "cache", workers=workers)
    assert again.n_decoded == 100 - done
    assert sum(counts) == 100


def test_progress_reaches_the_whole(paths: pd.Series) -> None:
    seen: list[tuple[int, int]] = []
    sweep(paths, embedder=embedder_of(), workers=1, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (100, 100)


@pytest.mark.parametrize("damage", ["truncate", "zeros", "text", "flip"])
def test_a_damaged_part_of_the_cache_is_computed_again(paths: pd.Series, tmp_path: Path, damage: str) -> None:
    before = sweep(paths, embedder=embedder_of(), cache=tmp_path / "cache")
    (part,) = (tmp_path / "cache").glob("*/*.npz")
    data = bytearray(part.read_bytes())
    if damage == "truncate":
        del data[len(data) // 2 :]
    elif damage == "zeros":
        data[: len(data) // 2] = bytes(len(data) // 2)
    elif damage == "flip":
        for position in range(0, len(data), 97):
            data[position] ^= 0xFF
    else:
        data = bytearray(b"nothing")
    part.write_bytes(bytes(data))
    after = sweep(paths, embedder=embedder_of(), cache=tmp_path / "cache")
    assert after.n_decoded == 100
    pd.testing.assert_frame_equal(after.embeddings, before.embeddings)


def test_a_damaged_list_of_digests_is_made_again(paths: pd.Series, tmp_path: Path) -> None:
    sweep(paths, embedder=embedder_of(), cache=tmp_path / "cache")
    for data in (b"", b"nothing", (tmp_path / "cache" / "digests.feather").read_bytes()[:200]):
        (tmp_path / "cache" / "digests.feather").write_bytes(data)
        assert sweep(paths, embedder=embedder_of(), cache=tmp_path / "cache").n_decoded == 0


@pytest.mark.parametrize(
    ("embed", "message"),
    [
        (
            lambda batch: batch.reshape(-1),
            r"returned an array of shape \(6400,\) for 100 images; expected \(100, d\)",
        ),
        (lambda batch: batch[:1].reshape(1, -1), r"returned an array of shape \(1, 64\) for"),
        (lambda batch: batch, r"returned an array of shape \(\d+, 8, 8\) for"),
        (lambda batch: batch.reshape(len(batch), -1) * np.nan, "NaN or infinite"),
        (lambda batch: np.zeros((len(batch), len(batch))), "features of 32 numbers, and now of 4"),
    ],
)
def test_features_of_a_wrong_shape_are_an_error_that_says_so(
    paths: pd.Series, embed: object, message: str
) -> None:
    wrong = Embedder(name="mine", size=8, preprocess=embedder_of().preprocess, embed=embed, batch=32)
    with pytest.raises(InputError, match=message.replace("6400", r"\d+").replace("100", r"\d+")):
        sweep(paths, embedder=wrong, workers=1)


def test_arrays_of_several_shapes_are_an_error(tmp_path: Path) -> None:
    for name, size in (("a.png", 8), ("b.png", 9)):
        Image.new("L", (size, size)).save(tmp_path / name)
    paths = pd.Series({name: str(tmp_path / name) for name in ("a.png", "b.png")})
    wrong = Embedder(name="mine", size=8, preprocess=np.asarray, embed=embedder_of().embed)
    with pytest.raises(InputError, match=r"arrays of several shapes: \[\(8, 8, 3\), \(9, 9, 3\)\]"):
        sweep(paths, embedder=wrong)


def test_a_transform_that_fails_names_the_image(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    wrong = Embedder(name="mine", size=8, preprocess=lambda image: image.missing, embed=embedder_of().embed)
    with pytest.raises(InputError, match=r"a\.png: The transform of mine failed: AttributeError"):
        sweep(pd.Series({"a.png": str(tmp_path / "a.png")}), embedder=wrong)


def test_large_features_stay_finite_in_the_cache(paths: pd.Series, tmp_path: Path) -> None:
    pixels = embedder_of()
    large = Embedder(
        name="large", size=8, preprocess=pixels.preprocess, embed=lambda batch: pixels.embed(batch) * 1e6
    )
    sweep(paths, embedder=large, cache=tmp_path / "cache")
    swept = sweep(paths, embedder=large, cache=tmp_path / "cache")
    assert swept.n_decoded == 0
    assert swept.embeddings.to_numpy().max() == pytest.approx(255e6, rel=0.1)


def test_a_network_of_another_width_under_the_same_name_is_an_error(paths: pd.Series, tmp_path: Path) -> None:
    sweep(paths, embedder=embedder_of(), cache=tmp_path / "cache")
    Image.new("L", (40, 40), 3).save(paths.iloc[0])
    wider = Embedder(
        name="pixels", size=8, preprocess=embedder_of().preprocess, embed=lambda b: np.zeros((len(b), 7))
    )
    with pytest.raises(InputError, match="features of 64 numbers, and now of 7"):
        sweep(paths, embedder=wider, cache=tmp_path / "cache")


def test_a_photo_above_pillows_own_limit_decodes_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (100, 100)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    assert sweep(pd.Series({"a.png": str(tmp_path / "a.png")})).errors.empty
    assert Image.MAX_IMAGE_PIXELS == 50


def test_two_processes_at_once_leave_a_good_cache(paths: pd.Series, tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
import numpy as np
import pandas as pd
from dataaudit.sweep import Embedder, sweep
embedder = Embedder(
    name="pixels",
    size=8,
    preprocess=lambda image: np.asarray(image.convert("L").resize((8, 8))),
    embed=lambda batch: batch.reshape(len(batch), -1).astype("f4"),
)
assert len(sweep(pd.Series(sys.argv[2:]), embedder=embedder, cache=Path(sys.argv[1])).embeddings) == 100
"""
    command = [sys.executable, "-c", script, str(tmp_path / "cache"), *paths]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(2)]
    assert [(process.communicate()[1], process.returncode) for process in running] == [(b"", 0)] * 2
    swept = sweep(paths, embedder=embedder_of(), cache=tmp_path / "cache")
    assert swept.n_decoded == 0
    assert not list((tmp_path / "cache").rglob("*.part"))
    pd.testing.assert_frame_equal(swept.embeddings, sweep(paths, embedder=embedder_of()).embeddings)
