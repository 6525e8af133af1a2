"""SO3LR: a pretrained potential for organic molecules and their crystals, in compiled loops."""
