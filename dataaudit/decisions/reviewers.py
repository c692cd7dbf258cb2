"""Several reviewers: how far they agree, where they don't, and what one is to look at a second time."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from dataaudit.decisions.outcomes import answered, final_label, is_error, said_of, same_outcome
from dataaudit.decisions.recording import Said, by_reviewer, history, record, said
from dataaudit.decisions.times import moment
from dataaudit.errors import InputError, nearest
from dataaudit.types import Decision, Source

__all__ = [
    "Agreement",
    "Conflict",
    "Kappa",
    "Settled",
    "agreement",
    "cohen_kappa",
    "conflicts",
    "second",
    "settle",
    "standing",
    "weighed",
]

_Z = 1.959964  # of a 95 % interval


@dataclass(frozen=True, kw_only=True)
class Kappa:
    """Agreement of two reviewers on the same findings.

    Attributes:
        n: findings that both judged.
        raw: share of them on which both said the same, in [0, 1].
        kappa: Cohen's kappa in [-1, 1]; None where chance alone would let them agree always.
        low: lower end of its 95 % interval, or None.
        high: upper end, or None.
    """

    n: int
    raw: float
    kappa: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far two reviewers agree.

    Attributes:
        one: a reviewer; None for decisions without a name.
        two: another.
        error: on whether a finding is an error.
        label: on what the label is in the end.
    """

    one: str | None
    two: str | None
    error: Kappa
    label: Kappa


@dataclass(frozen=True, kw_only=True)
class Conflict:
    """A finding on which the last words of two reviewers lead to different things.

    Attributes:
        finding: its key.
        decisions: the last one of each reviewer, in the order of their times; ``skip`` left out.
    """

    finding: str
    decisions: tuple[Decision, ...]

    def __str__(self) -> str:
        return ", ".join(f"{_name(each.reviewer)} says {_says(each)}" for each in self.decisions)


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What a rule settled.

    Attributes:
        decisions: those recorded, one a conflict.
        left_out: key of a finding to the reason why the rule doesn't settle it.
    """

    decisions: tuple[Decision, ...]
    left_out: Mapping[str, str]


def standing(source: Source) -> dict[str, Decision]:
    """The decision that counts on each finding, by its key: of conflicts the one that settled them, or none.

    Raises:
        InputError: a damaged line, with file and line.
    """
    found = said(history(source)).items()
    return {key: each.last for key, each in found if each.last is not None and not each.disputed}


def conflicts(source: Source) -> list[Conflict]:
    """The findings that two people decided differently and nobody settled, the first one recorded first.

    ``accept`` of a class and ``other`` with the same class are no conflict, and ``skip`` is no answer.

    Args:
        source: the dataset.

    Raises:
        InputError: a damaged line, with file and line.
    """
    return _conflicts(said(history(source)))


def weighed(source: Source, decisions: Collection[Decision]) -> tuple[dict[str, Decision], dict[str, str]]:
    """Decisions that are to be carried out, against what other people said of the same findings.

    Args:
        source: the dataset.
        decisions: recorded or not; of several on one finding the last counts.

    Returns:
        By the key of the finding the decision that counts, ``skip`` where there is a conflict; and the reason
        for each finding in conflict, decided here or not.

    Raises:
        InputError: a damaged line, with file and line.
    """
    by_key = {each.finding: each for each in decisions}
    found = said(history(source), decisions)
    for key, each in by_key.items():
        settled = found[key].settled if key in found else None
        if settled is not None and not same_outcome(settled, each):
            by_key[key] = settled
    why = {each.finding: f"{each}: settle it" for each in _conflicts(found)}
    return by_key | {key: Decision(finding=key, verdict="skip") for key in why}, why


def agreement(source: Source) -> list[Agreement]:
    """How far each pair of reviewers agrees on the findings that both judged; pairs without any are left out.

    Raises:
        InputError: a damaged line, with file and line.
    """
    by_name = {
        name: {key: each for key, each in decided.items() if answered(each)}
        for name, decided in by_reviewer(source).items()
    }
    found = []
    for one, two in itertools.combinations(sorted(by_name, key=_name), 2):
        both = [(each, by_name[two][key]) for key, each in by_name[one].items() if key in by_name[two]]
        if both:
            found.append(Agreement(one=one, two=two, error=_on_errors(both), label=_on_labels(both)))
    return found


def settle(
    source: Source, rule: str, *, reviewer: str | None = None, findings: Collection[str] | None = None
) -> Settled:
    """Settle conflicts by a rule, each with a decision of its own that says the rule in its note.

    It holds until somebody answers something else, and can be withdrawn like any decision.

    Args:
        source: the dataset.
        rule: ``latest`` (who decided last), ``majority`` (what more than half of the reviewers say) or
            ``by:NAME`` (what this reviewer says, such as a third one).
        reviewer: who settles; when left out, who said what is taken.
        findings: keys of the conflicts to settle; all when left out.

    Raises:
        InputError: an unknown rule, a reviewer who decided nothing, or a finding without a conflict.
    """
    open_ones = conflicts(source)
    _check_rule(rule, source)
    unknown = set(findings or ()) - {each.finding for each in open_ones}
    if unknown:
        raise InputError(f"The finding {min(unknown)} has no conflict that could be settled.")
    made, left_out = [], {}
    for each in open_ones:
        if findings is not None and each.finding not in findings:
            continue
        chosen = _chosen(each, rule)
        if isinstance(chosen, str):
            left_out[each.finding] = chosen
        else:
            made.append(_settling(each, chosen, rule, reviewer))
    return Settled(decisions=tuple(record(source, made)), left_out=left_out)


def second(
    source: Source,
    reviewer: str | None,
    *,
    n: int | None = None,
    fraction: float | None = None,
    seed: int = 0,
    among: Collection[str] | None = None,
) -> list[str]:
    """Findings that others decided and that a second reviewer is to decide too, unaware of what they said.

    The choice is random and stays the same when review is interrupted: those that the reviewer has decided
    since count towards `n`.

    Args:
        source: the dataset.
        reviewer: who looks a second time.
        n: how many in all; every one when both are left out.
        fraction: which share of them, in [0, 1].
        seed: of the random choice.
        among: keys to choose from, such as those of the worklist.

    Returns:
        Keys of findings, in random order.

    Raises:
        InputError: both `n` and `fraction`, or one that is out of range; a damaged line of the decisions.
    """
    if n is not None and fraction is not None:
        raise InputError("Both a number and a share of findings are given.", fix="Give n or fraction.")
    if (n is not None and n < 0) or (fraction is not None and not 0 <= fraction <= 1):
        raise InputError(f"n is {n} and fraction is {fraction}; expected n >= 0, or a fraction from 0 to 1.")
    decided = by_reviewer(source)
    own = decided.pop(reviewer, {})
    theirs = {key for each in decided.values() for key, one in each.items() if answered(one)}
    drawn = {key: _draw(seed, key) for key in theirs if among is None or key in among}
    if fraction is not None:
        drawn = {key: value for key, value in drawn.items() if value < fraction}
    left = [key for key in sorted(drawn, key=drawn.__getitem__) if key not in own]
    return left if n is None else left[: max(0, n - len(own.keys() & drawn.keys()))]


def cohen_kappa(one: Sequence[str], two: Sequence[str]) -> Kappa:
    """Cohen's kappa of two reviewers, with an interval that doesn't vanish where they always agree.

    The share of agreement has Wilson's interval, which is carried over to kappa with the agreement by chance
    taken as known, as Cohen's own standard error does.

    Args:
        one: what a reviewer said of each of n findings.
        two: what another said of the same.

    Reference:
        Cohen, "A coefficient of agreement for nominal scales", Educational and Psychological Measurement
        20, 1960; Wilson, "Probable inference, the law of succession, and statistical inference", Journal of
        the American Statistical Association 22, 1927.

    >>> cohen_kappa(["error", "error", "sound", "sound"], ["error", "sound", "sound", "sound"]).kappa
    0.5
    """
    n = len(one)
    raw = sum(a == b for a, b in zip(one, two, strict=True)) / n
    counts = Counter(one), Counter(two)
    chance = sum(counts[0][name] * counts[1][name] for name in counts[0]) / n**2
    if chance == 1:
        return Kappa(n=n, raw=raw, kappa=None, low=None, high=None)
    middle = (raw + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z * math.sqrt(raw * (1 - raw) / n + _Z**2 / (4 * n**2)) / (1 + _Z**2 / n)
    kappa, low, high = ((share - chance) / (1 - chance) for share in (raw, middle - half, middle + half))
    return Kappa(n=n, raw=raw, kappa=kappa, low=max(low, -1.0), high=min(high, 1.0))


def _conflicts(found: Mapping[str, Said]) -> list[Conflict]:
    return [
        Conflict(finding=key, decisions=tuple(sorted(each.answers, key=lambda one: moment(one.at))))
        for key, each in found.items()
        if each.disputed
    ]


def _on_errors(both: Sequence[tuple[Decision, Decision]]) -> Kappa:
    names = {True: "error", False: "no error"}
    return cohen_kappa([names[is_error(a)] for a, _ in both], [names[is_error(b)] for _, b in both])


def _on_labels(both: Sequence[tuple[Decision, Decision]]) -> Kappa:
    one, two = [], []
    for a, b in both:
        label, other = final_label(a), final_label(b)
        if label == other and not same_outcome(a, b):
            other += " (another box)"
        one.append(label)
        two.append(label if same_outcome(a, b) else other)
    return cohen_kappa(one, two)


def _check_rule(rule: str, source: Source) -> None:
    if rule in ("latest", "majority"):
        return
    if not rule.startswith("by:"):
        raise InputError(f"There is no rule {rule!r}. {nearest(rule, ('latest', 'majority', 'by:NAME'))}")
    names = {name or "" for name in by_reviewer(source)}
    if rule.removeprefix("by:") not in names:
        raise InputError(
            f"{rule.removeprefix('by:')!r} has decided nothing. {nearest(rule.removeprefix('by:'), names)}"
        )


def _chosen(conflict: Conflict, rule: str) -> Decision | str:
    """The decision that a rule takes, or why it takes none."""
    answers = conflict.decisions
    if rule == "latest":
        return answers[-1]
    if rule == "majority":
        for each in reversed(answers):
            if 2 * sum(same_outcome(each, other) for other in answers) > len(answers):
                return each
        return f"{conflict}: there is no majority"
    name = rule.removeprefix("by:")
    own = next((each for each in answers if (each.reviewer or "") == name), None)
    return f"{name} hasn't decided it" if own is None else own


def _settling(conflict: Conflict, chosen: Decision, rule: str, reviewer: str | None) -> Decision:
    return replace(
        chosen, reviewer=reviewer or chosen.reviewer, at=None, rule=rule, note=f"settled ({rule}): {conflict}"
    )


def _draw(seed: int, key: str) -> float:
    """A number in [0, 1) that depends on the seed and the key alone."""
    digest = hashlib.md5(f"{seed}:{key}".encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _name(reviewer: str | None) -> str:
    return reviewer or "someone"


def _says(decision: Decision) -> str:
    if decision.verdict == "keep" or decision.fix is None:
        return decision.verdict
    return f"{decision.verdict}: {said_of(decision.fix)}"
