"""A trained model in the formats that others load; nothing that trains or measures."""
