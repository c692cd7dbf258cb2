"""FastestDet, a small detector for the classes of COCO, in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

SIDE = 352


def detect(weights: Path, images: pd.DataFrame, *, least: float = 0.02, overlap: float = 0.5) -> pd.DataFrame:
    """Predictions on images, in pixels.

    Args:
        weights: ``FastestDet.onnx``, with ``coco.names`` beside it.
        images: of a dataset.
        least: confidence of the predictions that are kept.
        overlap: IoU above which the weaker of two boxes of a class goes.
    """
    import onnxruntime
    import torch
    from torchvision.ops import batched_nms

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
    names = np.array((weights.parent / "coco.names").read_text().split("\n"), dtype=object)
    found = []
    for sample_id, filepath in images["filepath"].items():
        image = ImageOps.exif_transpose(Image.open(filepath)).convert("RGB")
        pixels = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR), dtype=np.float32)
        pixels = pixels[:, :, ::-1].transpose(2, 0, 1)[None] / 255
        (output,) = session.run(None, {session.get_inputs()[0].name: pixels})
        data = np.asarray(output)[0]
        n = data.shape[1]
        rows, columns = np.mgrid[:n, :n]
        score = data[0] ** 0.6 * data[5:].max(0) ** 0.4
        kept = score >= least
        x, y = (columns + np.tanh(data[1])) / n, (rows + np.tanh(data[2])) / n
        w, h = (1 / (1 + np.exp(-data[i])) for i in (3, 4))
        boxes = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], -1)[kept]
        boxes = np.clip(boxes, 0, 1) * np.tile(image.size, 2)
        classes, scores = data[5:].argmax(0)[kept], score[kept]
        order = batched_nms(
            *(torch.as_tensor(each) for each in (boxes, scores.astype(float), classes)), overlap
        )
        order = order.numpy()
        table = pd.DataFrame(boxes[order], columns=["x1", "y1", "x2", "y2"])
        found.append(table.assign(sample_id=sample_id, name=names[classes[order]], confidence=scores[order]))
    return pd.concat(found, ignore_index=True)
