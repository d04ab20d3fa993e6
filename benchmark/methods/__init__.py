"""One learning rule a file. A new file here that defines a `Method` with a name is all a method needs."""

import importlib
import pkgutil

from benchmark.errors import UserError
from benchmark.methods.base import Method, Noise, build

METHODS: dict[str, type[Method]] = {}
"""Every learning rule by its name in Table 2."""

for _module in pkgutil.iter_modules(__path__):
    try:
        _contents = vars(importlib.import_module(f"{__name__}.{_module.name}"))
    except Exception as error:
        raise UserError(
            f"benchmark/methods/{_module.name}.py cannot be imported: {type(error).__name__}: {error}"
        ) from error
    for _found in list(_contents.values()):
        if not (isinstance(_found, type) and issubclass(_found, Method) and "name" in vars(_found)):
            continue
        if METHODS.setdefault(_found.name, _found) is not _found:
            _other = f"benchmark/methods/{METHODS[_found.name].__module__.rpartition('.')[2]}.py"
            raise UserError(
                f"benchmark/methods/{_module.name}.py: {_other} has a method named {_found.name!r} already"
            )

__all__ = ["METHODS", "Method", "Noise", "build"]
