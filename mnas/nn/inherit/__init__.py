"""Networks cut from a larger one, with its weights."""
