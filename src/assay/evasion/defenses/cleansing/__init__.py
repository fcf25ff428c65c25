"""Input cleansers: what happens to an input on its way to the model."""
