"""What flows share: manifolds, smooth transforms, couplings. Nothing here knows of files or of chemistry."""
