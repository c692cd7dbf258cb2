"""The catalogue of checks, made from their docstrings and signatures."""

from __future__ import annotations

from dataaudit import registry
from dataaudit.errors import InputError, nearest
from dataaudit.registry import Rule
from dataaudit.types import Check

__all__ = ["describe"]


def describe(code: str | None = None, *, markdown: bool = False) -> str:
    """What a check looks for, how it scores and what its fix does; a line for each check when no code is
    given.

    Raises:
        InputError: no check has the code.
    """
    known = registry.rules()
    if code is None:
        if markdown:
            return "# Checks\n\n" + "\n\n".join(_markdown(check) for check in known.values()) + "\n"
        return "\n".join(f"{check.code}  {check.name:26} {check.summary}" for check in known.values())
    if code.upper() not in known:
        raise InputError(f"There is no check {code!r}. {nearest(code.upper(), known)}")
    check = known[code.upper()]
    return _markdown(check) if markdown else _text(check)


def _text(check: Check | Rule) -> str:
    lines = [f"{check.code} {check.name} ({check.level})", "", check.explain]
    if isinstance(check, Rule):
        return "\n".join([*lines, "", f"Command: dataaudit {check.command}"])
    if check.settings:
        lines += ["", "Settings:", *(f"  {name} = {value!r}" for name, value in check.settings.items())]
    return "\n".join(lines)


def _markdown(check: Check | Rule) -> str:
    lines = [f"## {check.code} {check.name}", "", check.explain]
    if isinstance(check, Rule):
        return "\n".join([*lines, "", f"Level: {check.level}. Command: `dataaudit {check.command}`."])
    if check.settings:
        lines += ["", "| setting | default |", "|---|---|"]
        lines += [f"| `{name}` | `{value!r}` |" for name, value in check.settings.items()]
    needs = ", ".join(f"`{need}`" for need in check.needs)
    return "\n".join([*lines, "", f"Level: {check.level}. Needs: {needs}."])
