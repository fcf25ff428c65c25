"""What the target is judged on: examples, their labels, and whether both are what they should be."""
