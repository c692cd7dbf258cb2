"""Findings of the model side: what is wrong and where, the figures, and what to change."""

from __future__ import annotations

import hashlib
import inspect
import math
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataaudit.registry import Rule
from dataaudit.types import Finding

__all__ = ["finding", "line_of", "place_of", "plain", "said", "shown"]


def finding(
    rule: Rule,
    where: str,
    message: str,
    *,
    advice: str,
    evidence: Mapping[str, Any] | None = None,
    source: str | None = None,
    sample_id: str | None = None,
    score: float = 0.0,
    probability: float | None = None,
) -> Finding:
    """A finding about a model, its training or deployment, in the type that every report knows.

    Args:
        rule: what is wrong, of `dataaudit.modelcheck.families`.
        where: the module, argument or curve that it is about, such as ``layer1.0.bn2``.
        message: what is wrong, with the figures that show it, in a sentence.
        advice: what to change, in a sentence.
        evidence: further figures; tensors and arrays become lists.
        source: ``file:line`` of the user's code, or None.
        sample_id: the image that shows it, or None.
        score: in [0, 1], 0 surely wrong.
        probability: chance that it is real, or None.

    Returns:
        A finding whose `message` holds both sentences, and whose evidence has ``what``, ``advice`` and
        ``source`` by themselves.
    """
    key = hashlib.blake2b(f"{rule.code}\0{where}\0{sample_id}".encode(), digest_size=8).hexdigest()
    parts = {"what": message, "advice": advice, "source": source}
    return Finding(
        key=key,
        code=rule.code,
        item_id=where,
        sample_id=sample_id,
        score=score,
        probability=probability,
        message=f"{message} {advice}",
        evidence={**plain(evidence or {}), **{name: part for name, part in parts.items() if part}},
    )


def plain(value: Any) -> Any:
    """`value` in the types of JSON: tensors and arrays become lists, NaN and infinity text.

    >>> plain({"ratio": float("nan"), "shape": (2, 3)})
    {'ratio': 'nan', 'shape': [2, 3]}
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return str(value)


def place_of(thing: object) -> str | None:
    """``file:line`` where a class or function is written, relative to the current folder; None where unknown.

    An instance stands where the ``forward`` or ``__call__`` of its class does.
    """
    if not inspect.isclass(thing) and not inspect.isroutine(thing):
        thing = getattr(type(thing), "forward", None) or type(thing)
    try:
        file = inspect.getsourcefile(thing)
        line = inspect.getsourcelines(thing)[1]
    except (OSError, TypeError):
        return None
    return None if file is None else f"{shown(file)}:{line}"


def shown(file: str) -> str:
    """A path relative to the current folder where it is inside it."""
    path, here = Path(file), Path.cwd()
    return path.relative_to(here).as_posix() if path.is_relative_to(here) else str(path)


def said(error: BaseException) -> str:
    """What an exception says, in a line.

    >>> said(ValueError("two words"))
    'ValueError: two words'
    """
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}{': ' + lines[0] if lines else ''}"


def line_of(error: BaseException) -> str | None:
    """``file:line`` of the user's code that raised, or None where it was a library alone."""
    ours, library = str(Path(__file__).parent), ("<frozen", sys.prefix, sys.base_prefix)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((ours, *library)) and "site-packages" not in frame.filename
    ]
    return f"{shown(frames[-1].filename)}:{frames[-1].lineno}" if frames else None
