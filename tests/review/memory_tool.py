"""A label tool in memory as a back end of FiftyOne's annotation API; import it when FiftyOne has a database.

FiftyOne finds these classes again by the name of this module.
"""

from __future__ import annotations

from typing import Any

import fiftyone as fo
import fiftyone.utils.annotations as foua

SERVER: dict[str, dict[str, dict[str, Any]]] = {}
"""What the tool holds: by the field the labels of each sample, by their ids."""


class MemoryBackendConfig(foua.AnnotationBackendConfig):
    """Settings of the tool; it has none."""


class MemoryBackend(foua.AnnotationBackend):
    """The tool."""

    supported_media_types = ("image",)
    supported_label_types = ("classification", "classifications", "detection", "detections")
    supported_scalar_types = supported_attr_types = ()
    supports_keyframes = supports_video_sample_fields = False
    requires_label_schema = True

    def upload_annotations(self, samples: Any, anno_key: str, launch_editor: bool = False) -> Any:
        """Keep the labels of the samples."""
        for field in self.config.label_schema:
            SERVER[field] = {}
            for sample in samples:
                labels = sample[field]
                several = labels.detections if isinstance(labels, fo.Detections) else [labels]
                SERVER[field][sample.id] = {each.id: each.copy() for each in several if each is not None}
                for key, label in SERVER[field][sample.id].items():
                    label.id = key
        return MemoryAnnotationResults(samples, self.config, anno_key, {}, backend=self)

    def download_annotations(self, results: Any) -> Any:
        """What it holds, as FiftyOne expects it of a back end."""
        found = {}
        for field in self.config.label_schema:
            boxes = any(
                isinstance(each, fo.Detection) for of in SERVER[field].values() for each in of.values()
            )
            found[field] = {"detections" if boxes else "classifications": SERVER[field]}
        return found


class MemoryAnnotationResults(foua.AnnotationResults):
    """A run of the tool."""

    @classmethod
    def _from_dict(cls, d: Any, samples: Any, config: Any, anno_key: str) -> Any:
        return cls(samples, config, anno_key, d["id_map"])
