"""Differential privacy put to the test: an epsilon that a procedure demonstrably leaks."""
