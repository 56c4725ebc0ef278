"""The figures of a comparison: pictures, graphs and chains, and the data that they show."""
