"""Import every module of the package; run it where only the core dependencies are installed."""

import importlib
import pkgutil

import sightline


def main() -> None:
    names = [m.name for m in pkgutil.walk_packages(sightline.__path__, "sightline.")]
    for name in names:
        if not name.endswith("__main__"):
            importlib.import_module(name)
    print(f"{len(names)} modules imported")


if __name__ == "__main__":
    main()
