"""The student of a coarse-grained force field: a network with a prior, its training and its compiled forms."""
