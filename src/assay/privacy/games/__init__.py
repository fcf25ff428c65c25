"""How each kind of leak is played and judged."""
