"""Trainings, and what belongs to one: behind a pickle or a copy they go on to the bit."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import bitops as bo
from bitops import layers as L
from pickled import IMAGES, ROWS, WAYS, network, real, same


@pytest.fixture(params=WAYS)
def way(request):
    return WAYS[request.param]


OPTIMIZERS = {
    "SGD": lambda p: bo.training.SGD(p, momentum=0.9),
    "Adam": bo.training.Adam,
    "Adam, decay": lambda p: bo.training.Adam(p, weight_decay=0.01, decayed=p[1:2]),
    "AdaMax": bo.training.AdaMax,
    "ShiftAdaMax": bo.training.ShiftAdaMax,
    "Bop": lambda p: bo.training.Bop(p, threshold=1e-9, adaptivity=0.1),
}


def steps(model, optimizer, count):
    for number in range(count):
        y = model.forward(IMAGES, training=True)
        model.backward(real(*y.shape, seed=number))
        optimizer.step()
    return model.state(), optimizer.state()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_training_goes_on_to_the_bit(way, name):
    model = network()
    model.round_gradients(seed=7)
    optimizer = OPTIMIZERS[name](model.parameters())
    steps(model, optimizer, 2)
    y = model.forward(IMAGES, training=True)
    model.backward(y)
    twin, its = way((model, optimizer))  # between backward and step
    optimizer.step()
    its.step()
    assert repr(its) == repr(optimizer) and its.settings() == optimizer.settings()
    wants, got = steps(model, optimizer, 3), steps(twin, its, 3)
    assert same(wants[0], got[0])
    assert wants[1].keys() == got[1].keys()
    assert all(same(wants[1][key], got[1][key]) for key in wants[1])
    alone = way(optimizer)  # with parameters of its own
    alone.step()
    assert not any(a is b for a, b in zip(alone.parameters, optimizer.parameters, strict=True))


def test_moments_keep_their_places_in_memory(way):
    """Starts at different places of a page, without which a step takes three times as long."""

    def places(optimizer):
        return [m.ctypes.data % 4096 for moments in optimizer._moments for m in moments]

    parameters = [L.Parameter(np.zeros((64, 1024)))]
    optimizer = bo.training.Adam(parameters)
    assert len(set(places(optimizer))) == 2
    assert len(set(places(way(optimizer)))) == 2


SCHEDULES = (
    bo.training.ExponentialDecay(),
    bo.training.StepDecay(0.1, (2, 3)),
    bo.training.Halving(0.1, 2),
    bo.training.CosineDecay(0.1),
    bo.training.Warmup(bo.training.Stretched(bo.training.CosineDecay(0.1), 5), 2),
)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_schedules(way, schedule):
    back = way(schedule)
    assert back == schedule
    assert [back(e, 9) for e in range(9)] == [schedule(e, 9) for e in range(9)]


class Snapshots(bo.training.Callback):
    """Pickles and restores the whole run, with all callbacks, after every step."""

    def __init__(self, way, callbacks):
        self.way, self.callbacks = way, callbacks

    def on_batch(self, run):
        made, callbacks = self.way((run, self.callbacks))
        assert (made.step, made.mean_loss) == (run.step, run.mean_loss)
        assert same(made.model.state(), run.model.state())
        assert made.optimizer.parameters[0] is made.model.parameters()[0]
        assert [repr(c) for c in callbacks] == [repr(c) for c in self.callbacks]
        run.stop = run.step == 2


def test_runs_callbacks_and_histories(way, tmp_path):
    train = bo.training
    callbacks = [
        train.Checkpoint(tmp_path / "checkpoint", steps=1),
        train.Log(tmp_path / "log.csv"),
        train.EarlyStopping(5),
        train.Annealing(),
    ]
    callbacks.append(Snapshots(way, callbacks[:4]))
    x, y = np.tile(IMAGES, (4, 1, 1, 1)), np.arange(24) % 5
    history = network().fit(
        x, y, epochs=3, batch_size=8, validation=(x, y), callbacks=callbacks, verbose=0
    )
    assert way(history).epochs == history.epochs
    again = way(callbacks[:2])  # the log and the checkpoint of another training
    options = {"epochs": 1, "batch_size": 8, "verbose": 0}
    with pytest.raises(FileExistsError, match=r"^\[Checkpoint\]"):
        network().fit(x, y, callbacks=again[:1], **options)
    for callback in again:
        callback.overwrite = True
    network().fit(x, y, callbacks=again, **options)
    assert len(train.read_log(tmp_path / "log.csv")) == 1


def test_recipes_and_data(way):
    from bitops import recipes
    from bitops.training import ZCA

    for recipe in recipes.RECIPES:
        back = way(recipe)
        assert back.name == recipe.name and set(back.settings) == set(recipe.settings)
        for kind, setting in recipe.settings.items():
            schedules = [s.schedule(0.1) for s in setting.stages if hasattr(s, "schedule")]
            its = [s.schedule(0.1) for s in back.settings[kind].stages if hasattr(s, "schedule")]
            assert schedules == its
    pytest.importorskip("sklearn", reason="the digits are those of scikit-learn")
    digits = bo.data.load_digits()
    plan = recipes.Plan(width=16, epochs=1, batch_size=100, lr=1e-3)
    job = way(recipes.Job(digits, plan))
    assert job.plan == plan and repr(job.data) == repr(digits)
    assert_array_equal(job.data.x_train, digits.x_train)
    job.say("nothing")
    whitening = ZCA().fit(ROWS)
    assert_array_equal(way(whitening).apply(ROWS), whitening.apply(ROWS))


def test_histories_that_were_pickled_before_their_file_moved():
    history = network().fit(IMAGES, np.arange(6) % 5, epochs=1, verbose=0)
    old = pickle.dumps(history, 0).replace(b"bitops.training.run", b"bitops.training.callbacks")
    assert b"training.callbacks" in old
    assert str(pickle.loads(old)) == str(history)
