"""The proved side: one file, one certificate."""
