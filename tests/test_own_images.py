"""Images of one's own: folders of pictures and .npz files, read and trained on."""

import itertools
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from bitops import io
from bitops.cli import main as cli
from bitops.data import load_dataset, load_images, load_npz
from bitops.files.pictures import open_picture, read_pixels
from bitops.recipes import RECIPES, find
from bitops.recipes import training as recipe_training
from bitops.training.log import read_log
from commands import failure, usage_error

Image = pytest.importorskip("PIL.Image")


def write_pictures(folder, count, *, shape=(6, 6), ending="png", start=0):
    """Plain pictures, the brightness of each its number."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(start, start + count):
        Image.fromarray(np.full(shape, i, np.uint8)).save(folder / f"{i:03}.{ending}")


def write_transparency(path, count):
    """A picture of a palette, with the alpha of so many colours."""
    Image.fromarray(np.zeros((6, 6), np.uint8)).convert("P").save(path)
    whole, chunk = path.read_bytes(), b"tRNS" + bytes(count)
    place = whole.index(b"IDAT") - 4
    chunk = struct.pack(">I", count) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(whole[:place] + chunk + whole[place:])


def write_bitmap(path, alpha):
    """A bitmap of 6 x 6 pixels of 32 bits, whose header names a mask of alpha."""
    pixels = np.full((6, 6, 4), (10, 20, 30, alpha), np.uint8)
    masks = struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, 6, 6, 1, 32, 3, 144, 0, 0, 0, 0) + masks + bytes(52)
    path.write_bytes(struct.pack("<2sIII", b"BM", 266, 0, 122) + header + pixels.tobytes())


@pytest.fixture
def folder(tmp_path):
    """Two classes of 30 grey pictures of 6 x 6."""
    for start, name in ((0, "bee"), (100, "ant")):
        write_pictures(tmp_path / "insects" / name, 30, start=start)
    return tmp_path / "insects"


def numbers(x):
    """The brightness of plain images."""
    assert (x == x[:, :1, :1, :1]).all()
    return x[:, 0, 0, 0].tolist()


def test_a_folder_for_each_class(folder):
    kind, data = load_dataset(folder)
    assert kind == "own"
    assert (data.name, data.classes, data.class_names) == ("insects", 2, ("ant", "bee"))
    assert data.image_shape == (6, 6, 1) and data.x_train.dtype == np.uint8
    found = []
    for part, count in (("train", 24), ("validation", 3), ("test", 3)):
        x, y = getattr(data, f"x_{part}"), getattr(data, f"y_{part}")
        assert y.dtype == np.int64
        assert_array_equal(np.bincount(y), [count, count])
        assert_array_equal(y, [0 if n >= 100 else 1 for n in numbers(x)])
        found += numbers(x)
    assert sorted(found) == [*range(30), *range(100, 130)]
    assert numbers(data.x_test) != list(range(100, 103)) + list(range(3)), "not the first ones"
    assert_array_equal(load_images(folder).x_test, data.x_test)


def test_what_does_not_count(folder):
    before = load_images(folder)
    (folder / "ant" / "notes.txt").write_text("no picture")
    (folder / "ant" / "._000.png").write_bytes(b"no picture")
    write_pictures(folder / ".thumbnails", 2)
    write_pictures(folder / "ant" / ".trash", 2)
    (folder / "read.me").write_text("")
    assert_array_equal(load_images(folder).x_train, before.x_train)
    write_pictures(folder / "ant" / "more", 2, start=200)
    assert len(load_images(folder).y_train) == len(before.y_train) + 2


@pytest.mark.parametrize(
    ("train", "names"),
    [
        ("train", ("test",)),
        ("train", ("val",)),
        ("train", ("test", "valid")),
        ("train", ("validation",)),
        ("Train", ("Test", "Valid")),
        ("TRAINING", ("testing",)),
        ("Training", ()),
    ],
)
def test_folders_of_parts(tmp_path, train, names):
    starts = itertools.count(0, 20)
    for part in (train, *names):
        for name in ("a", "b"):
            write_pictures(tmp_path / part / name, 10, start=next(starts))
    data = load_images(tmp_path)
    assert data.class_names == ("a", "b")
    assert len(data.y_train) == 20 - 2 * (2 - len(names))
    found = [name[:3].lower() for name in names]
    for x, is_there in ((data.x_test, "tes" in found), (data.x_validation, "val" in found)):
        assert len(x) == (20 if is_there else 2)
        assert (min(numbers(x)) >= 40) == is_there


def test_train_may_be_a_class(tmp_path):
    for name in ("train", "car"):
        write_pictures(tmp_path / name, 5)
        write_pictures(tmp_path / name / "more", 5, start=50)
    assert load_images(tmp_path).class_names == ("car", "train")


def test_sizes_and_channels(folder):
    assert load_images(folder, size=4, channels=3).image_shape == (4, 4, 3)
    assert load_images(folder, size=(4, 5)).image_shape == (4, 5, 1)
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[..., 0] = 4 * np.arange(60)  # red rises to the right
    image = Image.fromarray(pixels)
    image.save(folder / "ant" / "color.png")
    data = load_images(folder)
    assert data.image_shape == (32, 32, 3), "one picture has another size, and colors"
    for resize, wanted in (
        ("stretch", image.resize((32, 32))),
        ("crop", image.crop((10, 0, 50, 40)).resize((32, 32))),
    ):
        parts = load_images(folder, resize=resize)
        every = np.concatenate([parts.x_train, parts.x_validation, parts.x_test]).astype(int)
        distances = np.abs(every - np.asarray(wanted, int)).max((1, 2, 3))
        assert distances.min() <= 4
    large = folder.parent / "large"
    for name in ("a", "b"):
        write_pictures(large / name, 3, shape=(65, 65))
    assert load_images(large).image_shape == (32, 32, 1)
    assert load_images(large, size=65).image_shape == (65, 65, 1)


def test_pictures_are_turned_as_their_cameras_say(tmp_path):
    for name in ("a", "b"):
        write_pictures(tmp_path / name, 3, shape=(4, 8))
    image, exif = Image.fromarray(np.zeros((8, 4), np.uint8)), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a" / "turned.jpg", exif=exif)
    assert load_images(tmp_path).image_shape == (4, 8, 1)


def test_what_is_transparent_shows_white(tmp_path):
    clear = np.zeros((6, 6, 4), np.uint8)  # black where nobody sees it
    clear[2:4, 2:4, 3] = 255  # a black square
    whole = clear[..., 3] == 255
    images = {
        "RGBA": Image.fromarray(clear),
        "LA": Image.fromarray(clear).convert("LA"),
        "P": Image.fromarray(np.uint8(~whole)).convert("P"),
    }
    images["P"].info["transparency"] = 1
    for name, image in images.items():
        for i in range(3):
            (tmp_path / name).mkdir(exist_ok=True)
            image.save(tmp_path / name / f"{i}.png")
    data = load_images(tmp_path, channels=1)
    assert_array_equal(data.x_train[..., 0], np.uint8([255 * ~whole] * 3))
    half = clear.copy()
    half[..., 3] = 102  # black, two fifths opaque
    Image.fromarray(half).save(tmp_path / "half.png")
    opened = open_picture("test", tmp_path / "half.png")
    assert set(read_pixels("test", opened, (6, 6, 3), None).flat) == {153}
    assert_array_equal(read_pixels("test", opened, (6, 6, 4), None), half)


@pytest.mark.parametrize(("alpha", "shown"), [(0, 30), (255, 30), (51, 210)])
def test_bitmaps_whose_alpha_nobody_wrote(tmp_path, alpha, shown):
    """Programs leave the fourth byte 0 and mean opaque pixels."""
    path = tmp_path / "x.bmp"
    write_bitmap(path, alpha)
    pixels = read_pixels("test", open_picture("test", path), (6, 6, 3), None)
    assert set(pixels[..., 0].flat) == {shown}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "ant").rename(f.parent / "away"), "two classes, got one, 'bee'"),
        (lambda f: (f / "cat").mkdir(), r"must hold pictures \(.png, .*got none in .*cat"),
        (lambda f: write_pictures(f / "cat", 2), "at least 3 images .* got 2 of 'cat'"),
        (lambda f: (f / "ant" / "x.png").write_bytes(b""), "x.png must be a picture"),
        (
            lambda f: (f / "ant" / "x.png").write_bytes((f / "ant" / "100.png").read_bytes()[:-30]),
            "x.png must be a picture",
        ),
        (lambda f: (f / "ant" / "100.png").rename(f / "ant" / "x.jpg"), "content is no JPEG"),
        (lambda f: write_transparency(f / "ant" / "x.png", 300), "x.png must be a picture"),
    ],
)
def test_folders_that_are_refused(folder, spoil, message):
    spoil(folder)
    with pytest.raises(ValueError, match=rf"^\[load_images\] .*{message}"):
        load_images(folder)


def test_classes_of_parts(tmp_path):
    for part, names in (("train", "ab"), ("test", "abc")):
        for name in names:
            write_pictures(tmp_path / part / name, 4)
    with pytest.raises(ValueError, match=r"training pictures of every class, got none of 'c'"):
        load_images(tmp_path)
    write_pictures(tmp_path / "train" / "c", 4)
    write_pictures(tmp_path / "val" / "a", 4)
    data = load_images(tmp_path)
    assert set(data.y_validation) == {0}
    write_pictures(tmp_path / "valid" / "a", 4)
    with pytest.raises(ValueError, match=r"must hold one validation folder, got \['val', 'valid'"):
        load_images(tmp_path)


@pytest.mark.parametrize(
    "options",
    [{"size": 0}, {"size": (3, 4, 5)}, {"size": 2.5}, {"channels": 2}, {"resize": "no"}],
)
def test_options_that_are_refused(folder, options):
    with pytest.raises(ValueError, match=rf"^\[load_images\] {next(iter(options))} must be"):
        load_images(folder, **options)


def test_arrays(tmp_path, rng):
    path = tmp_path / "mine.npz"
    x, y = rng.integers(0, 256, (40, 5, 4), dtype=np.uint8), np.arange(40) % 2 * 3 + 7
    np.savez(path, x=x, y=y)
    kind, data = load_dataset(path)
    assert (kind, data.name, data.class_names) == ("own", "mine", ("7", "10"))
    assert data.image_shape == (5, 4, 1)
    assert_array_equal(np.bincount(data.y_train), [16, 16])
    assert_array_equal(np.bincount(data.y_test), [2, 2])
    every = np.concatenate([data.x_train, data.x_validation, data.x_test])
    assert_array_equal(np.unique(every, axis=0), np.unique(x[..., None], axis=0))
    assert_array_equal(load_npz(path).x_test, data.x_test)
    names = np.array(["ant", "bee"])[np.arange(40) % 2]
    parts = {"x_train": x, "y_train": names, "x_test": x[:6], "y_test": names[:6, None]}
    np.savez_compressed(path, **parts, x_val=x[:2], y_val=names[:2])
    data = load_npz(path)
    assert data.class_names == ("ant", "bee")
    assert_array_equal(data.x_train[..., 0], x)
    assert_array_equal(data.x_test[..., 0], x[:6])
    assert_array_equal(data.y_test, [0, 1] * 3)
    assert_array_equal(data.x_validation[..., 0], x[:2])
    parts["y_test"] = np.char.encode(parts["y_test"], "utf-8")
    np.savez(path, **parts, mean=x.mean())
    assert_array_equal(load_npz(path).y_test, [0, 1] * 3)


BYTES = np.zeros((8, 5, 4), np.uint8)
HALVES = np.arange(8) % 2
TRAIN = {"x_train": BYTES, "y_train": HALVES}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": BYTES}, "must hold arrays x and y, or x_train and y_train, got a"),
        ({"x": BYTES}, "must hold arrays x and y"),
        ({"x": BYTES / 255, "y": HALVES}, "must be uint8 of shape .* got float64"),
        ({"x": BYTES[0], "y": HALVES}, r"got uint8 of shape \(5, 4\)"),
        (
            {"x": BYTES[:0], "y": HALVES[:0]},
            r"train images in .* not be empty, got an array of shape \(0, 5, 4, 1\)",
        ),
        ({**TRAIN, "x_test": BYTES[:0], "y_test": HALVES[:0]}, "test images in .* not be empty"),
        ({**TRAIN, "x_test": BYTES}, "must be one pair, .* got x_test beside x_train, y_train"),
        ({**TRAIN, "y_valid": HALVES}, "got y_valid beside"),
        ({**TRAIN, "x_dev": BYTES, "y_dev": HALVES}, "got x_dev, y_dev beside x_train, y_train"),
        ({**TRAIN, "x": BYTES}, "got x beside"),
        ({**TRAIN, "x": BYTES, "y": HALVES}, "got x_train, y_train beside x, y"),
        (
            {**TRAIN, "x_val": BYTES, "y_val": HALVES, "x_valid": BYTES, "y_valid": HALVES},
            "got x_val, y_val beside x_train, y_train, x_valid, y_valid",
        ),
        ({"x": BYTES, "y": np.array([b"\xff", b"b"])[HALVES]}, "labels of bytes in .* UTF-8"),
        ({**TRAIN, "x_test": BYTES, "y_test": HALVES.astype(str)}, "all be integers or all be str"),
        ({"x": np.zeros((8, 3, 9, 9), np.uint8), "y": HALVES}, "must come last"),
        ({"x": BYTES, "y": HALVES[:7]}, r"of shape \(8,\), got int64 of shape \(7,\)"),
        ({"x": BYTES, "y": HALVES / 2}, "got float64"),
        ({"x": BYTES, "y": np.eye(8)}, "must be integers or strings"),
        ({"x": BYTES, "y": HALVES * 0}, "two or more classes, got 1 of them"),
        ({"x": BYTES, "y": np.arange(8) // 6}, "at least 3 images of each class, .* got 2 of '1'"),
        (
            {"x_train": BYTES, "y_train": HALVES, "x_test": BYTES, "y_test": HALVES + 1},
            "training images of every class, got none of the label 2, which is in test",
        ),
        (
            {"x_train": BYTES, "y_train": HALVES, "x_test": BYTES[:, 1:], "y_test": HALVES},
            "must have one size",
        ),
    ],
)
def test_arrays_that_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "mine.npz", **arrays)
    with pytest.raises(ValueError, match=rf"^\[load_npz\] .*{message}"):
        load_npz(tmp_path / "mine.npz")


def test_settings_for_images_of_ones_own(tmp_path, folder):
    grey, color = load_images(folder), load_images(folder, channels=3)
    for recipe in RECIPES:
        assert {recipe.own_kind(grey), recipe.own_kind(color)} <= set(recipe.settings)
    for kinds, for_grey, for_color in (
        ("mnist cifar10 svhn", "mnist", "cifar10"),
        ("svhn mnist", "mnist", "svhn"),
        ("mnist", "mnist", "mnist"),
        ("svhn cifar10", "cifar10", "cifar10"),
    ):
        recipe = replace(find("xnor"), settings=dict.fromkeys(kinds.split()))
        assert (recipe.own_kind(grey), recipe.own_kind(color)) == (for_grey, for_color)


SMALL = ["--quick", "--width", "24", "--batch", "10", "--quiet"]


def train(folder, *options, recipe="bnn-theano"):
    return ["train", recipe, "--data", str(folder), *SMALL, *map(str, options)]


def test_train_predict_and_eval(capsys, folder, tmp_path):
    """The names of the classes and the shape of the pictures go with the model."""
    run = tmp_path / "run"
    assert cli.main(train(folder, "--epochs", 2, "--size", 8, "--run", run)) == 0
    out = capsys.readouterr().out
    assert "data     insects: 48 training, 6 validation and 6 test images of 8 x 8 x 1" in out
    assert "classes  2: ant, bee" in out and "the source reports" not in out
    assert f"report   bitops report {run}" in out
    names = {"checkpoint.safetensors", "log.csv", "model.safetensors", "run.json"}
    assert {path.name for path in run.iterdir()} == names
    model = run / "model.safetensors"
    notes = io.load(model).notes
    assert (notes["classes"], notes["resize"]) == ('["ant", "bee"]', "crop")
    write_pictures(tmp_path / "new", 1, shape=(20, 30), start=125)
    assert cli.main(["predict", str(model), str(tmp_path / "new")]) == 0
    assert "125.png: ant (" in capsys.readouterr().out
    assert cli.main(["eval", str(model), "--data", str(folder)]) == 0
    assert "insects: 6 test images" in capsys.readouterr().out
    (folder / "ant").rename(folder / "cat")
    message = failure(capsys, "eval", str(model), "--data", str(folder))
    assert "the classes of insects must be ant, bee, got bee, cat" in message


def test_a_network_that_predict_will_give_no_pictures(capsys, folder, tmp_path):
    argv = train(folder, "--epochs", 1, "--run", tmp_path / "run", recipe="ebp")
    assert cli.main(argv) == 0
    assert "note     `bitops predict` will take no pictures" in capsys.readouterr().out
    model = tmp_path / "run" / "model.safetensors"
    message = failure(capsys, "predict", str(model), str(next((folder / "ant").iterdir())))
    assert "out of a whole data set" in message


def test_images_too_large_to_whiten(capsys, tmp_path):
    np.savez(tmp_path / "big.npz", x=np.zeros((9, 80, 80, 3), np.uint8), y=np.arange(9) % 2)
    message = failure(capsys, *train(tmp_path / "big.npz", "--epochs", 1, recipe="xnor"))
    assert "at most 16,384 numbers to be whitened" in message and "80 x 80 x 3" in message


def test_settings_are_those_of_the_rows(capsys, folder):
    argv = train(folder, "--epochs", 1, "--recalibrate", 5000)
    argv[argv.index("--batch") + 1] = "999"
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    assert "batch 48, " in out and "recalibrated by 48 images" in out


def test_train_on_arrays_that_are_not_square(capsys, tmp_path, rng):
    path, model = tmp_path / "mine.npz", tmp_path / "net.safetensors"
    y = np.arange(60) % 2
    x = np.uint8(200 * y[:, None, None] + rng.integers(0, 50, (60, 5, 7)))
    np.savez(path, x=x, y=y)
    assert cli.main(train(path, "--epochs", 2, "--save", model)) == 0
    assert cli.main(["eval", str(model), "--data", str(path)]) == 0
    assert "mine: 6 test images" in capsys.readouterr().out
    Image.fromarray(x[0]).save(tmp_path / "one.png")
    assert cli.main(["predict", str(model), str(tmp_path / "one.png")]) == 0
    assert "one.png: 0 (" in capsys.readouterr().out
    message = usage_error(capsys, *train(path, "--size", 8))
    assert "argument --size: is for pictures of your own, got mine" in message


def test_hours_pick_the_epochs_and_a_resumed_run_keeps_them(capsys, folder, tmp_path, monkeypatch):
    run, argv = tmp_path / "run", train(folder, "--hours", 0.001, "--run", tmp_path / "run")
    monkeypatch.setattr(recipe_training, "epoch_seconds", lambda setting, job: 1.0)
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    assert "hours    0.001 for 3 epochs: an epoch takes about 1 s, by a few steps" in out
    assert len(read_log(run / "log.csv")) == 3
    assert "--run: go on with --resume or replace it with --overwrite" in usage_error(capsys, *argv)
    monkeypatch.setattr(recipe_training, "epoch_seconds", None)
    assert cli.main([*argv, "--resume"]) == 0
    out = capsys.readouterr().out
    assert "settings 3 epochs" in out and "hours   " not in out
    monkeypatch.setattr(recipe_training, "epoch_seconds", lambda setting, job: 36.0)
    message = failure(capsys, *argv, "--overwrite")
    assert "[train] --hours must be enough for an epoch, about 0.0106, got 0.001" in message
    argv[argv.index("0.001")] = "0.0106"
    assert cli.main([*argv, "--overwrite"]) == 0
    capsys.readouterr()
    message = usage_error(capsys, *argv, "--epochs", "3")
    assert "--hours: not allowed with argument --epochs" in message


def test_an_epoch_is_estimated_by_few_steps(folder, monkeypatch):
    """Stage by stage, and the trial leaves the job as it is."""
    monkeypatch.setattr(recipe_training, "LEAST_SECONDS", 0.0)
    data = load_images(folder)
    rows = []
    train_all = recipe_training.train
    monkeypatch.setattr(
        recipe_training,
        "train",
        lambda setting, job: [rows.append(len(job.data.y_train)), train_all(setting, job)][1],
    )
    setting = find("ternary").setting("mnist")
    job = recipe_training.Job(data, setting.resolve(width=16, batch_size=8))
    seconds = recipe_training.epoch_seconds(setting, job)
    assert 0 < seconds < 60 and rows == [24]
    monkeypatch.setattr(recipe_training, "LEAST_SECONDS", 1e9)
    assert recipe_training.epoch_seconds(setting, job) > 0 and rows == [24, 24, 48]
    assert job.plan.epochs == 100 and len(job.data.y_train) == 48


def test_impossible_uses(capsys, folder, tmp_path):
    message = usage_error(capsys, *train(folder, "--run", tmp_path / "r", "--log", "x.csv"))
    assert "argument --log: not allowed with argument --run" in message
    (tmp_path / "file").touch()
    assert "argument --run:" in usage_error(capsys, *train(folder, "--run", tmp_path / "file"))
    (tmp_path / "empty").mkdir()
    message = failure(capsys, *train(tmp_path / "empty"))
    assert "pictures (.png, .jpg, .jpeg, .bmp) for each class, got none" in message
