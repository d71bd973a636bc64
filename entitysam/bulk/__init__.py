"""Whole collections: many videos, one Parquet data set; on the cores of one machine or on a Ray cluster.

inputs (what the user names) -> manifest (one row per video, on disk) -> engines (processes that hold a worker each) ->
journal (one line per finished video) -> videos.parquet and the report. A finished video is one complete Parquet file.
"""
