"""Synthetic anomalies and artefacts, and where they are put."""
