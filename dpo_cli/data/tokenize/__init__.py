"""Examples to token groups: templates, masks, truncation, the cache; nothing about files."""
