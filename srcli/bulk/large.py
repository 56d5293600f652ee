"""A picture larger than memory on a cluster: workers share its regions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

from srcli.bulk.engine import PASSES, Pool, Stages, stream
from srcli.bulk.stages import Part, Work, fail, guard, pack, unpack
from srcli.errors import DeviceError, SrcliError
from srcli.imaging.source import open_picture
from srcli.inference.jobs import Job
from srcli.inference.large import do_large, open_large
from srcli.inference.regions import Region, plan_regions
from srcli.inference.results import Result
from srcli.inference.runner import RunStats
from srcli.inference.sources import Source
from srcli.progress import SILENT, Progress


@dataclass(frozen=True, slots=True)
class RegionReader:
    """Reads regions of a picture, anywhere.

    Attributes:
        source: The picture.
        frame: As `Job`.
        levels: As `LargePicture`.
        work: What all workers know.
    """

    source: Source
    frame: int | None
    levels: tuple[float, float]
    work: Work

    def __call__(self, table: Any) -> Iterator[Any]:  # noqa: ANN401 - of pyarrow
        """The regions of a table with their pixels."""
        self.work.enter()
        for index, region in unpack(table):
            yield pack([(index, guard(self.source, self._read, region))])

    def _read(self, region: Region) -> Part | Result:
        name = self.source.name
        try:
            with open_picture(
                self.source.content,
                name=name,
                frame=self.frame,
                keep_metadata=self.work.options.keep_metadata,
                by_box=True,
            ) as opened:
                opened.levels = self.levels
                part = opened.read(region.padded)
        except SrcliError as error:
            return fail(self.source, error)
        return Part(self.source, region, part)


def enlarge_by_region(
    job: Job, work: Work, pool: Pool, progress: Progress = SILENT
) -> Result:
    """Do a large job on the cluster that was joined; this process writes the result.

    Args:
        job: Open, and `is_large`.
        work: What all workers know.
        pool: The workers.
        progress: Told of regions.
    """

    def enlarge(job: Job, file: IO[bytes]) -> RunStats:
        assert job.info is not None
        source, frame = job.source, job.frame
        regions = plan_regions(work.make_planner(), job.info)
        progress.start(source.name, len(regions))
        stats: RunStats | None = None
        kept = work.options.keep_metadata
        with open_large(
            source.content,
            file,
            regions,
            name=source.name,
            frame=frame,
            keep_metadata=kept,
        ) as large:
            read = RegionReader(source, frame, large.levels, work)
            for part in _stream_parts(regions, read, pool):
                assert part.stats is not None
                large.write(part.region, part.picture)
                progress.advance()
                stats = stats.followed_by(part.stats) if stats else part.stats
        assert stats is not None
        return stats

    return do_large(job, work.options, enlarge)


def _stream_parts(
    regions: list[Region], read: RegionReader, pool: Pool
) -> Iterator[Part]:
    """The enlarged regions, in order unless some are lost on the way.

    Raises:
        SrcliError: What kept one of them from being enlarged.
    """
    stages = Stages(read.work, partial(RegionReader.__call__, read), in_order=True)
    left = dict(enumerate(regions))
    for _ in range(PASSES):
        blocks = [pack([item]) for item in left.items()]
        for index, state in stream(blocks, stages, pool):
            if isinstance(state, Result) and state.error is not None:
                raise state.error
            if left.pop(index, None) is not None:
                yield state
        if not left:
            return
    name = read.source.name
    raise DeviceError(f"{name}: the cluster has lost parts of it {PASSES} times")
