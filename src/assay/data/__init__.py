"""What the target is judged on: examples, their labels, and whether both are what they should be."""

from assay.data.dataset import Dataset, arrays
from assay.data.loading import load
from assay.data.shape import Layout, Scale
from assay.data.validation import validate

__all__ = ["Dataset", "Layout", "Scale", "arrays", "load", "validate"]
