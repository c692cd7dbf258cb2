"""Review: findings go to where the pictures are, and decisions come back."""

from __future__ import annotations

from dataaudit.review.annotation import annotate, answers
from dataaudit.review.in_fiftyone import clean, push

__all__ = ["annotate", "answers", "clean", "push"]
