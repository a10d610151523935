"""What the columns of a file are called and hold: looked at once, for `dpo init` and for what a recipe leaves unread."""
