"""One line an epoch, live where there is someone to watch it."""

import sys

from tqdm import tqdm


class Progress:
    """Shows a run's progress, or nothing at all.

    In a terminal: a tqdm bar an epoch. In a notebook: one text output that is updated in place,
    so that a rendered page keeps the final lines and none of the intermediate ones. Elsewhere
    (a log file): a line for each finished epoch.
    """

    def __init__(self, enabled, epochs, steps):
        self.enabled, self.epochs, self.steps = enabled, epochs, steps
        self.lines: list[str] = []
        self.handle = self.bar = None
        self.notebook = enabled and _in_notebook()
        self.live = enabled and not self.notebook and sys.stderr.isatty()

    def begin(self, epoch, step):
        """An epoch starts (0-based) at a step within it."""
        self.label = f"epoch {epoch + 1}/{self.epochs}"
        if self.live:
            self.bar = tqdm(total=self.steps, initial=step, desc=self.label, unit=" steps")

    def update(self, step, text):
        """Steps taken in this epoch, and the numbers so far."""
        if self.bar is not None:
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update(step - self.bar.n)
        elif self.notebook:
            self._display(f"{self.label}  step {step:,} of {self.steps:,}  {text}")

    def end(self, text):
        """The epoch is complete."""
        if self.bar is not None:
            self.bar.set_postfix_str(text, refresh=False)
            self.bar.update(self.steps - self.bar.n)
            self.bar.close()
            self.bar = None
        elif self.enabled:
            self.lines.append(f"{self.label}  {text}")
            if self.notebook:
                self._display()
            else:
                print(self.lines[-1], file=sys.stderr, flush=True)

    def close(self):
        """No more epochs, for whatever reason."""
        if self.bar is not None:
            self.bar.close()

    def _display(self, line=None):
        from IPython.display import display

        data = {"text/plain": "\n".join([*self.lines, *([line] if line else [])])}
        if self.handle is None:
            self.handle = display(data, raw=True, display_id=True)
        else:
            self.handle.update(data, raw=True)


def _in_notebook():
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return shell is not None and hasattr(shell, "kernel")
