"""Attacks inside the certified balls of a run."""
