"""Draws the network beside its files, after Figure 2a of the EntitySAM paper: `docs/images/architecture.svg`.

Example: python tools/make_figure.py docs/images/architecture.svg
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 1000, 470
BOX = (190, 74)
# Both colour schemes stand in the file, each with a background of its own, so that text is readable on any page.
STYLE = """
  :root { --paper: #ffffff; --ink: #1b1f24; --faint: #57606a; --frozen: #dbe9f9; --trained: #fde5c8; --state: #e2f2dd; }
  @media (prefers-color-scheme: dark) {
    :root { --paper: #16191d; --ink: #e6e9ec; --faint: #a3abb3; --frozen: #223a56; --trained: #563c18; --state: #264020; }
  }
  text { font-family: sans-serif; font-size: 14px; fill: var(--ink); text-anchor: middle; }
  .file { font-family: monospace; font-size: 11px; fill: var(--faint); }
  .shape { font-size: 12px; fill: var(--faint); }
  rect { stroke: var(--ink); stroke-width: 1.2; }
  path { fill: none; stroke: var(--ink); stroke-width: 1.5; marker-end: url(#head); }
"""


@dataclass(frozen=True)
class Box:
    """A part of the network.

    Attributes:
        x, y: of its upper left corner, pixels.
        title: its name in the paper.
        file: where it is, below `entitysam/`; "" for data.
        kind: "frozen" or "trained" (by default), or "state": data.
    """

    x: int
    y: int
    title: str
    file: str
    kind: str

    def draw(self) -> str:
        middle, width, height = self.x + BOX[0] // 2, *BOX
        lines = [
            f'<rect x="{self.x}" y="{self.y}" width="{width}" height="{height}" rx="7" fill="var(--{self.kind})"/>',
            f'<text x="{middle}" y="{self.y + (33 if self.file else 42)}">{escape(self.title)}</text>',
        ]
        if self.file:
            lines.append(f'<text class="file" x="{middle}" y="{self.y + 55}">{escape(self.file)}</text>')
        return "\n".join(lines)


BOXES = (
    Box(20, 40, "image encoder (SAM 2)", "layers/image_encoder.py", "frozen"),
    Box(20, 180, "frame t", "", "state"),
    Box(20, 320, "semantic encoder (DINOv2)", "layers/semantic_encoder.py", "frozen"),
    Box(275, 40, "memory read", "models/memory.py", "frozen"),
    Box(275, 320, "dual encoder: fusion", "models/dual_encoder.py", "trained"),
    Box(530, 40, "PromptGenerator", "models/prompt_generator.py", "trained"),
    Box(530, 320, "EntityDecoder", "models/entity_decoder.py", "trained"),
    Box(790, 40, "memory write", "models/memory.py", "frozen"),
    Box(790, 180, "masks, IoU, entity logits", "structures.py", "state"),
    Box(790, 320, "ids of the video", "inference/panoptic.py", "state"),
)
# Lines "M x y L x y .." and the label of each with its place.
ARROWS = (
    ("M115 180 V118", "", 0, 0),
    ("M115 254 V316", "", 0, 0),
    ("M210 77 H271", "cells", 241, 70),
    ("M210 357 H271", "tokens", 241, 350),
    ("M370 114 V316", "Q x hw x C", 328, 218),
    ("M465 77 H526", "", 0, 0),
    ("M465 357 H526", "", 0, 0),
    ("M625 114 V316", "points, entity logits", 690, 218),
    ("M720 340 H755 V217 H786", "", 0, 0),
    ("M885 180 V118", "", 0, 0),
    ("M885 254 V316", "merge", 908, 290),
    ("M885 40 V14 H370 V36", "memories of every entity, for frame t + 1", 628, 30),
)
LEGEND = (("frozen", "frozen by default"), ("trained", "trained"), ("state", "data"))


def figure() -> str:
    """The figure as SVG."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<title>EntitySAM: from a frame to the ids of a video, with the file of every part</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        '<polygon points="0 0 10 5 0 10" fill="var(--ink)"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" style="stroke: none" fill="var(--paper)"/>',
        *(f'<path d="{line}"/>' for line, *_ in ARROWS),
        *(f'<text class="shape" x="{x}" y="{y}">{escape(label)}</text>' for _, label, x, y in ARROWS if label),
        *(box.draw() for box in BOXES),
    ]
    for index, (kind, meaning) in enumerate(LEGEND):
        x = 20 + 180 * index
        parts.append(f'<rect x="{x}" y="430" width="22" height="18" rx="4" fill="var(--{kind})"/>')
        parts.append(f'<text class="shape" x="{x + 32}" y="444" style="text-anchor: start">{meaning}</text>')
    return "\n".join([*parts, "</svg>", ""])


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("image", type=Path, help="SVG file to write")
    return result


def main() -> None:
    image = parser().parse_args().image
    image.parent.mkdir(parents=True, exist_ok=True)
    image.write_text(figure(), encoding="utf-8")


if __name__ == "__main__":
    main()
