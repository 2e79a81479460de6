"""The module's parts that need Slicer: nodes in, nodes out, installing, and running with a panel.

What needs no Slicer is in ``LatentSpaceRestorationLib``, which is imported where it is used, since
the panel must open before its packages are installed.
"""
