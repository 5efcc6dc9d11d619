"""The parts of the comparison of runs: what they say, and how it is drawn."""
