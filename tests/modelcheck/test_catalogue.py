from __future__ import annotations

import subprocess
import sys

from dataaudit import registry
from dataaudit.registry import Rule
from dataaudit.rules import describe


def test_codes_of_the_model_side_are_described_like_those_of_an_audit() -> None:
    text = describe("mod001")
    assert text.startswith("MOD001 random_output (model)\n\nThe same input gives another output each time")
    assert text.endswith("Command: dataaudit model determinism")
    assert "## MOD001 random_output" in describe(markdown=True).splitlines()


def test_every_rule_says_when_it_flags_and_what_to_change() -> None:
    for rule in registry.rules().values():
        if isinstance(rule, Rule):
            assert "\n\nFlagged" in rule.explain, rule.code
            assert "Change:" in rule.explain, rule.code


def test_the_catalogue_and_the_help_load_no_torch() -> None:
    script = (
        "import sys\nfrom dataaudit import registry\nfrom dataaudit.cli import parser\nparser()\n"
        "registry.rules()\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
