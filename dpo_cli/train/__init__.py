"""From a recipe to an aligned model: the run, its loop, checkpoints and what is shown at the end."""
