"""Figures of an evaluation as tables, curves and pages."""
