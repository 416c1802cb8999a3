"""`gpipe.export` under the name that it had before there was a package, for programs that know it by that name."""

from gpipe._export.exporter import export as gpipe_export
from gpipe._export.weights import ExportError, empty_weights

__all__ = ["ExportError", "empty_weights", "gpipe_export"]
