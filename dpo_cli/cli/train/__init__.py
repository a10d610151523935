"""Commands that train, and that plan and list runs."""
