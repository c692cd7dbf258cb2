"""What a detector of the user's says about the images."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from dataaudit.decode import open_image
from dataaudit.errors import InputError
from dataaudit.types import CORNERS

__all__ = ["predict"]

Progress = Callable[[int, int], None]


def predict(
    model: Any, filepaths: pd.Series[str], names: Mapping[str, str], progress: Progress | None = None
) -> pd.DataFrame:
    """Run a detector on images, one by one.

    Args:
        model: a detector of torchvision (a module that takes a list of tensors and returns dicts), a model of
            Ultralytics (its results have ``boxes`` and ``names``), or a callable; see
            `dataaudit.predictions.read`.
        filepaths: by sample id.
        names: what a prediction may call a class, as a text, to its name.
        progress: called with the number of images done and of all.

    Returns:
        Columns ``sample_id``, ``name``, ``confidence`` and the corners in pixels of the image as shown.
        Images that can't be opened have none.

    Raises:
        InputError: the model fails on an image, or returns something else.
    """
    run = _torchvision(model) if _is_module(model) else model
    parts = []
    for number, (sample_id, path) in enumerate(filepaths.items(), start=1):
        image = _opened(path)
        if image is not None:
            try:
                said = run(image)
            except Exception as error:
                raise InputError(f"The model failed: {type(error).__name__}: {error}", where=path) from error
            parts.append(_table(said, names, path).assign(sample_id=str(sample_id)))
        if progress is not None:
            progress(number, len(filepaths))
    columns = ["sample_id", "name", "confidence", *CORNERS]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _opened(path: str) -> Image.Image | None:
    try:
        with open_image(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, ValueError, SyntaxError):
        return None


def _is_module(model: Any) -> bool:
    # Ultralytics' model is a module too, and takes images itself
    return hasattr(model, "state_dict") and "predict" not in dir(model)


def _torchvision(model: Any) -> Callable[[Image.Image], Any]:
    import torch
    from torchvision.transforms.functional import pil_to_tensor

    device = next((each.device for each in model.parameters()), torch.device("cpu"))
    model.eval()

    def run(image: Image.Image) -> Any:
        pixels = pil_to_tensor(image).to(device).float() / 255
        with torch.inference_mode():
            return model([pixels])[0]

    return run


def _table(said: Any, names: Mapping[str, str], path: str) -> pd.DataFrame:
    if isinstance(said, (list, tuple)) and len(said) == 1 and not isinstance(said[0], (int, float)):
        said = said[0]
    if hasattr(said, "boxes") and hasattr(said, "names"):
        boxes, own = said.boxes, said.names
        parts = _array(boxes.xyxy), _array(boxes.conf), [own[int(each)] for each in _array(boxes.cls)]
    elif isinstance(said, Mapping) and {"boxes", "scores", "labels"} <= set(said):
        labels = said["labels"]
        listed = labels.tolist() if hasattr(labels, "tolist") else list(labels)
        parts = _array(said["boxes"]), _array(said["scores"]), listed
    else:
        rows = _array(said)
        if rows.size == 0:
            rows = rows.reshape(0, 6)
        if rows.ndim != 2 or rows.shape[1] != 6:
            raise InputError(
                f"The model returned {_described(said)} for an image; expected a dict with boxes, scores and "
                "labels, or an array (m, 6) of x1, y1, x2, y2, confidence and class.",
                where=path,
            )
        parts = rows[:, :4], rows[:, 4], rows[:, 5].astype(int).tolist()
    corners, scores, labels = parts
    if not len(corners) == len(scores) == len(labels):
        raise InputError(
            f"The model returned {len(corners)} boxes, {len(scores)} scores and {len(labels)} labels.",
            where=path,
        )
    table = pd.DataFrame(np.reshape(corners, (-1, 4)), columns=list(CORNERS))
    # A class that the dataset doesn't know keeps its own name and is left out later
    named = [names.get(str(label), str(label)) for label in labels]
    return table.assign(confidence=np.asarray(scores, dtype=np.float64), name=pd.Series(named, dtype=object))


def _array(values: Any) -> np.ndarray[Any, Any]:
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        return np.zeros((1, 0))


def _described(said: Any) -> str:
    shape = getattr(said, "shape", None)
    kind = "a class" if inspect.isclass(said) else f"a {type(said).__name__}"
    return kind if shape is None else f"{kind} of shape {tuple(shape)}"
