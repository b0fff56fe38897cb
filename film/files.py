"""Writing frames as a GIF or MP4 file, atomically."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.command.files import replace_atomically
from pipeline.command.folders import check_file
from pipeline.config import ConfigError

FORMATS = (".gif", ".mp4")
HOLD_SECONDS = 1.5  # how long the last frame stays, or as long as any other if that is longer
_SAME = 255  # in a GIF, the colour of pixels that stay as they are


def check_format(output: str | Path) -> str:
    """Return the ending of a film's path, in lower case.

    Raises:
        ConfigError: If it is none of `FORMATS`, or what writes it is not installed.
    """
    suffix = Path(output).suffix.lower()
    if suffix not in FORMATS:
        raise ConfigError(f"--output {output}: expected a path that ends in {' or '.join(FORMATS)}, found {suffix!r}")
    check_file("--output", Path(output))
    if suffix == ".mp4":
        _import_ffmpeg()
    return suffix


def write_film(
    output: str | Path, frames: Iterable[np.ndarray], count: int, *, fps: float, samples: Sequence[np.ndarray]
) -> None:
    """Write frames as a film; the last one stays for `HOLD_SECONDS`.

    Args:
        output: A path that ends in .gif or .mp4.
        frames: uint8 (H, W, 3) each, H and W even.
        count: How many there are.
        fps: Frames per second.
        samples: Frames that show the colours to be expected: a GIF has 256, chosen beforehand so that frames need not
            be held in memory, and the same for all of them so that only what moves takes space.

    Raises:
        ConfigError: See `check_format`.
        OSError: If the file cannot be written.
    """
    write = {".gif": _write_gif, ".mp4": _write_mp4}[check_format(output)]
    with replace_atomically(output) as temporary:
        write(temporary, frames, count, fps, samples)


def _write_gif(path: Path, frames: Iterable[np.ndarray], count: int, fps: float, samples: Sequence[np.ndarray]) -> None:
    palette = _choose_palette(np.concatenate(samples))
    images = _iter_changes(frames, palette)
    durations = [round(1000 / fps)] * (count - 1) + [round(1000 * max(HOLD_SECONDS, 1 / fps))]
    next(images).save(
        path,
        format="GIF",
        save_all=True,
        append_images=images,
        duration=durations,
        loop=0,
        optimize=False,
        transparency=_SAME,
        disposal=1,  # what a frame leaves out stays
    )


def _choose_palette(sample: np.ndarray) -> Image.Image:
    """Return an image with the palette of up to 255 colours that suits uint8 (H, W, 3)."""
    palette = Image.fromarray(sample).quantize(255, method=Image.Quantize.MEDIANCUT)
    colors = np.array(palette.getpalette("RGB"), int).reshape(-1, 3)
    # The colours found are means of several; paper should be white all the same
    colors[(colors > 246).all(axis=1)] = 255
    colors[(colors < 9).all(axis=1)] = 0
    palette.putpalette(colors.ravel().tolist())
    return palette


def _iter_changes(frames: Iterable[np.ndarray], palette: Image.Image) -> Iterator[Image.Image]:
    """Yield the first frame, and of each that follows the pixels that change; the others are transparent.

    Pillow alone only crops frames to what changes. On a film with a grid of 22 x 22 cells this takes 17 kB off 21 kB
    per frame.
    """
    colors = palette.getpalette("RGB")
    before = None
    for frame in frames:
        codes = np.asarray(Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE))
        shown = codes if before is None else np.where(codes == before, np.uint8(_SAME), codes)
        image = Image.frombytes("P", shown.shape[::-1], shown.tobytes())
        image.putpalette(colors)
        yield image
        before = codes


def _write_mp4(path: Path, frames: Iterable[np.ndarray], count: int, fps: float, samples: Sequence[np.ndarray]) -> None:
    height, width = samples[0].shape[:2]
    writer = _import_ffmpeg().write_frames(
        str(path),
        (width, height),
        fps=fps,
        codec="libx264",
        quality=7,
        macro_block_size=2,
        ffmpeg_log_level="error",
        output_params=["-f", "mp4", "-movflags", "+faststart", "-tune", "animation"],
    )
    writer.send(None)
    try:
        for frame in frames:
            writer.send(np.ascontiguousarray(frame))
        for _ in range(round(fps * HOLD_SECONDS)):
            writer.send(np.ascontiguousarray(frame))
    finally:
        writer.close()
    if path.stat().st_size == 0:
        raise OSError(f"{path}: ffmpeg wrote nothing; its message is above")


def _import_ffmpeg():
    try:
        import imageio_ffmpeg
    except ImportError:
        raise ConfigError("MP4 files need a package that is not installed: pip install imageio-ffmpeg") from None
    return imageio_ffmpeg
