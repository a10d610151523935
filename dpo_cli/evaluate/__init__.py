"""How well a model prefers what people preferred, with intervals and trivial baselines beside it."""
