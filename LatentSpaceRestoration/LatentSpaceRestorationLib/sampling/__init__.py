"""Restoration: likely codes in place of unlikely ones."""
