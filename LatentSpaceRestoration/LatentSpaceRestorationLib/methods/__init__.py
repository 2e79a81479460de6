"""Ways from a prepared scan to evidence of what is unusual in it; :mod:`registry` lists them.

Each has a file of its own and gives :class:`base.Evidence`; the anomaly map, scores and the way
back to the scan's own grid are the same for all.
"""
