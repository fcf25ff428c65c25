"""Assay plays the adversary against a machine-learning model, keeps the evidence, and says what it is worth."""
