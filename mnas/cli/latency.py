"""`mnas latency`: measure architectures and files on a device, in one runtime or several."""

import os
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from mnas.cli.console import complain, make_console, say_json
from mnas.cli.latency_table import print_table
from mnas.measure.run import measure_models
from mnas.measure.settings import LatencySettings


@dataclass(frozen=True, kw_only=True)
class LatencyCommand:
    """Measure the latency of architectures and model files on a device, relative to MobileNetV2."""

    settings: Annotated[LatencySettings, Parameter(name="*")]
    """Other options."""
    json: bool = False
    """Print one JSON object per line instead of a table."""

    def run(self) -> None:
        """Measure all models and print them. Raises ValueError for an unknown name or an unreadable file."""
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # suppresses LiteRT's output while int8 files are written
        console = make_console()
        with console.status("", spinner="line") as status:
            result = measure_models(self.settings, progress=status.update, say=complain)
        if self.json:
            for model in result.models:
                say_json(model.to_dict())
        elif result.models:
            print_table(console, result)
        result.require_all()
