"""The desks of the App's server: one for each dataset that is reviewed there."""

from __future__ import annotations

import getpass
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from dataaudit import tables
from dataaudit.errors import DataAuditError
from dataaudit.formats._fiftyone import connect
from dataaudit.formats.fiftyone_dataset import from_dataset
from dataaudit.review.desk import Desk, Order

__all__ = ["answer", "desk_of", "take"]

_desks: dict[str, Desk] = {}
_opening = threading.Lock()


def desk_of(dataset: str) -> Desk:
    """The desk of a FiftyOne dataset; it stays open, and needs no database afterwards.

    Raises:
        InputError: no such dataset, or it was never audited.
    """
    with _opening:
        if dataset not in _desks:
            _desks[dataset] = Desk(order=_order_of(dataset))
        return _desks[dataset]


def take(order: Order) -> Desk:
    """Open the desk for an order, in place of the one that the dataset had.

    Raises:
        InputError: the dataset was never audited.
    """
    with _opening:
        _desks[order.dataset] = Desk(order=order)
        return _desks[order.dataset]


def _order_of(dataset: str) -> Order:
    """The order of a dataset that was opened in an App of the user's own."""
    loaded = connect().load_dataset(dataset)
    source = tables.source_of(loaded) or from_dataset(loaded).source
    assert source is not None
    return Order(source=source, dataset=dataset, reviewer=getpass.getuser())


def answer(dataset: str | None, question: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a question of the panel; an error is an answer too."""
    if dataset is None:
        return {"error": "No dataset is open."}
    try:
        desk = desk_of(dataset)
        if question.get("selected") is not None:
            question = {**question, "items": _items(dataset, question["selected"])}
        return desk.answer(question)
    except (DataAuditError, ValueError, OSError) as error:
        return {"error": str(error)}


def _items(dataset: str, selected: Sequence[str]) -> list[str]:
    """The sample ids and label ids of what is selected in the grid: images, or the patches of objects."""
    loaded = connect().load_dataset(dataset)
    there = loaded.get_field_schema(flat=True)
    chosen = loaded.select(list(selected))
    if len(chosen):
        return list(map(str, chosen.values(tables.ID if tables.ID in there else "id")))
    # The id of a patch is that of its object
    fields = [name.removesuffix(".detections") for name in there if name.endswith(".detections")]
    items: list[str] = []
    for name in fields:
        path = f"{name}.detections.{tables.ID}"
        labels = loaded.select_labels(ids=list(selected), fields=[name])
        items += map(str, labels.values(path if path in there else f"{name}.detections.id", unwind=True))
    return items
