"""Segments a video: the same as `entitysam segment`, for use from a checkout.

Example: python tools/segment_video.py clip.mp4 -o out/clip --model tiny
"""

import sys

from entitysam.cli import main

if __name__ == "__main__":
    sys.exit(main(["segment", *sys.argv[1:]]))
