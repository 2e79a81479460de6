"""Many scans: which there are, who looks at them, and what is kept of each."""
