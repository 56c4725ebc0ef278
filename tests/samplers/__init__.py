"""Samplers: their laws, their orders, and what others make of the same steps."""
