"""What lessens the leak: private training, and cheap measures that claim to."""
