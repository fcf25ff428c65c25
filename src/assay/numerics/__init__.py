"""Mechanics that wings share: perturbation sets, ascent, intervals, random streams."""
