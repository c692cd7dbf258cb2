"""What the HTML pages share: templates, styles and scripts."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataaudit.report.text import percent, visible

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["asset", "environment", "source_hash"]


@cache
def environment() -> Environment:
    """The templates, which escape all that isn't of the package itself."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("dataaudit.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = visible
    environment.filters["percent"] = percent
    environment.filters["setting"] = _setting
    environment.filters["seconds"] = lambda value: f"{value:.2f} s" if value < 10 else f"{value:,.0f} s"
    return environment


def _setting(value: Any) -> str:
    """A setting as people write it, on one line where it is short."""
    if isinstance(value, str):
        return visible(value)
    short = json.dumps(value)
    return short if len(short) <= 100 else json.dumps(value, indent=1)


@cache
def asset(name: str) -> Any:
    """A style or script of the package."""
    from markupsafe import Markup

    # Text of the package itself, the only text in a page that isn't escaped.
    return Markup((Path(__file__).parent / "templates" / name).read_text(encoding="utf-8"))


def source_hash(text: str) -> str:
    """The content as a source of a Content-Security-Policy, so that no other script or style may run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
