"""What people read of a run: pages, panels, cards, tables; nothing is computed here that is not shown."""
