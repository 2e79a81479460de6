"""From maps to the anomaly map and the score."""
