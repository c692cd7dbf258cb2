"""A review under way: which finding comes next, and what the verdicts so far say of the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

import numpy as np

from dataaudit.errors import InputError, nearest
from dataaudit.types import VERDICTS, Decision, Fix
from dataaudit.worklist.advice import advice_of
from dataaudit.worklist.entries import Entry, Worklist
from dataaudit.worklist.estimate import Estimator
from dataaudit.worklist.order import arranged, kind_of, place_of, together, twins_of

__all__ = ["BLOCK", "Session"]

BLOCK = 20
"""After how many verdicts the rest is judged and ordered anew."""
_ERROR = {"accept": True, "other": True, "keep": False}


@dataclass(frozen=True, kw_only=True)
class _Said:
    """One decision of the history, and the reviewer's decision on the same finding before it."""

    place: int
    before: Decision | None


class Session:
    """A review under way. It writes nothing: what is to be recorded is in `last` after each change.

    Args:
        worklist: the findings.
        decisions: of this reviewer so far, by the key of the finding; those on other findings don't count.
        reviewer: who decides.
        adaptive: order the findings by what verdicts say after each block; otherwise they keep the order of
            the worklist.
    """

    def __init__(
        self,
        worklist: Worklist,
        decisions: Mapping[str, Decision] | None = None,
        *,
        reviewer: str | None = None,
        adaptive: bool = True,
    ) -> None:
        self.worklist, self.reviewer = worklist, reviewer
        self.last: tuple[Decision, ...] = ()
        self._adaptive = adaptive
        self._entries = worklist.entries
        self._place = {entry.key: at for at, entry in enumerate(self._entries)}
        self._twins = twins_of(self._entries)
        self._scores = [entry.score for entry in self._entries]
        self._places = list(map(place_of, self._entries))
        self._kinds = list(map(kind_of, self._entries))
        self._estimator = Estimator(worklist)
        self._decided: dict[int, Decision] = {}
        self._history: list[list[_Said]] = []
        self._order = list(range(len(self._entries)))
        self._fits: Callable[[int], bool] = lambda place: True
        self._undecided = True
        self._chosen: set[int] | None = None
        known = {key: each for key, each in (decisions or {}).items() if key in self._place}
        for key, each in sorted(known.items(), key=lambda pair: pair[1].at or ""):
            if each.verdict in VERDICTS:
                self._history.append(self._take(self._place[key], each))
        self._since, self._taken_in = 0, dict[int, bool]()
        self._current: int | None = None
        self._judge_anew()
        self._current = self._first()

    @property
    def current(self) -> Entry | None:
        """The finding to look at; None where nothing is left under the filter."""
        return None if self._current is None else self._entries[self._current]

    @property
    def queue(self) -> list[str]:
        """Keys of the findings under the filter in their order, those that were skipped at the end."""
        return [self._entries[place].key for place in self._queue]

    @property
    def decisions(self) -> dict[str, Decision]:
        """The reviewer's decisions so far, by the key of the finding."""
        return {self._entries[place].key: each for place, each in self._decided.items()}

    def probability(self, key: str) -> float:
        """The chance of a finding to be an error, by all verdicts up to the last block."""
        return float(self._estimator.probability[self._known(key)])

    def decide(
        self, key: str, verdict: str, *, label: str | None = None, note: str | None = None
    ) -> Decision:
        """Say what is true of a finding, and go on to the next.

        Findings that propose the same fix of the same label are answered by the same verdict; `last` holds
        the decisions on all of them.

        Args:
            key: of the finding.
            verdict: ``accept``, ``keep``, ``other`` or ``skip``, which puts the finding behind the others.
            label: the class, for ``other``.
            note: free text.

        Returns:
            The decision on the finding, not yet recorded.

        Raises:
            InputError: there is no such finding or verdict, nothing to accept, or no such class.
        """
        place = self._known(key)
        made = self._decision(place, verdict, label, note)
        self._enter([made, *self._same(place, made)], here=place)
        return made

    def undo(self) -> Decision | None:
        """Take the last verdict back, or all those that were given at once; any number of times.

        Returns:
            What is to be recorded of the finding, which is the current one again: that the verdict is
            withdrawn, or what was said of it before. `last` holds the decisions on all findings that are
            undone. None where nothing was decided.
        """
        if not self._history:
            self.last = ()
            return None
        said = self._history.pop()
        self.last = tuple(self._taken_back(each) for each in reversed(said))[::-1]
        taken_in = any(each.place in self._taken_in for each in said)
        self._since = max(self._since - len(said), 0)
        if taken_in:
            self._judge_anew()
        self._renew(said[0].place)
        return self.last[0]

    def filter(
        self,
        codes: Iterable[str] | None = None,
        classes: Iterable[str] | None = None,
        min_probability: float | None = None,
        max_probability: float | None = None,
        words: str | None = None,
        undecided: bool = True,
    ) -> None:
        """Show some findings only: those that meet all that is given; without anything all of them.

        Args:
            codes: of checks.
            classes: given or suggested.
            min_probability: as re-estimated.
            max_probability: as re-estimated.
            words: all of which the finding says somewhere: in its sentence, classes, file or check.
            undecided: leave out what was decided.
        """
        wanted = None if codes is None else set(codes)
        named = None if classes is None else set(classes)
        low = 0.0 if min_probability is None else min_probability
        high = 1.0 if max_probability is None else max_probability
        texts = (words or "").casefold().split()

        def fits(place: int) -> bool:
            entry = self._entries[place]
            return (
                (wanted is None or entry.code in wanted)
                and (named is None or entry.given in named or entry.suggested in named)
                and low <= self._estimator.probability[place] <= high
                and (not texts or _says(entry, texts))
            )

        self._fits, self._undecided = fits, undecided
        self._chosen = {place for place in range(len(self._entries)) if fits(place)}
        self._renew(self._current)

    def next(self) -> Entry | None:
        """Go to the following finding of the queue, without a verdict; at the end stay there."""
        return self._move(1)

    def previous(self) -> Entry | None:
        """Go to the finding of the queue before, without a verdict; at the beginning stay there."""
        return self._move(-1)

    def go(self, key: str) -> Entry:
        """Go to a finding, decided or not, under the filter or not.

        Raises:
            InputError: there is no such finding.
        """
        self._current = self._known(key)
        return self._entries[self._current]

    def bulk(
        self, keys: Iterable[str] | None, verdict: str, *, label: str | None = None, note: str | None = None
    ) -> list[Decision]:
        """Say the same of many findings; one undo takes all of it back.

        Args:
            keys: of the findings; None for the undecided ones under the filter, but for those that propose
                nothing where the verdict is ``accept``.
            verdict: as in `decide`.
            label: as in `decide`.
            note: as in `decide`.

        Returns:
            The decisions, not yet recorded: also those on findings that propose the same fix.

        Raises:
            InputError: as in `decide`; nothing is decided then.
        """
        if keys is None:
            places = [place for place in self._queue if place not in self._decided]
            if verdict == "accept":
                places = [place for place in places if self._entries[place].fix is not None]
        else:
            places = list(dict.fromkeys(map(self._known, keys)))
        made = [self._decision(place, verdict, label, note) for place in places]
        known = {each.finding for each in made}
        twins = {
            twin.finding: twin
            for place, each in zip(places, made, strict=True)
            for twin in self._same(place, each)
            if twin.finding not in known
        }
        if made:
            self._since += BLOCK
            self._enter([*made, *twins.values()], here=self._current)
        else:
            self.last = ()
        return list(self.last)

    def expected_precision(self, keys: Iterable[str] | None = None) -> float | None:
        """The share of some findings that are likely to be errors; None of none.

        Args:
            keys: of the findings; None for the undecided ones under the filter.
        """
        places = (
            [place for place in self._queue if place not in self._decided]
            if keys is None
            else list(map(self._known, keys))
        )
        return float(self._estimator.probability[places].mean()) if places else None

    def progress(self) -> dict[str, Any]:
        """How far the review is, ready for JSON.

        Returns:
            ``decided``, ``left``, ``skipped`` (of those that are left), ``confirmed`` and ``kept``: numbers
            of findings; ``shown``: how many are in the queue; ``errors_left``, ``low`` and ``high``: how many
            errors are left in all, with the interval that holds the number with a chance of 90 %;
            ``queue_errors``, ``queue_low`` and ``queue_high``: the same among the findings alone;
            ``threshold``: from which probability on looking at the findings that are left makes the expected
            F1 largest, None without any; ``advice``: a sentence when stopping costs little, or None.
        """
        verdicts = [each.verdict for each in self._decided.values()]
        confirmed = sum(_ERROR.get(verdict, False) for verdict in verdicts)
        skipped = verdicts.count("skip")
        decided = np.zeros(len(self._entries), dtype=bool)
        decided[[place for place, each in self._decided.items() if each.verdict != "skip"]] = True
        queue, everything = self._estimator.left(decided)
        ahead = np.sort(self._estimator.probability[~decided])[::-1]
        return {
            "decided": len(verdicts) - skipped,
            "left": int((~decided).sum()),
            "skipped": skipped,
            "confirmed": confirmed,
            "kept": verdicts.count("keep"),
            "shown": len(self._queue),
            "errors_left": everything.errors,
            "low": everything.low,
            "high": everything.high,
            "queue_errors": queue.errors,
            "queue_low": queue.low,
            "queue_high": queue.high,
            "threshold": self._estimator.threshold(decided),
            "advice": advice_of(ahead[:BLOCK], queue, everything, confirmed),
        }

    def _known(self, key: str) -> int:
        place = self._place.get(key)
        if place is None:
            raise InputError(
                f"There is no finding {key!r} in the worklist. {nearest(key, self._place)}",
                fix="Findings change with the data: audit again.",
            )
        return place

    def _decision(self, place: int, verdict: str, label: str | None, note: str | None) -> Decision:
        entry = self._entries[place]
        known = next((each for each in VERDICTS if each == verdict), None)
        if known is None:
            raise InputError(f"The verdict is {verdict!r}. {nearest(verdict, VERDICTS)}")
        if label is not None and known != "other":
            raise InputError(
                f"The verdict {verdict!r} comes with the label {label!r}.",
                fix="A label goes with the verdict 'other'.",
            )
        fix = None
        if known == "accept":
            fix = entry.fix
            if fix is None:
                raise InputError(
                    f"The finding {entry.key} proposes no fix to accept.",
                    fix="Say 'other' with a label, 'keep' or 'skip'.",
                )
        elif known == "other":
            fix = self._other(entry, label)
        return Decision(
            finding=entry.key,
            verdict=known,
            fix=fix,
            reviewer=self.reviewer,
            at=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            note=note,
            code=entry.code,
            item_id=entry.item_id,
            given=entry.given,
            digest=entry.digest,
            judged_box=entry.suggested_box if entry.box is None else entry.box,
        )

    def _other(self, entry: Entry, label: str | None) -> Fix:
        template = entry.other
        if template is None:
            raise InputError(
                f"The finding {entry.key} is about no single label that could be changed.",
                fix="Say 'accept', 'keep' or 'skip'.",
            )
        if not label:
            raise InputError("The verdict is 'other' and the label is empty.", fix="Name the class.")
        if label not in self.worklist.classes:
            raise InputError(f"No sample has the class {label!r}. {nearest(label, self.worklist.classes)}")
        if label in entry.taken or label == template.old:
            raise InputError(
                f"The sample {entry.sample_id} has the class {label!r} already.", fix="Say 'keep'."
            )
        if template.op == "add" and template.box is None:
            return replace(template, new=label, label_id=f"{template.sample_id}:{label}")
        return replace(template, new=label)

    def _same(self, place: int, made: Decision) -> list[Decision]:
        """The same verdict on the findings that propose the same fix of the same label."""
        found = []
        for twin in self._twins.get(place, ()):
            entry = self._entries[twin]
            found.append(
                replace(
                    made, finding=entry.key, code=entry.code, item_id=entry.item_id, given=entry.given,
                    digest=entry.digest,
                    judged_box=entry.suggested_box if entry.box is None else entry.box,
                )
            )  # fmt: skip
        return found

    def _enter(self, made: list[Decision], *, here: int | None) -> None:
        """Take in decisions that were given at once, and go on to what follows."""
        following = self._following(here)
        self._history.append([said for each in made for said in self._take(self._place[each.finding], each)])
        self.last = tuple(made)
        self._since += len(made)
        self._renew(following)

    def _take(self, place: int, decision: Decision) -> list[_Said]:
        before = self._decided.pop(place, None)
        self._decided[place] = decision
        return [_Said(place=place, before=before)]

    def _taken_back(self, said: _Said) -> Decision:
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        given = self._decided.pop(said.place)
        if said.before is None:
            return replace(given, verdict="withdraw", fix=None, note=None, at=now)
        self._decided[said.place] = said.before
        return replace(said.before, at=now)

    def _following(self, here: int | None) -> int | None:
        """The finding after one in the queue, or the first where it is the last one."""
        if here is None or here not in self._queue:
            return None
        at = self._queue.index(here)
        rest = [*self._queue[at + 1 :], *self._queue[:at]]
        return next((place for place in rest if place not in self._decided), None)

    def _renew(self, wanted: int | None) -> None:
        """Bring the queue up to date, and stand at the finding that is wanted where it is in it."""
        if self._since >= BLOCK:
            self._judge_anew()
            wanted = None
        else:
            self._queue = self._queued()
        in_queue = set(self._queue)
        self._current = wanted if wanted in in_queue else self._first()

    def _judge_anew(self) -> None:
        self._since = 0
        self._taken_in = {
            place: _ERROR[each.verdict] for place, each in self._decided.items() if each.verdict in _ERROR
        }
        self._estimator.update(self._taken_in)
        if self._adaptive:
            gains = together(self._estimator.probability.tolist(), self._twins)
            self._order = arranged(gains, self._scores, self._places, self._kinds)
        self._queue = self._queued()

    def _queued(self) -> list[int]:
        chosen, decided = self._chosen, self._decided
        skipped = [
            place
            for place, each in decided.items()
            if each.verdict == "skip" and (chosen is None or place in chosen)
        ]
        late = set(skipped)
        found = [
            place
            for place in self._order
            if (chosen is None or place in chosen)
            and place not in late
            and not (self._undecided and place in decided)
        ]
        return found + skipped

    def _first(self) -> int | None:
        open_ones = (
            place
            for place in self._queue
            if place not in self._decided or self._decided[place].verdict == "skip"
        )
        return next(open_ones, None)

    def _move(self, step: int) -> Entry | None:
        if self._current in self._queue:
            at = self._queue.index(self._current) + step
            self._current = self._queue[min(max(at, 0), len(self._queue) - 1)]
        else:
            self._current = self._first()
        return self.current


def _says(entry: Entry, texts: list[str]) -> bool:
    said = (entry.message, entry.given, entry.suggested, entry.sample_id, entry.item_id, entry.code)
    whole = "\n".join(text for text in said if text is not None).casefold()
    return all(text in whole for text in texts)
