"""From groups of token ids to log-probabilities: loading, layout, attention, head."""
