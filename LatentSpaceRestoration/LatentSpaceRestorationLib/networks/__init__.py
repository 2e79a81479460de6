"""The networks. A module of this package imports torch; the package itself does not."""
