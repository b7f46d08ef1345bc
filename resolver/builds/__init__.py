"""Building wheels of source distributions, in a sandbox: no code of a package runs anywhere else."""
