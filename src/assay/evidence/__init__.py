"""What was seen, and how sure we are. No torch."""
