"""Proofs as plain data, and scripts that check them without certmix."""
