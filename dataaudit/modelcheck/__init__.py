"""modelcheck."""
