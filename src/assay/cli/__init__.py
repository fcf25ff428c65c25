"""Thin: parse, call audits, hand to report."""
