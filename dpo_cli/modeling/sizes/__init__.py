"""How large a model is and what a step holds in memory, by arithmetic; no torch."""
