"""Lists of scans that people keep, and how scans are shared out between uses."""
