"""Charts as data and as SVG; they know no run."""
