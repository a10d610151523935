"""Pages from templates; they know no run."""
