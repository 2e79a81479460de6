"""What is seen: the panel that Slicer shows."""
