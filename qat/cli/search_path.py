"""Where Hydra looks for the parts of a recipe, so that no recipe of one's own has to say it."""

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

_RECIPES, _PARTS = "pkg://qat.recipes", "pkg://qat.configs"


class _PackageParts(SearchPathPlugin):
    """Puts the package's recipes and parts behind what Hydra searches anyway, and a folder of one's own behind those.

    Hydra makes a plugin anew whenever it composes, so the folder is kept by the class.
    """

    folder: Path | None = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        known = {element.path for element in search_path.get_path()}
        for path in (_RECIPES, _PARTS):
            if path not in known:
                search_path.append("qat", path)
        if self.folder is not None:
            search_path.append("command-line", f"file://{self.folder.resolve()}")


def search_package_parts(folder: Path | None = None) -> None:
    """Let Hydra find the package's parts in this process, and besides them what is in `folder`."""
    _PackageParts.folder = folder
    Plugins.instance().register(_PackageParts)
