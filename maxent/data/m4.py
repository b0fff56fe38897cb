"""M4's series with OpenTSLM's captions: m4_series_{Frequency}.csv (id, series) and m4_captions_{Frequency}.csv.

Where they are from: https://github.com/StanfordBDHG/OpenTSLM (src/time_series_datasets/m4), which deals the splits as
is done here.
"""

from __future__ import annotations

from pathlib import Path

from maxent.data.files import describe_dropped, parse_numbers, read_rows, split_rows
from maxent.data.prompts import CAPTION_FRAME
from maxent.data.sample import SPLITS, DataError, Dataset, Sample

FREQUENCIES = ("Daily", "Hourly", "Monthly", "Quarterly", "Weekly", "Yearly")
WANTED = "m4_series_{Frequency}.csv with m4_captions_{Frequency}.csv"
SOURCE = "https://github.com/StanfordBDHG/OpenTSLM has where they are to be had"


def find_m4(folder: Path) -> dict[str, Path] | None:
    """Return frequency -> series file for what lies below a folder in any depth, None if there is nothing.

    Raises:
        DataError: If a frequency is there twice, or a file of series has no captions beside it.
    """
    found: dict[str, Path] = {}
    for frequency in FREQUENCIES:  # in this order, on which the splits depend
        paths = sorted(folder.rglob(f"m4_series_{frequency}.csv"))
        if len(paths) > 1:
            raise DataError(f"{folder}: expected one m4_series_{frequency}.csv, found {len(paths)}; leave one there")
        for path in paths:
            captions = path.with_name(f"m4_captions_{frequency}.csv")
            if not captions.is_file():
                raise DataError(f"{captions}: expected beside {path.name}, found nothing; {SOURCE}")
            found[frequency] = path
    return found or None


def load_m4(files: dict[str, Path]) -> Dataset:
    """Return all series that have a caption, 80 : 10 : 10 with the seeds 42 and 43, as OpenTSLM deals them.

    Raises:
        DataError: If a file cannot be read, or no series has a caption.
    """
    rows = []
    dropped = 0
    for frequency, path in files.items():
        captions = {
            row["id"]: row["caption"]
            for row in read_rows(path.with_name(f"m4_captions_{frequency}.csv"), ("id", "caption"))
        }
        for row in read_rows(path, ("id", "series")):
            caption, numbers = captions.get(row["id"]), parse_numbers(row["series"])
            if caption is not None and numbers is not None and caption.strip():
                rows.append((row["id"], numbers, caption.strip()))
            else:
                dropped += 1
    if len(rows) < 4:
        names = ", ".join(str(path) for path in files.values())
        raise DataError(f"{names}: expected at least 4 series with a caption of the same id, found {len(rows)}")
    samples = [Sample(key, CAPTION_FRAME, one[None], "caption", text, f" {text}") for key, one, text in rows]
    places = split_rows(len(samples), (42, 43))
    folders = sorted({str(path.parent) for path in files.values()})
    origin = f"{', '.join(files)} of {', '.join(folders)}{describe_dropped(dropped, 'caption or numbers')}"
    return Dataset("M4", {split: [samples[at] for at in places[split]] for split in SPLITS}, True, origin)
