"""What may be a molecule: checks, bonds, bond orders and conformers."""
