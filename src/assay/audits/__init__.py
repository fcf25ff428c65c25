"""The main path: a typed plan, played trial by trial."""
