"""Signals: what checks need, computed once. A function here is named after what it returns; owns torch."""
