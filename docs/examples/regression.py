"""Predict numbers
===============

Regression with a binary network: a function of ten numbers, of which five matter, and noise.

Hidden layers have one bit for each weight; the last one has float weights and gives a number. The
validation loss chooses the epoch that is kept.
"""

import numpy as np
from sklearn.datasets import make_friedman1

from bitops.layers import BatchNorm, BinaryDense, Dense, Sequential, Sign
from bitops.training import CosineDecay, EarlyStopping, r2, rmse


def main():
    x, values = make_friedman1(3000, noise=1.0, random_state=0)
    x = (2 * x - 1).astype(np.float32)
    mean, spread = values[:2000].mean(), values[:2000].std()
    y = (values - mean) / spread  # of mean 0 and variance 1, as the loss likes it
    train, validation, test = slice(2000), slice(2000, 2500), slice(2500, None)

    model = Sequential(
        Dense(10, 128, seed=0),
        BatchNorm(128),
        Sign(),
        BinaryDense(128, 128, seed=1),
        BatchNorm(128),
        Sign(),
        Dense(128, 1, seed=2),
        input_shape=(10,),
    )
    history = model.fit(
        x[train],
        y[train],
        epochs=60,
        batch_size=50,
        loss="huber",
        optimizer="adam",
        schedule=CosineDecay(5e-3),
        validation=(x[validation], y[validation]),
        metrics=["rmse", "r2"],
        callbacks=EarlyStopping(15),
        verbose=0,
    )
    print(history.best)

    predicted = model.freeze().outputs(x[test])
    print(f"test: error {spread * rmse(predicted, y[test]):.1f} of {spread:.1f}, ", end="")
    print(f"r2 {r2(predicted, y[test]):.2f}")
    assert np.array_equal(predicted, model.outputs(x[test]))
    assert r2(predicted, y[test]) > 0.8


if __name__ == "__main__":
    main()
