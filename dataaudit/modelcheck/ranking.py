"""Which finding is the cause and which only follows from it, where several checks looked at one set-up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dataaudit.types import Finding

__all__ = ["Settled", "explains", "harmless", "rank", "settle", "with_rising_scores"]

_STATISTICS = ("TRN021", "TRN022", "TRN023", "TRN024")
_TRIALS = ("TRN004", "TRN005", "TRN008", "TRN009", "TRN010", "TRN011", "TRN012")
_TRAINING = ("TRN001", *_TRIALS, "TRN020", *_STATISTICS)
_LOSS = tuple(f"MOD{number:03d}" for number in (25, 22, 24, 28, 29, 20, 21, 23, 26, 27))
_NAN_LOSS = "NaN loss"
"""Stands for MOD024 where it says no more than that the loss, or what the model gives it, is NaN."""

_EXPLAINS: Mapping[str, tuple[str, ...]] = {
    "TRN002": ("TRN001", "TRN005", "MOD026", *_STATISTICS),
    "TRN003": ("TRN001", "TRN024"),
    "TRN004": ("TRN001", "TRN020", *_STATISTICS),
    "TRN005": ("TRN001", "MOD011", *_STATISTICS),
    "TRN006": (*_TRAINING, "MOD011"),
    "TRN007": (*_TRAINING, "TRN002", "MOD026"),
    "TRN008": ("TRN001", *_STATISTICS),
    "TRN009": ("TRN001", "TRN020", "MOD007", *_STATISTICS),
    "TRN010": (*_TRAINING, "MOD010", "MOD011", _NAN_LOSS, "MOD026"),
    "TRN011": ("TRN001", "MOD026", *_STATISTICS),
    "TRN012": (*_TRAINING, "MOD005", "MOD007", "MOD010", "MOD011", _NAN_LOSS, "MOD026"),
    "TRN014": ("TRN001", "TRN004", *_STATISTICS),
    "TRN020": ("TRN001", "TRN004", *_STATISTICS, _NAN_LOSS),
    "TRN021": ("TRN001", "TRN024"),
    "TRN022": ("TRN001", "TRN024"),
    "TRN023": ("TRN001", "TRN021", "TRN024"),
    "TRN024": ("TRN001",),
    "MOD001": ("TRN001",),
    "MOD002": ("TRN001",),
    "MOD003": ("TRN001", "TRN020", "MOD001", "MOD004", "MOD005", "MOD010", _NAN_LOSS),
    "MOD005": ("TRN001",),
    "MOD006": ("MOD001", "MOD002", "MOD005", "MOD007"),
    "MOD008": (*_TRAINING, "TRN003", "MOD001", "MOD002", "MOD005", "MOD026"),
    "MOD010": (*_TRAINING, "MOD005", "MOD011", "MOD026", "MOD007", _NAN_LOSS, "MOD040"),
    "MOD011": ("TRN001", "TRN005", "TRN021", "TRN023"),
    "MOD040": ("TRN001",),
    **dict.fromkeys(_LOSS, (*_TRAINING, "TRN002", "MOD040", _NAN_LOSS)),
}


@dataclass(frozen=True, kw_only=True)
class Settled:
    """The findings of several checks, each cause once.

    Attributes:
        findings: the causes, first what comes before the others.
        explained: a finding that follows from another, and that other.
        passed_over: statistics of gradients to which nothing else points.
    """

    findings: tuple[Finding, ...]
    explained: tuple[tuple[Finding, Finding], ...] = ()
    passed_over: tuple[Finding, ...] = ()


def settle(found: Sequence[Finding], *, sound: bool, matching: bool = False) -> Settled:
    """Put the cause first, and under it what follows from it.

    Args:
        found: of all checks, in any order.
        sound: whether learning the batch showed nothing wrong, so that statistics count if far off.
        matching: whether the loss matches predictions with targets, and leaves out what matches none.
    """
    unique: dict[str, Finding] = {}
    for item in found:
        unique.setdefault(item.key, item)
    past = tuple(item for item in unique.values() if sound and harmless(item, matching))
    ordered = sorted(
        (item for item in unique.values() if item not in past), key=lambda one: (rank(one), one.score)
    )
    roots: list[Finding] = []
    under: dict[str, Finding] = {}
    pairs: list[tuple[Finding, str]] = []
    for at, item in enumerate(ordered):
        cause = next((one for one in ordered[:at] if explains(one, item)), None)
        if cause is None:
            roots.append(item)
            continue
        root = under.get(cause.key, cause)
        under[item.key] = root
        pairs.append((item, root.key))
    told = {root.key: _with(root, [item for item, key in pairs if key == root.key]) for root in roots}
    return Settled(
        findings=tuple(told.values()),
        explained=tuple((item, told[key]) for item, key in pairs),
        passed_over=past,
    )


def _with(root: Finding, follow: Sequence[Finding]) -> Finding:
    """A cause with what follows from it in its evidence."""
    if not follow:
        return root
    rows = [
        {"code": item.code, "about": item.item_id, "what": item.evidence.get("what", item.message)}
        for item in follow
    ]
    return replace(root, evidence={**root.evidence, "explains": rows})


def rank(item: Finding) -> int:
    """Place of a finding in the chain from cause to consequence; lower comes first.

    Data and weights that are broken come before the step, the step before the loss, what is known of the
    set-up before what one trial shows, a trial before statistics, and that nothing helps last.
    """
    code, evidence = item.code, item.evidence
    if evidence.get("suspected"):
        return 45
    if code == "TRN012" and "tried" not in evidence:
        return 10
    if code == "TRN020" and item.item_id == "inputs":
        return 11
    if code == "TRN006":
        return 12 if _all_equal(item) else 38
    if code == "MOD010":
        return 14 if evidence.get("weights") else 24
    if code == "TRN002":
        return 18 if evidence.get("cut") or evidence.get("gradients_off") else 30
    if code in _LOSS:
        if _kind(item) == _NAN_LOSS:
            return 60
        return 28 if item.score >= 0.5 else 22
    if code == "TRN020":
        return 25 if item.item_id != "loss" else 58
    if code == "TRN003" and item.score > 0:
        return 42
    return _RANKS.get(code, 50)


_RANKS: Mapping[str, int] = {
    "MOD003": 15, "TRN007": 16, "TRN014": 21, "MOD008": 20, "MOD040": 29,
    **dict.fromkeys(_TRIALS, 34), "TRN003": 36, "MOD006": 40, "TRN013": 44,
    **dict.fromkeys(("MOD001", "MOD002", "MOD004", "MOD005", "MOD007", "MOD009"), 46),
    "MOD011": 52, "TRN023": 54, "TRN021": 55, "TRN022": 55, "TRN024": 56, "TRN001": 70,
}  # fmt: skip


def _kind(item: Finding) -> str:
    """Its code, or ``NaN loss`` for a finding that only says that the loss or what it is given is NaN."""
    is_nan = item.code == "MOD024" and "NaN or infini" in item.message
    return _NAN_LOSS if is_nan and not item.item_id.endswith("target") else item.code


def explains(cause: Finding, item: Finding) -> bool:
    """Whether `item` is what one expects to see where `cause` holds.

    >>> from dataaudit.modelcheck.families import mod, trn
    >>> from dataaudit.modelcheck.findings import finding
    >>> softmax = finding(mod.SOFTMAX_BEFORE_LOSS, "loss", "It is there twice.", advice="Take one away.")
    >>> flat = finding(trn.CANNOT_OVERFIT, "Net", "It is not learned.", advice="Look at the loss.")
    >>> explains(softmax, flat), explains(flat, softmax)
    (True, False)
    """
    kind = _kind(item)
    if kind not in _EXPLAINS.get(cause.code, ()) or _kind(cause) == _NAN_LOSS:
        return False
    if cause.evidence.get("suspected"):
        return kind in (*_STATISTICS, "TRN001")
    if cause.code in _LOSS and kind == "TRN004":
        # A wrong loss costs a factor of ten or so: a rate that is off by far more is a fault of its own
        factor = _factor(item)
        return factor <= 100 if cause.score < 0.5 else factor <= 1e4 and _too_high(item)
    if cause.code in _LOSS and cause.score >= 0.5:
        return kind in ("TRN022", "TRN024", "TRN001") or (kind == "TRN020" and item.item_id == "loss")
    if cause.code == "TRN006" and not _all_equal(cause):
        return kind == "TRN001"
    if cause.code in _LOSS and kind == "TRN002":
        return cause.code == "MOD026"
    if cause.code == "MOD006" and kind in ("MOD001", "MOD002", "MOD005"):
        return _in_train_mode(cause, item)
    return True


def _factor(item: Finding) -> float:
    """How far a learning rate is from one that works, as a factor of 1 or more."""
    rate, better = item.evidence.get("rate"), item.evidence.get("learns_at")
    if not isinstance(rate, (int, float)) or not isinstance(better, (int, float)) or not rate or not better:
        return 1.0
    return max(rate / better, better / rate)


def _too_high(item: Finding) -> bool:
    rate, better = item.evidence.get("rate"), item.evidence.get("learns_at")
    return isinstance(rate, (int, float)) and isinstance(better, (int, float)) and rate > better


def _all_equal(item: Finding) -> bool:
    """Whether TRN006 says that the loader hands out one image again and again."""
    return item.message.startswith("All ")


def _in_train_mode(cause: Finding, item: Finding) -> bool:
    """Whether the module that `item` is about is, or is inside of, one that eval mode doesn't reach."""
    modules = [str(name) for name in cause.evidence.get("modules", ())]
    return any(not name or item.item_id == name or item.item_id.startswith(f"{name}.") for name in modules)


def harmless(item: Finding, matching: bool = False) -> bool:
    """Whether it is a statistic of gradients that, where a batch is learned, is no fault.

    Args:
        item: the finding.
        matching: see `settle`; the layers for boxes of a size that the batch doesn't have get no gradient.
    """
    evidence = item.evidence
    if item.code == "TRN021":
        return float(evidence.get("ratio", 0.0)) > 1e-6
    if item.code == "TRN022":
        return float(evidence.get("ratio", 0.0)) < 1e8
    if item.code == "TRN023":
        return matching or float(evidence.get("share", 1.0)) < 1
    return item.code == "TRN024" and float(evidence.get("ratio", 0.0)) < 10


def with_rising_scores(findings: Sequence[Finding]) -> list[Finding]:
    """The findings with scores that don't fall, as a report shows the lowest score first."""
    least, ordered = 0.0, []
    for item in findings:
        least = max(least, item.score)
        ordered.append(replace(item, score=least))
    return ordered
