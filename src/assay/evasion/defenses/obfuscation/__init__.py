"""Obfuscations: networks changed inside, or answers rescaled, so that gradients lead nowhere."""
