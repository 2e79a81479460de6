"""Synthetic anomalies and the figures they give."""
