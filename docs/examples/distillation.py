"""Distill a float network into a binary one
=========================================

Distillation: a small binary network learns the scores of a float one, on rows without labels.

Only 300 of the images have labels. A float network is trained on these; it is the teacher, and says
of all images what it thinks of each class. The student has one bit for each weight and, between its
layers, one bit for each activation. It learns those scores. For
comparison, it is also trained on the labels alone.
"""

import numpy as np

from bitops.data import load_digits
from bitops.layers import BatchNorm, BinaryDense, Dense, ReLU, Sequential, Sign
from bitops.training import Distillation

LABELLED = 300
OPTIONS = {"optimizer": "adam", "schedule": "one_cycle", "batch_size": 50, "verbose": 0}


def make_teacher():
    return Sequential(
        Dense(64, 256, seed=0), BatchNorm(256), ReLU(), Dense(256, 10, seed=1), input_shape=(64,)
    )


def make_student():
    return Sequential(
        BinaryDense(64, 64, seed=2),
        BatchNorm(64),
        Sign(),
        BinaryDense(64, 10, seed=3),
        BatchNorm(10),
        input_shape=(64,),
    )


def main():
    data = load_digits()
    few = data.x_train[:LABELLED], data.y_train[:LABELLED]

    teacher = make_teacher()
    teacher.fit(*few, epochs=40, loss="cross_entropy", **OPTIONS)

    alone = make_student()
    alone.fit(*few, epochs=160, loss="cross_entropy", **OPTIONS)

    student = make_student()
    scores = teacher.outputs(data.x_train)  # of all images: no labels are needed here
    student.fit(data.x_train, scores, epochs=40, loss=Distillation(temperature=4.0), **OPTIONS)

    models = {"teacher": teacher, "labels alone": alone, "student": student}
    errors = {name: model.error_rate(data.x_test, data.y_test) for name, model in models.items()}
    for name, error in errors.items():
        print(f"{name:13} test error {error:.2%}")
    packed = student.freeze()
    print(f"the packed student has {packed.nbytes:,} bytes")

    assert np.array_equal(packed.predict(data.x_test), student.predict(data.x_test))
    assert errors["student"] < 0.15


if __name__ == "__main__":
    main()
