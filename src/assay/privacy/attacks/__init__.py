"""How a model's training data is got at: one file, one method, one paper."""
