"""From files of preferences to token groups, every dropped or changed row counted by reason."""
