"""Imports at the moment of use: the package root's public names and the optional packages."""

import importlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from sightline.core.errors import MissingDependencyError


def lazy_names(package: str, table: Mapping[str, str]) -> Callable[[str], Any]:
    """A module `__getattr__` that imports each public name from its module on first use.

    Args:
        package: the `__name__` of the module that installs the function.
        table: public name to module; a module that ends in the name itself is returned whole.
    """

    def __getattr__(name: str) -> Any:
        if name not in table:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(table[name])
        if table[name].endswith("." + name) and not hasattr(module, name):
            return module
        return getattr(module, name)

    return __getattr__


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional package, or say in one sentence how to get it.

    Raises:
        MissingDependencyError: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingDependencyError(
            f"{purpose} needs the package {module.split('.')[0]!r}, which is not installed: "
            f"pip install 'sightline[{extra}]'"
        ) from None
