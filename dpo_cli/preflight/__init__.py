"""What can be known before a weight is loaded: drafts, plans, downloads; nothing that trains."""
