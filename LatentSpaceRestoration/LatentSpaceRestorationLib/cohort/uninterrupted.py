"""Loaded first by workers on this machine: Ctrl-C is for the process that started them.

A terminal sends it to all of them; the one that waits for the scans ends its workers by itself.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)
