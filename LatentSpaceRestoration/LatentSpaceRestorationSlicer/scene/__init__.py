"""What becomes nodes of the scene."""
