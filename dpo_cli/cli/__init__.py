"""One thin file a command: parse, load, one call, print."""
