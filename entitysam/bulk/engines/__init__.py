"""Engines: they run `bulk.worker.VideoWorker` in other processes and give back what becomes of each video.

An engine is a generator function (settings, out, clips, options) -> events. It takes as many videos from the iterator as it
has workers for. The digits of the results do not depend on it.
"""

from dataclasses import dataclass

from entitysam.bulk.settings import Outcome

ATTEMPTS = 2  # times that a video may end its worker
ATTEMPTS_FOLDER = "attempts"  # in the hidden folder of the job, for engines that do not see their processes end


@dataclass(frozen=True)
class Frames:
    """So many frames were segmented since the last event of this kind."""

    count: int


Event = Frames | Outcome
