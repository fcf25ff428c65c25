"""Real digits and a model trained in seconds: the first success needs no download."""
