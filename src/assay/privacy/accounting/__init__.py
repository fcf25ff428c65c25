"""How much a mechanism can give away: Rényi divergences, privacy losses, and the noise that a budget needs."""
