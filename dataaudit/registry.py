"""Checks and signals: how they are declared, found and selected.

A check is a function in ``dataaudit/checks/``, a signal a function in ``dataaudit/signals/``. Their
positional parameters name what they need (one with a default they can do without), their keyword-only
parameters are their settings, and the first line of a check's docstring is the sentence that a user reads.
Nothing else has to be edited to add one.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from dataaudit.errors import InputError, nearest
from dataaudit.types import Check, Level, Tables

__all__ = [
    "INPUTS",
    "Rule",
    "Signal",
    "check",
    "checks",
    "rule",
    "rules",
    "select",
    "signal",
    "signals",
    "with_settings",
]

Function = TypeVar("Function", bound=Callable[..., Any])

INPUTS = {
    "pred_probs": "out-of-sample probabilities of the user's own model",
    "annotations": "what several people said about the images",
    "model_predictions": "the class that each of several models of the user predicts",
    "verdicts": "what people decided about labels",
    "training_dynamics": "how each label fared while a model was trained: loss, margin, confidence",
    "detections": "out-of-sample predictions of objects, with confidence and box",
    "object_probs": "out-of-sample class probabilities of each labeled box",
    "box_regressions": "where the object of each labeled box seems to be",
}
"""What a user may hand to an audit besides the dataset; a signal of the same name is replaced by it."""

SWEPT = {
    "image_properties": "one row an image: size, mode and properties of the pixels",
    "embeddings": "one row an image that can be decoded: features of the backbone",
    "phash": "perceptual hash of each image that can be decoded",
    "thumbnails": "16 x 16 grey pixels of each image that can be decoded",
    "image_errors": "reason why a file can't be decoded, for those that can't",
}
"""Signals that the sweep over the images provides."""

PLACE = {
    "workplace": "device and cache, for signals that take long",
    "judge": "who made pred_probs: a probe on features, or a network trained for the task",
}
"""What an audit itself hands to its signals."""

_checks: dict[str, Check] = {}
_signals: dict[str, Signal] = {}
_rules: dict[str, Rule] = {}


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A defect of the model side, as the registry knows it.

    Attributes:
        code: three letters and three digits, such as ``MOD001``.
        name: the defect in a few words.
        command: what looks for it, such as ``model determinism``.
        summary: first line of what a user reads about it.
        explain: all of it.
        level: ``model``.
    """

    code: str
    name: str
    command: str
    summary: str
    explain: str
    level: str = "model"


@dataclass(frozen=True, kw_only=True)
class Signal:
    """Something computed once that checks need.

    Attributes:
        name: name of the function.
        needs: names of its positional parameters.
        optional: those of its needs that have a default: it runs without them.
        settings: its keyword-only parameters with their defaults.
        run: the function.
    """

    name: str
    needs: tuple[str, ...]
    optional: tuple[str, ...]
    settings: Mapping[str, Any]
    run: Callable[..., Any]


def check(code: str, *, level: Level) -> Callable[[Function], Function]:
    """Declare the function below as the check `code`."""
    if not re.fullmatch(r"[A-Z]{3}\d{3}", code):
        raise InputError(f"The check code {code!r} is not three letters and three digits.")

    def declare(function: Function) -> Function:
        needs, optional, settings = _parameters(function)
        text = inspect.getdoc(function) or ""
        if not text:
            raise InputError(
                f"{code} {function.__name__} has no docstring; its first line is what a user reads."
            )
        if code in _checks and _checks[code].run.__qualname__ != function.__qualname__:
            raise InputError(f"{code} is both {_checks[code].name} and {function.__name__}.")
        _checks[code] = Check(
            code=code,
            name=function.__name__,
            level=level,
            needs=needs,
            optional=optional,
            settings=settings,
            run=function,
            summary=text.splitlines()[0],
            explain=text,
        )
        return function

    return declare


def rule(code: str, name: str, *, command: str, text: str) -> Rule:
    """Declare a defect of the model side, of which a check there can make findings.

    Args:
        code: such as ``MOD001``; never used again.
        name: the defect, as a check would be named.
        command: what looks for it, such as ``model determinism``.
        text: what `dataaudit rule` shows; its first line is the sentence that a user reads.
    """
    if not re.fullmatch(r"[A-Z]{3}\d{3}", code):
        raise InputError(f"The check code {code!r} is not three letters and three digits.")
    explain = inspect.cleandoc(text)
    if code in _rules and _rules[code].name != name:
        raise InputError(f"{code} is both {_rules[code].name} and {name}.")
    _rules[code] = Rule(
        code=code, name=name, command=command, summary=explain.splitlines()[0], explain=explain
    )
    return _rules[code]


def rules() -> Mapping[str, Check | Rule]:
    """Every check of an audit and every defect of the model side by code, in the order of the codes."""
    import dataaudit.modelcheck.families

    package = dataaudit.modelcheck.families
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
    known: dict[str, Check | Rule] = {**checks(), **_rules}
    return {code: known[code] for code in sorted(known)}


def signal(function: Function) -> Function:
    """Declare the function below as the signal that it is named after."""
    needs, optional, settings = _parameters(function)
    name = function.__name__
    _signals[name] = Signal(name=name, needs=needs, optional=optional, settings=settings, run=function)
    return function


def checks() -> Mapping[str, Check]:
    """Every check by code, in the order of the codes.

    Raises:
        InputError: a check or signal needs what nothing provides, such as a misspelt signal.
    """
    _discover()
    return {code: _checks[code] for code in sorted(_checks)}


def signals() -> Mapping[str, Signal]:
    """Every computed signal by name."""
    _discover()
    return dict(_signals)


def select(select: Iterable[str] = (), ignore: Iterable[str] = ()) -> tuple[Check, ...]:
    """The checks whose code begins with one of `select` and with none of `ignore`.

    Args:
        select: codes or prefixes, such as ``LBL`` or ``DUP001``; empty selects every check.
        ignore: codes or prefixes to leave out; a longer prefix in `select` wins, as in other linters.

    Raises:
        InputError: a prefix that no check's code begins with.
    """
    known = checks()
    chosen = (select,) if isinstance(select, str) else tuple(select)
    left_out = (ignore,) if isinstance(ignore, str) else tuple(ignore)
    for prefix in (*chosen, *left_out):
        if not prefix or not any(code.startswith(prefix) for code in known):
            raise InputError(f"No check's code begins with {prefix!r}. {nearest(prefix, known)}")

    def longest(code: str, prefixes: tuple[str, ...]) -> int:
        return max((len(prefix) for prefix in prefixes if code.startswith(prefix)), default=0)

    return tuple(
        found
        for code, found in known.items()
        if (not chosen or longest(code, chosen))
        and (not longest(code, left_out) or longest(code, left_out) < longest(code, chosen))
    )


def with_settings(found: Check | Signal, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a check or signal, with the user's in place of its defaults.

    Raises:
        InputError: a setting that it doesn't have, or of another type.
    """
    name = found.code if isinstance(found, Check) else found.name
    values = dict(found.settings)
    for key, value in settings.items():
        key = key.replace("-", "_")
        if key not in values:
            raise InputError(f"{name} has no setting {key!r}. {nearest(key, values)}")
        default = values[key]
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if default is not None and type(value) is not type(default):
            raise InputError(
                f"{name}: {key} = {value!r} is a {type(value).__name__}; "
                f"expected a {type(default).__name__}, as its default {default!r}."
            )
        values[key] = value
    return values


@cache
def _discover() -> None:
    import dataaudit.checks
    import dataaudit.signals

    for package in (dataaudit.signals, dataaudit.checks):
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            importlib.import_module(module.name)
    provided = {*INPUTS, *SWEPT, *PLACE, *_signals, *(field.name for field in dataclasses.fields(Tables))}
    declared: list[Check | Signal] = [*_checks.values(), *_signals.values()]
    for found in declared:
        for need in found.needs:
            if need not in provided:
                raise InputError(
                    f"{found.name} needs {need!r}, which nothing provides. {nearest(need, provided)}"
                )
    for name in _signals:
        _refuse_circles((name,))


def _refuse_circles(names: tuple[str, ...]) -> None:
    """Raise where the last of `names`, each needed by the one before, needs one of them."""
    for need in _signals[names[-1]].needs:
        if need in names:
            circle = (*names[names.index(need) :], need)
            raise InputError(f"{need} needs itself: {', '.join(circle)}.")
        if need in _signals:
            _refuse_circles((*names, need))


def _parameters(function: Callable[..., Any]) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, Any]]:
    needs, optional, settings = [], [], {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            needs.append(name)
            if parameter.default is not parameter.empty:
                optional.append(name)
        elif parameter.default is parameter.empty:
            raise InputError(f"The setting {name} of {function.__name__} has no default.")
        else:
            settings[name] = parameter.default
    return tuple(needs), tuple(optional), settings
