"""Deep genetic algorithms: genomes are lists of indices into the noise table."""
