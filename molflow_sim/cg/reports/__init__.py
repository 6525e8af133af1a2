"""Whether to believe a coarse-grained model: numbers, figures and the page."""
