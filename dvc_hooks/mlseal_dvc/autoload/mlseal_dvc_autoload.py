"""Load mlseal's wrapper when, and only when, a process imports ``dvc.repo``.

Run at every start of the interpreter, therefore standard library only, no input or output, and well under a
millisecond. Loaded by ``mlseal-dvc-autoload.pth`` (Python up to 3.17) and ``mlseal-dvc-autoload.start`` (PEP 829).
Installed on request by ``mlseal dvc install``; removed by ``mlseal dvc uninstall``.
"""

import sys

TARGET = "dvc.repo"


class _Finder:
    """Lets the other finders find ``dvc.repo``, then has mlseal wrap the module once it has been executed."""

    def find_spec(self, name, path=None, target=None):
        if name != TARGET:
            return None
        from importlib.util import find_spec

        sys.meta_path.remove(self)
        try:
            spec = find_spec(name)
        finally:
            sys.meta_path.insert(0, self)  # a failed import may be tried again, and must not succeed unwrapped
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                _activate()

            spec.loader.exec_module = exec_module
        return spec


def _activate():
    try:
        from mlseal_dvc import wrapping
    except ImportError as error:
        # Going on would push unsigned and read unverified data while the user believes otherwise.
        raise ImportError(
            "mlseal-dvc-autoload is installed but mlseal cannot be imported (%s); "
            "reinstall mlseal, or run: %s -m pip uninstall mlseal-dvc-autoload" % (error, sys.executable)
        ) from error
    wrapping.activate()


def install():
    """Register the finder, once. Called by the start-up files."""
    if TARGET not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
