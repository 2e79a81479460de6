"""What every computation runs on: devices, memory, threads, progress, interruption."""
