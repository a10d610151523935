"""Running means, speed, health notes and where they are written; knows nothing of models."""
