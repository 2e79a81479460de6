"""The networks. Importing a module of this package imports torch; importing the package does not."""
