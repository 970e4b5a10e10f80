"""The storage benchmark: databases in a mount against the same databases in plain files."""
