"""Several methods on one data set, one after the other, into one table."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from entitysam import distributed
from entitysam.config import from_dict
from entitysam.engine.build import pick_device
from entitysam.engine.evaluate.report.methods_table import Row, write_comparison
from entitysam.engine.evaluate.run import (
    RunOptions,
    build_dataset,
    build_prediction_format,
    evaluate_on,
    on_first,
    remove_predictions,
)
from entitysam.io.files import as_stem, make_folder
from entitysam.precision import set_arithmetic
from entitysam.registry import ConfigError
from entitysam.settings import read_settings

logger = logging.getLogger(__name__)

RESAMPLES = 1000  # of the videos, for the confidence intervals


@dataclass(frozen=True)
class MethodRow:
    """A method of a comparison.

    Attributes:
        method: NAME[:key=value,...], see `engine.methods.build`; "" = only published numbers.
        label: its name in the table and of its folder; "" = `method`.
        weights: of EntitySAM; "" = those of the run.
        paper: published numbers, metric -> percent.
    """

    method: str = ""
    label: str = ""
    weights: str = ""
    paper: dict[str, float] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return self.label or self.method


def method_rows(nodes: Sequence[Mapping[str, Any]]) -> list[MethodRow]:
    """Rows of `evaluation.methods`.

    Raises:
        ConfigError: an unknown key, a row without name, two rows with one name.
    """
    rows = []
    for index, node in enumerate(nodes):
        rows.append(read_settings(MethodRow, node, f"evaluation.methods[{index}]"))
        if not rows[-1].title:
            raise ConfigError(f"evaluation.methods[{index}]: needs a method or a label")
    folders = [as_stem(row.title).lower() for row in rows]
    twice = next((row.title for row, folder in zip(rows, folders) if folders.count(folder) > 1), None)
    if twice is not None:
        raise ConfigError(f"evaluation.methods: two rows are called '{twice}'; give each a label")
    return rows


def compare_methods(values: dict[str, Any], options: RunOptions, rows: Sequence[MethodRow]) -> bool:
    """Evaluates every method into a folder of its own below `output_dir`, and writes the comparison beside them.

    A method that cannot be built, because its weights are missing, gets a row that says so, and the others run.

    Args:
        values: the config as `config.to_dict` gives it.
        options: of the command line; `method` is not read.
        rows: the methods.

    Returns:
        whether every method ran on every video.

    Raises:
        ConfigError, DataError: one line on what cannot be built for any method.
        ClassifierError, DeviceLostError, WorkerError: see `run`; `resume` continues.
    """
    config = from_dict(values)
    folder = Path(config.output_dir)
    set_arithmetic(**config.arithmetic)
    with distributed.process_group(pick_device(options.device)) as device:
        dataset = build_dataset(config)
        on_first(lambda: make_folder(folder))
        results = []
        for number, row in enumerate(rows, start=1):
            if not row.method:
                results.append(Row(row.title, row.paper, problem="no method here"))
                continue
            own = folder / as_stem(row.title)
            chosen = replace(
                options,
                method=row.method,
                weights=row.weights or options.weights,
                save_predictions=True,
                resamples=RESAMPLES,
                resume=options.resume and own.is_dir(),
                worst=0,
            )
            started = time.perf_counter()
            try:
                found = evaluate_on(device, {**values, "output_dir": str(own)}, chosen)
                results.append(Row(row.title, row.paper, found, own))
            except (ValueError, OSError) as error:
                problem = " ".join(str(error).split())
                results.append(Row(row.title, row.paper, problem=problem))
                logger.warning("%d/%d %s: not run: %s", number, len(rows), row.title, problem)
                continue
            logger.info("%d/%d %s: %.0f s", number, len(rows), row.title, time.perf_counter() - started)

        def report() -> None:
            formats = {
                row.title: build_prediction_format(config, dataset, row.folder)
                for row in results
                if row.folder is not None
            }
            write_comparison(results, folder, dataset, formats, options.worst)
            if not options.save_predictions:
                for row in results:
                    if row.folder is not None and row.result is not None and row.result.complete:
                        remove_predictions(row.folder)

        on_first(report)
    return all(row.result is not None and row.result.complete for row, given in zip(results, rows) if given.method)
