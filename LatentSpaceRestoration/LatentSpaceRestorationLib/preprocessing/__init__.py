"""From a scan to model space."""
