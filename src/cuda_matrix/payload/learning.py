"""Owns a network that learns: one step of training, loss scaling, and whether it really trained.

A speed of training that does not train is worth nothing. Must not know which network it is.
"""

from __future__ import annotations

from . import figures, samples


class Training:
    """One model, one batch, one optimiser: `step` trains once. Who inherits says what `loss` is.

    `watched`: the parameters of the first layer, the last that a gradient reaches. `scaled`: with loss scaling.
    """

    def __init__(self, torch, model, optimizer, watched, scaled: bool):
        self.model = model
        self._optimizer = optimizer
        self._scaler = scaler(torch) if scaled else None
        self._watched = watched
        self._first_weights = watched.detach().clone()
        self._loss = None
        self.losses = []  # one per call of `note_loss`
        self.output_dtype = None  # of the network's outputs; who inherits notes it in `loss`

    def loss(self):
        """The loss of the batch, now."""
        raise NotImplementedError

    def step(self):
        """Forward, backward, update. Nothing here waits for the device."""
        self._optimizer.zero_grad(set_to_none=True)
        self._loss = self.loss()
        if self._scaler is None:
            self._loss.backward()
            self._optimizer.step()
        else:
            self._scaler.scale(self._loss).backward()
            self._scaler.step(self._optimizer)
            self._scaler.update()

    def note_loss(self):
        """Keep the loss of the last step; waits for the device, so only between rounds."""
        self.losses.append(float(self._loss.detach()))

    def weights_moved(self) -> bool:
        """Whether the steps have changed the watched weights."""
        return not bool((self._watched.detach() == self._first_weights).all())


def scaler(torch, **settings):
    """Loss scaling, by its new name where there is one (torch 2.3)."""
    new = getattr(getattr(torch, "amp", None), "GradScaler", None)
    return new("cuda", **settings) if new is not None else torch.cuda.amp.GradScaler(**settings)


def complaint(losses, weights_moved: bool) -> str:
    """What is wrong with a run of training, or "": its losses in order, and whether its weights have changed."""
    if not all(samples.finite(loss) for loss in losses):
        return "the loss is not finite: {}".format(", ".join(f"{loss:.4g}" for loss in losses))
    if not weights_moved:
        return "the optimiser's steps have not changed the weights"
    return ""


def autocast_complaint(found: str, asked: str) -> str:
    """What the dtype of a network's outputs under autocast says against it, or ""."""
    return f"autocast did nothing: the outputs are {found}, not {asked}" if found != asked else ""


def judged(answer: dict, wrong: str, cause: str = "training-diverged") -> dict:
    """A speed's result, or the failure where the work itself was `wrong`. Work on the wrong device is worse still."""
    return figures.refuted(answer, wrong, wrong, cause) if wrong and answer["status"] != "fail" else answer
