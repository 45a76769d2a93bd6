"""Settings of a training in words: what must be equal in one that resumes from its checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..layers.base import all_layers, named_layers
from .optim import Optimizer
from .run import Data, Run, choose_monitor
from .words import cut, describe_data, in_words, listed, name_of, repr_of, values_of

__all__ = ["check_model", "check_settings", "settings_of"]


def settings_of(run: Run) -> dict[str, str]:
    """Put into words what a checkpoint does not carry and what must be equal in the next run."""
    if run.settings is None:
        run.settings = {
            **_layers_of(run.model),
            "optimizer": f"{run.optimizer.name} {_as_floats(run.optimizer.settings())}",
            "loss": name_of(run.loss),
            "schedule": _describe_schedule(run),
            "augment": name_of(run.augment),
            "epochs": str(run.epochs),
            "batch_size": str(run.batch_size),
            "seed": run.seed,
            **_describe_pair("", run.data),
            **_describe_pair("validation ", run.validation),
            **_describe_options(run),
            **_describe_details(run),
        }
    return run.settings


def _layers_of(model: Any) -> dict[str, str]:
    return {f"layer {i}": repr_of(layer) for i, layer in enumerate(model.flat_layers())}


def check_model(there: dict[str, str], model: Any) -> None:
    """Refuse a checkpoint of other layers, and say which differ."""
    layers = {name: words for name, words in there.items() if name.startswith("layer ")}
    _compare(_in_present_words(layers), _layers_of(model))


def check_settings(there: dict[str, str], run: Run, *, resumes: bool = False) -> None:
    """Refuse a checkpoint of other settings, and say which differ.

    Epochs may, see `checkpoint._check_epochs`, and so may what changes no weights. If the run
    `resumes` from it, an optimizer that has trained before takes its rate.

    Raises
    ------
    ValueError
        If settings differ.
    """
    here = settings_of(run)
    there = _in_present_words(there)
    if resumes and run.optimizer.steps and run.schedule is None:
        here["schedule"] = there["schedule"]
    # what is not in earlier files cannot be compared with them
    missing = {name: here[name] for name in here if _is_detail(name) and name not in there}
    bits = missing.get("gradient bits")
    if bits is not None:
        missing["gradient bits"] = bits if bits in ("8", "none") else "8 or none"
    _compare({**there, **missing}, here)


def _compare(there: dict[str, str], here: dict[str, str]) -> None:
    free = {"epochs"}
    if "recalibrate" in here:  # then what is there is measured anew
        free.add("recalibrate")
    names = [name for name in {**there, **here} if name not in free]
    differ = [name for name in names if there.get(name) != here.get(name)]
    # details of what is another thing altogether say nothing
    differ = [name for name in differ if not _is_detail(name)] or differ
    if differ:
        words = [_sentence(name, there, here) for name in differ[:4]]
        more = [f"and {len(differ) - 4} more"] if len(differ) > 4 else []
        raise ValueError("; ".join(words + more))


def _sentence(name: str, there: dict[str, str], here: dict[str, str]) -> str:
    verb = "are" if name.startswith(("values", "optimized", "decayed")) else "is"
    return f"{name} {verb} {there.get(name, 'none')} there and {here.get(name, 'none')} here"


def _in_present_words(settings: dict[str, str]) -> dict[str, str]:
    """Settings of a checkpoint, with flags and numbers called what they are called now."""

    def present(name: str, words: str) -> str:
        if name.startswith("layer "):
            return re.sub(r"\b(alpha|k_map)=True", lambda flag: f"{_FLAGS[flag[1]]}=True", words)
        if name == "optimizer":
            words = re.sub(r"np\.float\d+\(([^)]*)\)", r"\1", words)
            words = re.sub(r"(: -?\d+)(?=[,}])", r"\1.0", words)
            if "'l2'" not in words:  # before there was one
                words = re.sub(r"('weight_decay': [^,}]+)", r"\1, 'l2': 0.0", words)
        return words

    return {name: present(name, words) for name, words in settings.items()}


# what the flags of layers were called when the first checkpoints were written
_FLAGS = {"alpha": "scale_weights", "k_map": "scale_input"}


def _as_floats(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Turn numbers into floats: 0 and 0.0 are the same setting."""
    return {k: v if isinstance(v, bool) else float(v) for k, v in numbers.items()}


def _describe_options(run: Run) -> dict[str, str]:
    """Put into words the options that are not at their defaults, which earlier files lack."""
    frozen = [str(i) for i, p in enumerate(run.model.parameters()) if not p.trainable]
    default = choose_monitor(run, None, None)
    options = {
        "sample_weight": run.weight is not None and describe_data(run.weight),
        "steps_per_epoch": run.stream is not None and str(run.batches),
        "accumulate": run.accumulate > 1 and str(run.accumulate),
        "recalibrate": run.recalibrate and str(run.recalibrate),
        "metrics": ", ".join(run.metrics),
        "monitor": run.monitor != default and repr(run.monitor),
        "frozen parameters": ", ".join(frozen),
    }
    options |= run.callback_settings
    return {name: words for name, words in options.items() if words}


# ---- details, each of which is in every file but the earlier ones ------------------------------


def _is_detail(name: str) -> bool:
    details = ("gradient bits", "optimized parameters", "decayed parameters", "class_weight")
    return name in details or name.startswith(("parameter ", "values of "))


def _describe_details(run: Run) -> dict[str, str]:
    layers = all_layers(run.model.flat_layers())
    bits = {_rounding_of(layer) for layer in layers if getattr(layer, "rounding", None) is not None}
    values = {"loss": run.loss, "schedule": run.schedule, "augment": run.augment}
    return {
        "gradient bits": ", ".join(sorted(bits)) or "none",
        "class_weight": "none" if run.class_weight is None else in_words(run.class_weight, ()),
        **_describe_parameters(run),
        **{f"values of {name}": values_of(thing) or "none" for name, thing in values.items()},
        "values of metrics": cut("; ".join(filter(None, map(values_of, run.metrics.values()))))
        or "none",
        "values of layers": _describe_layers(run) or "none",
    }


def _rounding_of(layer: Any) -> str:
    """Put into words what a layer rounds."""
    bits = str(layer.rounding.bits)
    return f"{bits} and activations" if getattr(layer, "rounds_activations", False) else bits


def _describe_parameters(run: Run) -> dict[str, str]:
    """Put into words how each parameter is stepped, clipped and decayed."""
    parameters, optimizer = run.model.parameters(), run.optimizer
    places = {id(parameter): i for i, parameter in enumerate(parameters)}

    def numbered(some: list) -> str:
        found = [places[id(parameter)] for parameter in some]
        return "all" if found == list(range(len(parameters))) else ", ".join(map(str, found))

    words = {}
    for i, parameter in enumerate(parameters):
        clip = None if parameter.clip_value is None else float(parameter.clip_value)
        words[f"parameter {i}"] = f"lr_scale={float(parameter.lr_scale)}, clip_value={clip}"
    decays = optimizer.weight_decay or optimizer.l2
    return {
        **words,
        "optimized parameters": numbered(optimizer.parameters) or "none",
        "decayed parameters": (decays and numbered(optimizer.decayed)) or "none",
        "values of optimizer": _describe_optimizer(optimizer) or "none",
    }


def _describe_optimizer(optimizer: Optimizer) -> str:
    """Put into words the settings of an optimizer that are not numbers."""
    words = {}
    for name, value in vars(optimizer).items():
        if isinstance(value, Optimizer):
            words[name] = f"{value.name} {_as_floats(value.settings())}"
        elif isinstance(value, str | tuple | bool) and not name.startswith("_"):
            words[name] = in_words(value, ())
    return cut(listed({k: v for k, v in words.items() if k not in optimizer.varying}))


def _describe_layers(run: Run) -> str:
    """Put into words the arguments of layers, those of their quantizers included."""
    words = []
    for place, layer in named_layers(run.model.flat_layers()):
        values = {name: in_words(value, ()) for name, value in layer.config().items()}
        if values:
            words.append(f"{place}.{layer.name}({listed(values)})")
    return cut("; ".join(words))


def _describe_pair(what: str, data: Data | None) -> dict[str, str]:
    x, y = (None, None) if data is None else data
    return {f"{what}x": describe_data(x), f"{what}y": describe_data(y)}


def _describe_schedule(run: Run) -> str:
    return f"lr={float(run.optimizer.lr)}" if run.schedule is None else name_of(run.schedule)
