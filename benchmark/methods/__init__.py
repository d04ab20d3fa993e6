"""One learning rule a file. A new file here that defines a `Method` with a name is all a method needs."""

import importlib
import pkgutil

from benchmark.methods.base import Method, Noise, build

METHODS: dict[str, type[Method]] = {}
"""Every learning rule by its name in Table 2."""

for _module in pkgutil.iter_modules(__path__):
    for _found in vars(importlib.import_module(f"{__name__}.{_module.name}")).values():
        if isinstance(_found, type) and issubclass(_found, Method) and "name" in vars(_found):
            METHODS[_found.name] = _found

__all__ = ["METHODS", "Method", "Noise", "build"]
