"""Files of molecules and crystals, read and written."""
