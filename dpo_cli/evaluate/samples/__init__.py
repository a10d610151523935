"""Answers: sampled, judged, made into pairs; nothing that trains."""
