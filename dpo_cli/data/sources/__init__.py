"""Files and data sets to rows with their places; nothing about what a row means."""
