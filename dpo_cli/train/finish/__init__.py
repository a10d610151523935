"""What happens after the last step: which weights ship, saving, notes; nothing that changes a weight."""
