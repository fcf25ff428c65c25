"""Accountants: the privacy loss that cannot be exceeded."""
