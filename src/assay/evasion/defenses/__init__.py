"""What changes the target: one file, one method."""
