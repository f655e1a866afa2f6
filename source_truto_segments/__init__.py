"""An Airbyte source for the marketing segments of Truto's unified API."""

from source_truto_segments.source import SourceTrutoSegments

__all__ = ["SourceTrutoSegments"]
