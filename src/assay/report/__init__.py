"""Evidence made readable. No torch."""
