"""Training of the networks on a lab's own healthy scans."""
