"""The demonstration: see `story.py` for what it tells."""
