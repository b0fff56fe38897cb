"""Metrics of a run: a JSONL file always, TensorBoard by default, Weights & Biases when asked.

    with Tracker(run_dir, config=resolved_config) as tracker:
        tracker.log(update, {"env_steps": 512, "train/task_loss": 1.7, "rollout/success_rate": None})

`METRICS` is the one table of keys. Trackers other than the JSONL file are imported when they are used.

A run that can go on goes on: a line that cannot be written is told of once and left out, never half written; a tracker
other than the file that fails is left out from there.
"""

import json
import math
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline.command.errors import UserError, explain
from pipeline.command.files import Lines, write_text
from pipeline.mixtures import MACRO_MEAN

METRICS: dict[str, str] = {
    "env_steps": "environment steps trained on so far, all environments together",
    "train/task_loss": "mean cross-entropy against the expert's action over labelled steps, nats",
    "train/lpc": "learned pathway complexity (sum of weight x expert size^lpc_exponent), mean over steps",
    "train/lpc/layer_{i}": "the part of train/lpc that comes from layer i",
    "train/penalty": "what is added to the task loss: alpha * LPC, over task + eps if normalised, level by level",
    "train/total_loss": "task loss + penalty, the number that is minimised",
    "train/accuracy": "share of labelled steps on which the likeliest action is the expert's, 0 to 1",
    "train/labelled_fraction": "share of the update's steps whose expert label is learned, 0 to 1; see solo_env_share",
    "train/grad_norm": "Euclidean norm of the gradient of all trained parameters, before clipping",
    "train/router_entropy/layer_{i}": "mean entropy of layer i's weights, nats; 0: one expert takes all",
    "rollout/success_rate": "share of the window's episodes that ended in success, 0 to 1",
    "rollout/failure_rate": "share of the window's episodes that ended in failure, 0 to 1",
    "rollout/timeout_rate": "share of the window's episodes that ran out of steps, 0 to 1",
    "rollout/window_episodes": "episodes in the window, the denominator of the three rates; see solo_env_share",
    "rollout/path_ratio": "mean of steps / expert's steps over successes with a known expert plan",
    "rollout/path_ratio_episodes": "episodes behind rollout/path_ratio",
    "rollout/episodes_total": "episodes ended since the run began",
    "rollout/episode_steps": "mean length of the window's episodes, steps",
    "rollout/unsolvable_levels": "levels the expert could not solve, replaced by others, so far",
    "rollout/unlabelled_steps": "steps the expert could not label, left out of the loss, so far",
    "rollout/expert_action_prob": "probability that a step takes the expert's action, 0 to 1",
    "time/env_steps_per_second": "environment steps per second since the last line, all environments together",
    "time/seconds": "wall-clock seconds spent training so far",
    "eval/success_rate": "share of the fixed evaluation levels solved, 0 to 1",
    "eval/success_low": "lower end of the 95 % Wilson interval of eval/success_rate",
    "eval/success_high": "upper end of the 95 % Wilson interval of eval/success_rate",
    "eval/episodes": "evaluation episodes played, the denominator of eval/success_rate",
    "eval/mean_lpc": "mean learned pathway complexity over all steps of the evaluation episodes",
    "eval/path_ratio": "mean of steps / expert's steps over successful evaluation episodes",
    "eval/mean_steps": "mean length of the evaluation episodes, steps",
    "train/task_loss/{level}": "train/task_loss of a level of a mixture",
    "train/lpc/{level}": "train/lpc of a level of a mixture",
    "train/accuracy/{level}": "train/accuracy of a level of a mixture",
    "rollout/success_rate/{level}": "share of the window's episodes of a level that ended in success, 0 to 1",
    "rollout/window_episodes/{level}": "episodes in the window of a level",
    "rollout/path_ratio/{level}": "rollout/path_ratio of a level of a mixture",
    "rollout/episodes_total/{level}": "episodes of a level ended since the run began",
    "rollout/unsolvable_levels/{level}": "levels of a task of a mixture the expert could not solve, so far",
    "eval/success_rate/{level}": "eval/success_rate of a level of a mixture",
    "eval/success_low/{level}": "lower end of the 95 % Wilson interval of a level's success",
    "eval/success_high/{level}": "upper end of the 95 % Wilson interval of a level's success",
    "eval/episodes/{level}": "evaluation episodes of a level of a mixture",
    "eval/mean_lpc/{level}": "eval/mean_lpc of a level of a mixture",
    "eval/path_ratio/{level}": "eval/path_ratio of a level of a mixture",
    "eval/mean_steps/{level}": "eval/mean_steps of a level of a mixture",
}
"""Every metric that a policy's run may log, and what it means.

`{i}` stands for a layer's index, counted from 0. `{level}` stands for a level of a mixture without `BabyAI-` and `-v0`,
or for `macro_mean`, the mean over its levels, in which each counts once.
"""

METRICS_FILE = "metrics.jsonl"
WANDB_ID_FILE = "wandb_id.txt"


class TrackingError(UserError, RuntimeError):
    """Metrics cannot be written as asked: a tracker is missing, or a file is damaged; the message says what to do."""


class Tracker:
    """Writes the metrics of one run to its folder and to the trackers that were asked for.

    Attributes:
        run_dir: The folder.
        missing: Why lines of the JSONL file could not be written, None while it has all.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        config: Mapping[str, Any],
        tensorboard: bool = True,
        wandb_project: str | Mapping[str, Any] | None = None,
        resume_update: int | None = None,
        announce: Callable[[str], object] = print,
        table: Mapping[str, str] = METRICS,
        counter: str = "env_steps",
    ):
        """Open the run's files.

        Args:
            run_dir: folder for `metrics.jsonl`, TensorBoard's event files and wandb's; made when missing.
            config: the resolved configuration; wandb stores it.
            tensorboard: write event files; without tensorboard installed this is announced and left out.
            wandb_project: Weights & Biases project, or more of what `wandb.init` takes, `project` among it (name, tags,
                mode); None leaves wandb alone (it need not be installed).
            resume_update: the run continues after this update: what was logged later is dropped, so that no
                update appears twice. None starts afresh and replaces what an earlier run left.
            announce: called with a line worth telling the user.
            table: every key that may be logged with its meaning; `Layer_{i}` or `layer_{i}` stands for all layers,
                `sample_{i}` for all samples.
            counter: the key of what was trained on so far, which every line has.

        Raises:
            TrackingError: `wandb_project` is set and wandb is not installed or cannot be used, or the `metrics.jsonl`
                to continue is damaged before its last line.
            OSError: The files cannot be made.
        """
        self.run_dir = Path(run_dir)
        self.missing: str | None = None
        self._table, self._counter, self._announce = table, counter, announce
        wandb = import_wandb() if wandb_project else None  # before any file is touched
        self.run_dir.mkdir(parents=True, exist_ok=True)
        path = self.run_dir / METRICS_FILE
        known = () if resume_update is None else _read_lines(path)
        kept = [f"{text}\n" for text, line in known if line["update"] <= resume_update]
        self._run = self._writer = self._lines = None
        try:
            if wandb is not None:  # before metrics are replaced: it may be refused
                self._run = _open_wandb(wandb, self.run_dir, wandb_project, config, resume_update)
            write_text(path, "".join(kept))
            self._lines = Lines(path)
            if tensorboard:
                try:
                    self._writer = _open_tensorboard(self.run_dir, resume_update, announce)
                except OSError as error:
                    self._drop_tensorboard(error)
        except BaseException:
            self.close(failed=True)
            raise

    def log(
        self,
        update: int,
        metrics: Mapping[str, float | int | None],
        histograms: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        """Write one line for `update`; None, NaN and infinities become null, and are left out elsewhere.

        Args:
            update: number of the update, from 1; TensorBoard's step.
            metrics: values by key; the counter among them, or its field is null.
            histograms: the heights of bins 0, 1, 2, ... by key; a list in the JSONL file.

        Raises:
            KeyError: a key is not in the table of metrics; nothing is written then.
        """
        histograms = {key: [float(height) for height in heights] for key, heights in (histograms or {}).items()}
        for key in (*metrics, *histograms):
            if not is_metric(key, self._table):
                raise KeyError(f"{key!r} is not in the table of metrics; add it there with its meaning")
        values = {key: _plain(value) for key, value in metrics.items()}
        line = {"update": int(update), self._counter: values.pop(self._counter, None), **values}
        try:
            self._lines.append(json.dumps({**line, **histograms}, allow_nan=False))
        except OSError as error:
            self.note_missing(error)
        present = {key: value for key, value in line.items() if value is not None}
        try:
            if self._writer is not None:
                for key, value in present.items():
                    if key != "update":
                        self._writer.add_scalar(key, value, global_step=update)
                for key, heights in histograms.items():
                    _add_histogram(self._writer, key, heights, update)
        except Exception as error:
            self._drop_tensorboard(error)
        try:
            if self._run is not None:
                # No step=: wandb drops what is logged for a step it has seen, which a resumed run has to repeat.
                self._run.log({**present, **{key: _wandb_histogram(heights) for key, heights in histograms.items()}})
        except Exception as error:
            self._drop_wandb(error)

    def close(self, *, failed: bool = False) -> None:
        """Flush and close everything; closing twice does no harm.

        Args:
            failed: mark the run as crashed where a tracker knows the difference (wandb).
        """
        try:
            if self._lines is not None:
                self._lines.close()
        except OSError as error:  # where a disk on the network says so late
            self.note_missing(error)
        writer, run, self._writer, self._run = self._writer, self._run, None, None
        try:
            if writer is not None:
                writer.close()
        except Exception as error:
            self._drop_tensorboard(error)
        try:
            if run is not None:
                run.finish(exit_code=int(failed))
        except Exception as error:
            self._drop_wandb(error)

    def note_missing(self, error: OSError) -> None:
        """Note that a line of metrics could not be written, and tell it the first time."""
        if self.missing is None:
            self.missing = f"metrics not written: {explain(error, self.run_dir / METRICS_FILE)}"
            self._announce(f"{self.missing}; the run goes on, and each further line is tried")

    def _drop_tensorboard(self, error: Exception) -> None:
        self._writer = None
        self._announce(f"TensorBoard: {explain(error, self.run_dir)}; its files end here, {METRICS_FILE} has all")

    def _drop_wandb(self, error: Exception) -> None:
        self._run = None
        why = f"{type(error).__name__}: {explain(error)}"
        self._announce(f"Weights & Biases: {why}; it is left out from here, {self.run_dir / METRICS_FILE} goes on")

    def __enter__(self) -> Self:
        """Return the tracker itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; an exception on its way out marks the run as failed."""
        self.close(failed=kind is not None)


def is_metric(key: str, table: Mapping[str, str] = METRICS) -> bool:
    """Return whether `key` is in the table: number of a layer or sample for `{i}`, name of a level for `{level}`."""
    if "{" in key:
        return False
    name = re.sub(r"([Ll]ayer_|sample_)(0|[1-9][0-9]*)(?=/|$)", r"\1{i}", key)
    return name in table or re.sub(rf"/([A-Z][A-Za-z0-9]*(-v[0-9]+)?|{MACRO_MEAN})$", "/{level}", name) in table


def _add_histogram(writer: Any, key: str, heights: Sequence[float], update: int) -> None:
    """Write bins -1/2 .. 1/2, 1/2 .. 3/2, ... of the given heights, which need not be whole numbers."""
    writer.add_histogram_raw(
        key,
        min=0.0,
        max=len(heights) - 1.0,
        num=sum(heights),
        sum=sum(index * height for index, height in enumerate(heights)),
        sum_squares=sum(index**2 * height for index, height in enumerate(heights)),
        # The first bucket reaches from minus infinity: an empty one before the bins gives the first its left edge.
        bucket_limits=[index - 0.5 for index in range(len(heights) + 1)],
        bucket_counts=[0.0, *heights],
        global_step=update,
    )


def _wandb_histogram(heights: Sequence[float]) -> Any:
    import wandb

    return wandb.Histogram(np_histogram=(list(heights), [index - 0.5 for index in range(len(heights) + 1)]))


def _plain(value: Any) -> float | int | None:
    """Return a number JSON can hold: int stays int; numpy and torch scalars become float or int."""
    if value is None:
        return None
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, int):
        return int(value)
    value = float(value)
    return value if math.isfinite(value) else None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics file; none where there is no file.

    Half a line at its end, as a kill in the middle of a write leaves it, is left out.

    Raises:
        TrackingError: If it is damaged before that.
        OSError: If it cannot be read.
    """
    return [line for _, line in _read_lines(path)]


def _read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the lines of a metrics file, each as it stands there and as what it says."""
    try:
        texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return
    for number, text in enumerate(texts, start=1):
        try:
            line = json.loads(text)
            known = isinstance(line, dict) and isinstance(line.get("update"), int)
        except ValueError:
            known = False
        if known:
            yield text, line
        elif number < len(texts):
            raise TrackingError(
                f"expected one JSON object with an 'update' per line, found {text[:80]!r} "
                f"in {path}, line {number}; repair or remove the file"
            )


def _open_tensorboard(run_dir: Path, resume_update: int | None, announce: Callable[[str], object]) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        announce("tensorboard is not installed (pip install tensorboard): metrics go to metrics.jsonl only")
        return None
    _hush_writers()
    # Events at or after purge_step that older files of this folder hold are hidden: all of them for a new run.
    return SummaryWriter(str(run_dir), purge_step=0 if resume_update is None else resume_update + 1)


def _hush_writers() -> None:
    """Let TensorBoard's own thread, which tells the next call why it has ended, print no traceback besides."""
    outer = threading.excepthook
    if getattr(outer, "hushes_writers", False):
        return

    def tell(args: threading.ExceptHookArgs) -> None:
        if type(args.thread).__name__ != "_AsyncWriterThread":
            outer(args)

    tell.hushes_writers = True
    threading.excepthook = tell


def check_wandb() -> None:
    """Try whether Weights & Biases can be used, which costs no time; a person at a terminal is asked for the key.

    Raises:
        TrackingError: If it is not installed, or has no key.
    """
    try:
        import_wandb().login()
    except TrackingError:
        raise
    except Exception as error:
        raise _refused_by_wandb(error) from None


def _refused_by_wandb(error: Exception) -> TrackingError:
    return TrackingError(
        f"wandb_project: Weights & Biases cannot be used ({type(error).__name__}: {explain(error)}); run `wandb login` "
        "or set WANDB_API_KEY; WANDB_MODE=offline keeps its files here until `wandb sync`; wandb_project: null does "
        "without"
    )


def import_wandb() -> Any:
    """Return the wandb module, or raise TrackingError where it is not installed."""
    try:
        import wandb
    except ImportError as error:
        raise TrackingError(
            "wandb_project is set and wandb is not installed; pip install wandb, or set wandb_project: null"
        ) from error
    return wandb


def _open_wandb(
    wandb: Any,
    run_dir: Path,
    project: str | Mapping[str, Any],
    config: Mapping[str, Any],
    resume_update: int | None,
) -> Any:
    """Start a wandb run; a resumed one goes on under the id its folder remembers.

    Raises:
        TrackingError: If it cannot be started; what an earlier run left is as it was.
    """
    id_file = run_dir / WANDB_ID_FILE
    known = resume_update is not None and id_file.exists()
    run_id = id_file.read_text(encoding="utf-8").strip() if known else uuid.uuid4().hex[:8]
    try:
        chosen = {"project": project} if isinstance(project, str) else dict(project)
        run = wandb.init(**chosen, config=dict(config), dir=str(run_dir), id=run_id, resume="allow")
        run.define_metric("*", step_metric="update")  # every chart over updates, as in the other trackers
    except Exception as error:  # no key, no network: it has many classes of its own
        raise _refused_by_wandb(error) from None
    write_text(id_file, run_id + "\n")
    return run
