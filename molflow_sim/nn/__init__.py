"""Networks over points in space: radial bases, EGNN, PaiNN, tensor field networks. Nothing here knows of chemistry."""
