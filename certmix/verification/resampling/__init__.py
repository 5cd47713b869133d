"""Some images of a run sampled anew, with the recorded seed and with another."""
