"""What a row means: formats, layouts, columns, labels; nothing about tokens."""
