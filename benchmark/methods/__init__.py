"""One learning rule a file. A new file here that defines a `Method` with a name is all a rule needs."""

import importlib
import pkgutil

from benchmark.common.errors import UserError
from benchmark.methods.base import Hyperparameter, Method, Noise

METHODS: dict[str, type[Method]] = {}
"""Every learning rule by its `name`."""

_PARTS = ("base", "network", "seeding", "sizes")
"""The modules that are no rules. `network` and `seeding` need torch, the names of rules do not."""
_classes: dict[type[Method], str] = {}
for _module in pkgutil.iter_modules(__path__):
    if _module.name in _PARTS:
        continue
    _file = f"benchmark/methods/{_module.name}.py"
    try:
        _contents = vars(importlib.import_module(f"{__name__}.{_module.name}"))
    except Exception as error:
        raise UserError(f"{_file} cannot be imported: {type(error).__name__}: {error}") from error
    for _found in _contents.values():
        if isinstance(_found, type) and issubclass(_found, Method) and _found.__module__ != Method.__module__:
            _classes[_found] = f"benchmark/methods/{_found.__module__.rpartition('.')[2]}.py"
for _found, _file in _classes.items():
    if "name" in vars(_found):
        if (_other := METHODS.setdefault(_found.name, _found)) is not _found:
            raise UserError(f"{_file}: {_classes[_other]} has a method named {_found.name!r} already")
    elif not _found.__subclasses__():  # a class with subclasses is a base such as TargetPropagation
        raise UserError(f"{_file}: {_found.__name__} needs a `name`, which plans use")

__all__ = ["METHODS", "Hyperparameter", "Method", "Noise"]
