"""Geometry of molecules that knows nothing of what they are."""
