"""What a detection leaves: the record, its files, the report."""
