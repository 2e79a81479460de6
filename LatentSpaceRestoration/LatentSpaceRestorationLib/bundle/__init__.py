"""A trained model on disk: its format, how it is read, checked, written and described."""
