"""What is seen of a training: a bar per model, TensorBoard events, one line where no one looks.

Source: TensorBoard's event files (TFRecord of Event messages), written with tensorboard's own
record writer; its usual writer would import TensorFlow, which takes many seconds.
Boundary: the console is the caller's; nothing here decides anything.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter

__all__ = ["Epoch", "Watch", "write_events"]


class Epoch(NamedTuple):
    """One pass over the training rows; losses are nats per row, times are seconds."""

    number: int
    learning_rate: float
    train_loss: float
    valid_loss: float
    valid_accuracy: float


class Watch:
    """Shows one model's training on a console and keeps its epochs."""

    def __init__(self, title: str, epochs: int, bar: Progress | None, console: Console) -> None:
        self.history: list[Epoch] = []
        self._title, self._console, self._bar, self._epochs = title, console, bar, epochs
        self._started = time.monotonic()
        self._task = bar.add_task(title, total=epochs, words="starting") if bar else None

    def epoch(self, epoch: Epoch) -> None:
        """Note an epoch that has ended."""
        self.history.append(epoch)
        if self._bar is not None and self._task is not None:
            words = f"loss {epoch.valid_loss:.4f}  accuracy {epoch.valid_accuracy:.4f}"
            self._bar.update(self._task, completed=epoch.number, words=words)

    def done(self, words: str) -> None:
        """The model is ready; `words` are its figures."""
        if self._bar is not None and self._task is not None:
            ended = max(len(self.history), 1)
            self._bar.update(self._task, total=ended, completed=ended, words=words)
        else:
            seconds = time.monotonic() - self._started
            self._console.print(
                f"{self._title}: {len(self.history)} epochs in {seconds:.1f} s, {words}",
                highlight=False,
            )

    @classmethod
    @contextmanager
    def on(cls, console: Console, title: str, epochs: int) -> Iterator[Watch]:
        """A watch with a bar of its own on a terminal, or one plain line at the end elsewhere."""
        if not console.is_terminal:
            yield cls(title, epochs, None, console)
            return
        columns = (
            TextColumn("[bold]{task.description:<12}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:>2.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[words]}"),
        )
        with Progress(*columns, console=console) as bar:
            yield cls(title, epochs, bar, console)


_SCALARS: Final = {
    "loss/train": "train_loss",
    "loss/valid": "valid_loss",
    "accuracy/valid": "valid_accuracy",
    "learning_rate": "learning_rate",
}


def write_events(folder: Path, history: list[Epoch]) -> Path:
    """Write the curves of one training as a TensorBoard event file of its own; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    now = time.time()
    path = folder / f"events.out.tfevents.{int(now)}.{socket.gethostname()}"
    with path.open("wb") as stream:
        writer = RecordWriter(stream)
        writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        for epoch in history:
            event: Any = Event(wall_time=now, step=epoch.number)
            for tag, field in _SCALARS.items():
                event.summary.value.add(tag=tag, simple_value=getattr(epoch, field))
            writer.write(event.SerializeToString())
        writer.flush()
    return path
