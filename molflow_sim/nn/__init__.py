"""Networks over points in space: radial bases, EGNN, tensor field networks. Nothing here knows of chemistry."""
