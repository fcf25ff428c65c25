"""What is under test, and how much it reveals."""
