"""A model on devices: processes, precision, scoring and generation; nothing that knows a run folder or a loss."""
