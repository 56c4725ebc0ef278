"""Write scikit-learn's wines as ``wine.csv``: 13 measurements, a category, some empty cells."""

import csv
from pathlib import Path

import numpy as np
from sklearn.datasets import load_wine

wines, draw = load_wine(), np.random.default_rng(0)
rows = [
    [*map(str, row), str(wines.target_names[kind])]
    for row, kind in zip(wines.data.tolist(), wines.target, strict=True)
]
for row in rows:
    for place in range(len(row)):
        if draw.random() < 0.1:
            row[place] = ""
with Path("wine.csv").open("w", newline="") as file:
    csv.writer(file).writerows([[*wines.feature_names, "class"], *rows])
