"""Sample quality of gray images: features of the package's own network, and distances between them."""
