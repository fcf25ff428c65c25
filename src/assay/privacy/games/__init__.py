"""How leakage is played for and judged: one file, one question asked of a model or of how it was trained."""
