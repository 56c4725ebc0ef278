"""Other libraries' view of a model. Each module needs its own library and is imported by itself."""
