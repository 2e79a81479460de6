"""What healthy scans give, by which a scan is judged."""
