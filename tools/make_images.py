"""Makes the animated image of the README from the result of `entitysam demo`.

Example: entitysam demo -o out/demo && python tools/make_images.py out/demo docs/images/demo.webp
"""

import argparse
from pathlib import Path

from PIL import Image

from entitysam.io.readers.source import open_frames

WIDTH, QUALITY = 480, 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", type=Path, help="result folder with overlay.mp4")
    parser.add_argument("image", type=Path, help="WebP file to write")
    arguments = parser.parse_args()
    with open_frames(arguments.result / "overlay.mp4") as source:
        height = round(WIDTH * source.height / source.width)
        frames = [Image.fromarray(frame).resize((WIDTH, height), Image.Resampling.LANCZOS) for frame in source]
        duration = round(1000 / (source.fps or 8))  # milliseconds a frame
    arguments.image.parent.mkdir(parents=True, exist_ok=True)
    frames[0].save(arguments.image, save_all=True, append_images=frames[1:], duration=duration, loop=0, quality=QUALITY)


if __name__ == "__main__":
    main()
