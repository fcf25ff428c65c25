"""Evasion: inputs changed at test time, within a budget, so that the model errs."""
