"""The networks of a model, as methods ask them."""
