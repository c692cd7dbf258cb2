"""LBL: the same class under several names."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from dataaudit.checks.groups import are_objects
from dataaudit.registry import check
from dataaudit.types import Fix, Locator, Neighbors, Outcome

__all__ = ["class_spelled_differently", "spelling_key"]

_SEPARATOR = re.compile(r"[\s_]+|(?<=[^\W\d_])[-.]+(?=\w)|(?<=\w)[-.]+(?=[^\W\d_])")
_LEVEL = re.compile(r"([/\\:>|])")
_ROMAN = re.compile(r"[ivxlcdm]+")
_ALIKE = str.maketrans("асеорхуіјѕԁһ’ʼ`´–—‐‑", "aceopxyijsdh''''----")
"""Cyrillic letters and marks of punctuation that look like those of a keyboard."""

_SCORES = {"spelling": 0.0, "plural": 0.1, "typo": 0.2}


@check("LBL009", level="class")
def class_spelled_differently(
    classes: tuple[str, ...],
    labels: pd.DataFrame,
    neighbors: Neighbors | None = None,
    *,
    min_alike: float = 0.5,
    max_share: float = 0.02,
) -> Outcome:
    """The class is there twice, its name written in two ways.

    Scoring: 0 for a name that differs from another only in capital letters, spaces, underscores, hyphens or
    Unicode forms, 0.1 for a plural, 0.2 for a likely slip of one letter, 1 for all others. Names with other
    numbers or other single letters (``grade_1`` and ``grade_2``, ``size S`` and ``size M``) and other places
    in a hierarchy (``animal/dog`` and ``animal/cat``) are different names.

    Flagged: of the names of one class, all but the one with the most labels. A slip is flagged only where the
    images look the same: the class of the other name is at least `min_alike` times as frequent among their
    nearest images as among those of that class itself; where they can't be compared, where the name has at
    most `max_share` of the other's labels. A plural is flagged unless the images look different.

    Fix: rename the class: every label of it gets the more frequent name.
    """
    counts = labels["name"].value_counts().reindex(list(classes)).fillna(0).astype(int)
    # Pictures with many objects look alike whatever one of them is called
    alike = _likeness(labels, None if are_objects(labels) else neighbors)
    kinds: dict[str, tuple[str, str]] = {}
    for one, other, kind in _pairs(classes):
        rare, usual = _by_use(one, other, counts)
        share = None if kind == "spelling" else alike(rare, usual)
        rarely = counts[rare] <= max(1, max_share * counts[usual])
        if (
            kind == "spelling"
            or (kind == "plural" and (share is None or share >= min_alike / 2))
            or (kind == "typo" and (rarely if share is None else share >= min_alike))
        ):
            known = kinds.get(rare)
            if known is None or (counts[usual], usual) > (counts[known[0]], known[0]):
                kinds[rare] = (usual, kind)
    return _outcome(classes, counts, kinds)


def spelling_key(name: str) -> str:
    """What stays the same when a name is written in another way.

    >>> [spelling_key(name) for name in ("Traffic_Light", "traffic light", "grade-1", "1.5", "B")]
    ['trafficlight', 'trafficlight', 'grade_1', '1.5', 'B']
    """
    tokens = _tokens(name)
    key = ""
    for token in tokens:
        numbers = key[-1:].isdigit() and token[0].isdigit()
        apart = key and (len(token) == 1 or numbers)
        key += f"_{token}" if apart else token
    return key


def _tokens(name: str) -> list[str]:
    """The words of a name, in small letters; a name of one or two letters keeps its own."""
    text = "".join(each for each in unicodedata.normalize("NFKC", name) if unicodedata.category(each) != "Cf")
    text = text.strip()
    if any("a" <= each <= "z" or not each.isalpha() for each in text.lower()):
        text = text.translate(_ALIKE)
    if len(text) > 2:
        text = text.casefold()
    return [token for part in _SEPARATOR.split(text) for token in _LEVEL.split(part) if token]


class _Pair(NamedTuple):
    one: str
    other: str
    kind: str


def _pairs(classes: Sequence[str]) -> Iterator[_Pair]:
    """Names that may be one class's, found by what they have in common rather than by comparing all pairs."""
    words = {name: _tokens(name) for name in classes}
    seen: set[tuple[str, str]] = set()
    for kind, keys in (("spelling", _same_key), ("plural", _singular_keys), ("typo", _shortened_keys)):
        groups: dict[str, list[str]] = defaultdict(list)
        for name in classes:
            for key in keys(name, words[name]):
                groups[key].append(name)
        for members in groups.values():
            for at, one in enumerate(members):
                for other in members[at + 1 :]:
                    if one == other or (one, other) in seen:
                        continue
                    if kind != "typo" or _is_slip(words[one], words[other]):
                        seen.add((one, other))
                        yield _Pair(one, other, kind)


def _same_key(name: str, words: list[str]) -> set[str]:
    key = spelling_key(name)
    return {key} if key else set()


def _singular_keys(name: str, words: list[str]) -> set[str]:
    """The name with its last word in the singular, where that may be the plural of a word."""
    if not words or not words[-1].isalpha():
        return set()
    last, rest = words[-1], words[:-1]
    forms = {last}
    if len(last) > 3 and last.endswith("s") and not last.endswith(("ss", "us", "is")):
        forms.add(last[:-1])
        if last.endswith("ies"):
            forms.add(f"{last[:-3]}y")
        if last.endswith(("ses", "xes", "zes", "ches", "shes")):
            forms.add(last[:-2])
    return {" ".join([*rest, form]) for form in forms}


def _shortened_keys(name: str, words: list[str]) -> set[str]:
    """Every way to leave one letter out of a name, and the name: names with one slip share one."""
    text = " ".join(words)
    return {text, *(text[:at] + text[at + 1 :] for at in range(len(text)) if text[at].isalpha())}


def _is_slip(one: list[str], other: list[str]) -> bool:
    """Whether two names differ by one letter, or two in the wrong order, in one word that isn't short."""
    if len(one) != len(other):
        return False
    differing = [(a, b) for a, b in zip(one, other, strict=True) if a != b]
    if len(differing) != 1:
        return False
    a, b = differing[0]
    if min(len(a), len(b)) < 4 or max(len(a), len(b)) < 5 or not (a.isalpha() and b.isalpha()):
        return False
    if _ROMAN.fullmatch(a) and _ROMAN.fullmatch(b):
        return False
    return _one_slip(a, b)


def _one_slip(a: str, b: str) -> bool:
    if len(a) > len(b):
        a, b = b, a
    start = next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), len(a))
    if len(a) < len(b):
        return a[start:] == b[start + 1 :]
    swapped = a[start : start + 2] == b[start : start + 2][::-1] and a[start + 2 :] == b[start + 2 :]
    return swapped or a[start + 1 :] == b[start + 1 :]


def _by_use(one: str, other: str, counts: pd.Series[int]) -> tuple[str, str]:
    """The name to give up and the one to keep: with more labels, plainer, first in order."""

    def worth(name: str) -> tuple[int, bool, bool, str]:
        plain = name == name.strip() and name.isascii()
        return (-int(counts[name]), not plain, name != name.lower(), name)

    usual, rare = sorted((one, other), key=worth)
    return rare, usual


def _likeness(labels: pd.DataFrame, neighbors: Neighbors | None) -> Callable[[str, str], float | None]:
    """How often a class is among the neighbours of another, as a multiple of how often among its own."""
    if neighbors is None or not len(neighbors.ids):
        return lambda rare, usual: None
    names = labels.dropna(subset="name").drop_duplicates("sample_id").set_index("sample_id")["name"]
    own = names.reindex(neighbors.ids).to_numpy(dtype=object)
    n_named = max(int(pd.notna(own).sum()), 1)

    def share(rows: Any, name: str) -> float:
        near = own[neighbors.indices[rows]]
        return float((near == name).sum()) / max(int(pd.notna(near).sum()), 1)

    def alike(rare: str, usual: str) -> float | None:
        of_rare, of_usual = np.flatnonzero(own == rare), np.flatnonzero(own == usual)
        if not len(of_rare) or not len(of_usual):
            return None
        among_own = share(of_usual, usual)
        # Neighbours that say nothing about the class say nothing about its name either
        if among_own < 2 * len(of_usual) / n_named and len(of_rare) + len(of_usual) < n_named:
            return None
        return share(of_rare, usual) / max(among_own, 1e-9)

    return alike


def _outcome(classes: Sequence[str], counts: pd.Series[int], kinds: dict[str, tuple[str, str]]) -> Outcome:
    score = pd.Series(1.0, index=list(classes))
    rows: dict[str, tuple[str, str, str]] = {}
    fixes: dict[str, Fix] = {}
    for rare, (usual, kind) in kinds.items():
        while usual in kinds:  # of three spellings two point at the third
            usual = kinds[usual][0]
        score[rare] = _SCORES[kind]
        both = f"{rare!r} ({_labels(counts[rare])}) and {usual!r} ({_labels(counts[usual])})"
        rows[rare] = (f"{both} {_how(rare, usual, kind)}.", usual, f"LBL009-{usual}")
        if counts[rare]:
            fixes[rare] = Fix(
                op="rename", sample_id="", label_id="", locator=Locator(file=""), old=rare, new=usual
            )
    return Outcome(
        score=score,
        flagged=score < 1,
        evidence=pd.DataFrame.from_dict(rows, orient="index", columns=["message", "suggested", "group"]),
        fixes=fixes,
    )


def _labels(n: Any) -> str:
    return f"{int(n):,} label{'' if n == 1 else 's'}"


def _how(rare: str, usual: str, kind: str) -> str:
    if kind == "plural":
        return "are singular and plural"
    if kind == "typo":
        return "differ by one letter, and one looks like a slip"
    if rare.casefold() == usual.casefold():
        return "differ in capital letters only"
    if "".join(rare.split()) == "".join(usual.split()):
        return "differ in spaces only"
    if rare.isascii() and usual.isascii():
        return "differ in how the same words are written only"
    return "look the same and are made of different characters"
