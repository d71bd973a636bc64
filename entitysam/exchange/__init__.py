"""Results in the formats of other programs, and back: `export_result`, `import_result`, `entitysam convert`.

Not to be confused with `engine.formats`, which writes predictions in the submission formats of the benchmarks.
"""

from entitysam.exchange.convert import FORMATS, export_result, import_result
from entitysam.exchange.formats.supervision import from_supervision, to_supervision
from entitysam.exchange.video import TrackedVideo, read_result, write_result

__all__ = [
    "FORMATS",
    "TrackedVideo",
    "export_result",
    "from_supervision",
    "import_result",
    "read_result",
    "to_supervision",
    "write_result",
]
