"""Robustness as an assertion in somebody else's test suite."""
