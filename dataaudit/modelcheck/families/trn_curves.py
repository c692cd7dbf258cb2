"""TRN050 to TRN069: what the curves of a run show."""

from __future__ import annotations

from dataaudit.registry import rule

_CURVES = "model curves"

NONFINITE_CURVE = rule(
    "TRN050", "nonfinite_curve", command=_CURVES,
    text="""A loss or metric becomes NaN or infinite.

    Flagged: any value that was logged is NaN or infinite; the finding names the first step. A metric that is
    NaN only in the first epoch (a class without samples) is flagged as well.

    Change: look at the values just before: a loss that grew means a rate that is too high or gradients to
    clip; one that didn't means a division, logarithm or root in the loss or the data.
    ``dataaudit model gradients`` names the operation.
    """,
)  # fmt: skip
DIVERGING_CURVE = rule(
    "TRN051", "diverging_curve", command=_CURVES,
    text="""The training loss grows.

    Flagged: the level at the end lies above the lowest level before by more than half of what the loss had
    fallen, or by more than the loss was at the start, and by far more than its noise.

    Change: a learning rate 3 to 10 times lower, warm-up, clipped gradients; ``dataaudit model lr`` finds a
    rate.
    """,
)  # fmt: skip
ZERO_LOSS = rule(
    "TRN052", "zero_loss", command=_CURVES,
    text="""The loss is exactly zero from the start, or drops to zero at once.

    Flagged: three values in a row that are zero, where the loss was not small before. A loss that fell to
    zero step by step is a model that knows its training data by heart, and isn't flagged.

    Change: look at the loss (``dataaudit model loss``): all targets ignored, one class only, a softmax over
    one output, a margin that is always met, a mask of zeros.
    """,
)  # fmt: skip
FLAT_CURVE = rule(
    "TRN053", "flat_curve", command=_CURVES,
    text="""The training loss doesn't move from the start.

    Flagged: over the whole run the level changes by less than 1%, by less than 2% without a trend that stands
    out of the noise, or by less than 10% while validation gains nothing. The finding says when the level is
    that of guessing (the logarithm of a number of classes).

    Change: ``dataaudit model overfit``: no gradient, parameters that the optimizer doesn't have, a rate that
    is far too low, targets that don't follow from the inputs.
    """,
)  # fmt: skip
OSCILLATING_CURVE = rule(
    "TRN054", "oscillating_curve", command=_CURVES,
    text="""The loss swings up and down and doesn't settle.

    Flagged: in the second half of the run an averaged curve swings about its trend by more than a quarter of
    all that the loss has fallen, and by more than a tenth of its level; half of it is enough where the
    validation accuracy takes multiples of 1/60 or more only, as with so few samples.

    Change: a lower learning rate, a larger batch, a schedule that decays; where only validation swings, a
    larger validation set, or an average of the weights.
    """,
)  # fmt: skip
OVERFITTING = rule(
    "TRN055", "overfitting", command=_CURVES,
    text="""The validation loss rises while the training loss keeps falling.

    Flagged: the validation loss ends above its lowest level by more than its noise and a tenth of what it had
    fallen; the finding names the epoch from which. Or the training data is known by heart (95% and over) and
    validation is 15 points below, without getting better.

    Change: keep the weights of that epoch (early stopping), more data or augmentation, weight decay, dropout,
    a smaller model. Where the validation metric doesn't fall with it, the model only becomes too sure.
    """,
)  # fmt: skip
UNDERFITTING = rule(
    "TRN056", "underfitting", command=_CURVES,
    text="""Training has come to rest at a loss that is still high, and validation with it.

    Flagged: the training loss hardly falls any more, has lost less than 40% of its first level (or accuracy
    is below 40%), and the validation loss isn't worse than it; an accuracy above 70% speaks against it.

    Change: a larger model, a higher learning rate, less regularisation and augmentation; and look at the
    labels (``dataaudit audit``).
    """,
)  # fmt: skip
STOPPED_EARLY = rule(
    "TRN057", "stopped_early", command=_CURVES,
    text="""The run ended while the loss was still falling.

    Flagged: over the last quarter the validation loss (the training loss where there is none) fell by 8% and
    more of its whole fall, by more than its noise, and the learning rate had not decayed. The gain that as
    many epochs again might bring is extrapolated by a power law.

    Change: train longer, or with a higher learning rate.
    """,
)  # fmt: skip
VALIDATION_BETTER = rule(
    "TRN058", "validation_better", command=_CURVES,
    text="""The validation loss lies far below the training loss.

    Flagged: by more than a quarter over the second half of the run, also when the training loss is taken half
    an epoch later (it is the mean over the epoch, validation is measured at its end). Where a metric is no
    better in validation and the ratio changes over the run, label smoothing or weight decay in the training
    loss explain it, and nothing is flagged. The finding says which explanations fit.

    Change: measure the training set in eval mode; look for leakage with ``dataaudit audit --select SPL``.
    """,
)  # fmt: skip
RATE_EFFECT = rule(
    "TRN059", "rate_effect", command=_CURVES,
    text="""A change of the learning rate did harm, or came at the wrong time.

    Flagged, where the rate was logged: the loss jumps up after the rate went up and doesn't come back; the
    rate was cut in the first half while the loss fell, and it then fell by far less than the old pace,
    slowing as the inverse of the time, would have given; the rate is zero for a fifth of the run.

    Change: the schedule, as the finding says: a longer warm-up, a later cut.
    """,
)  # fmt: skip
PLATEAU = rule(
    "TRN060", "plateau", command=_CURVES,
    text="""The loss stood still for a long part of the run, and then fell again.

    Flagged: for at least 30% of the run the training loss doesn't fall, and after it it falls by more than a
    third of its whole fall; where the rate was logged, the finding says whether it was a cut that ended it.

    Change: warm-up and initialisation where it stands still from the start; else a cut of the rate, at the
    beginning of the plateau.
    """,
)  # fmt: skip
SPIKES = rule(
    "TRN061", "spikes", command=_CURVES,
    text="""The training loss has spikes.

    Flagged: values that are several times the level around them, far out of the noise, after which the loss
    comes back.

    Change: clip gradients; look at the batches of these steps (broken images or labels, extreme targets); a
    lower rate, or a smaller second beta of Adam.
    """,
)  # fmt: skip
PERFECT_VALIDATION = rule(
    "TRN062", "perfect_validation", command=_CURVES,
    text="""Validation is perfect too early to be true.

    Flagged: a validation metric is at its maximum while the training metric is clearly below, or the
    validation loss is under a tenth of the training loss from early on.

    Change: look for samples of the validation set in training, for a target among the inputs, and for a
    validation set that has one class: ``dataaudit audit --select SPL,DUP``.
    """,
)  # fmt: skip
VALIDATION_COLLAPSED = rule(
    "TRN063", "validation_collapsed", command=_CURVES,
    text="""The validation metric falls back to that of guessing while training goes on well.

    Flagged: the validation metric loses more than half of what it had gained, while the training metric keeps
    its level. Overfitting costs a metric a little; this is training and validation that don't see the same.

    Change: compare the transforms of both, call ``model.eval()`` in validation, and look at the running
    statistics of batch norm (``dataaudit model determinism``).
    """,
)  # fmt: skip
