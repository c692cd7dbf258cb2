"""TRN: training. TRN001 to TRN049 are about a step and a batch; what curves of a run show has TRN050 on."""

from __future__ import annotations

from dataaudit.registry import rule

_OVERFIT, _GRADIENTS, _RATE, _PROCESSES = (
    "model overfit", "model gradients", "model lr", "model processes",
)  # fmt: skip

CANNOT_OVERFIT = rule(
    "TRN001", "cannot_overfit", command=_OVERFIT,
    text="""The model can't learn a handful of samples by heart, and no single change lets it.

    Flagged: after a few hundred steps on one small batch the loss has hardly fallen, and none of what is
    tried on it helps: other learning rates and optimizer, no dropout, no weight decay, batch norm in train
    mode, everything unfrozen, new weights. What was tried is in the evidence.

    Change: look at the loss (``dataaudit model loss``), the layers (``dataaudit model trace``), and whether
    the targets follow from the inputs at all.
    """,
)  # fmt: skip
NO_GRADIENT = rule(
    "TRN002", "no_gradient", command=_OVERFIT,
    text="""No gradient reaches a layer.

    Flagged: a layer takes part in the forward pass and has weights that ask for a gradient, and after the
    backward pass they have none, or zeros in each of several steps. The finding names the layers and what
    cuts them off: ``detach``, ``no_grad``, ``argmax``, rounding, ``.item()``, or a new tensor made of
    numbers.

    Change: take it out of the path from the layer to the loss; where a part is meant to be frozen, say so
    with ``requires_grad_(False)``.
    """,
)  # fmt: skip
NOT_IN_OPTIMIZER = rule(
    "TRN003", "not_in_optimizer", command=_OVERFIT,
    text="""Weights get a gradient, and the optimizer doesn't know them.

    Flagged: parameters that ask for a gradient and aren't in any group of the optimizer, or an optimizer that
    holds tensors that aren't the model's: the head was replaced, or the model copied, after it was made.

    Change: make the optimizer last, from ``model.parameters()``.
    """,
)  # fmt: skip
LEARNING_RATE = rule(
    "TRN004", "learning_rate", command=_OVERFIT,
    text="""With this learning rate the model doesn't learn even one batch; with another it does.

    Flagged: the batch is not learned with the optimizer as it is, and is when nothing but the learning rate
    is multiplied by a power of ten, or when its default optimizer is used.

    Change: the learning rate to what the finding names; ``dataaudit model lr`` shows the whole range.
    """,
)  # fmt: skip
DEAD_ACTIVATION = rule(
    "TRN005", "dead_activation", command=_OVERFIT,
    text="""An activation is dead or saturated: whatever goes in, it lets hardly any gradient through.

    Flagged: the batch is not learned, and after some layer all values are zero (ReLU), or at the ends of
    the range (sigmoid, tanh), for every sample. Where new weights help, the finding says so. Also a ReLU
    after the scores of classes.

    Change: the initialisation and the scale of the inputs, a normalisation before it, or another
    activation.
    """,
)  # fmt: skip
CONTRADICTING_LABELS = rule(
    "TRN006", "contradicting_labels", command=_OVERFIT,
    text="""The same image has different labels in one batch.

    Flagged: samples of the batch that are equal pixel by pixel and have other targets: no model can learn
    both. Where all images of a batch are equal, the loader or the transform is at fault.

    Change: the labels (``dataaudit audit`` finds such pairs), or the loader.
    """,
)  # fmt: skip
TRAINING_STEP = rule(
    "TRN007", "training_step", command=_OVERFIT,
    text="""The training step leaves out a part, or does it in the wrong order.

    Flagged, for a step function of yours: no weight changes after several calls, ``backward`` or
    ``optimizer.step`` isn't called, gradients of earlier steps are still there (``zero_grad`` is missing), a
    gradient that is accumulated over several batches isn't divided by their number, gradients are clipped
    to a norm so small that nothing moves (or before they are unscaled), or the loss is that of an earlier
    step's output.

    Change: ``optimizer.zero_grad()``, ``loss.backward()``, ``optimizer.step()``, in this order; with
    accumulation over k batches ``(loss / k).backward()``.
    """,
)  # fmt: skip
REGULARISATION = rule(
    "TRN008", "regularisation", command=_OVERFIT,
    text="""Dropout or weight decay keeps the model from learning.

    Flagged: the batch is not learned as it is, and is without dropout, or without weight decay, and nothing
    else changed.

    Change: a lower rate of dropout, or a lower weight decay; with ``Adam`` rather ``AdamW``.
    """,
)  # fmt: skip
NORMALISATION = rule(
    "TRN009", "normalisation", command=_OVERFIT,
    text="""Batch norm is in the way: frozen with statistics that don't fit, or fed too few values.

    Flagged: the batch is not learned as it is, and is with batch norm in train mode, or it is learned in
    train mode alone because the running statistics don't follow.

    Change: put batch norm in train mode, load weights with fitting statistics, or use group norm.
    """,
)  # fmt: skip
INITIALISATION = rule(
    "TRN010", "initialisation", command=_OVERFIT,
    text="""The weights start where no training leads away from.

    Flagged: the batch is not learned as it is, and is with newly drawn weights. The finding names the layers
    whose weights are all zero, all equal, not finite, or far larger or smaller than their size asks for.
    Weights that are equal, not finite or 30 times too large are a suspicion by themselves.

    Change: leave PyTorch's initialisation, or draw from ``nn.init.kaiming_normal_``.
    """,
)  # fmt: skip
FROZEN_LAYERS = rule(
    "TRN011", "frozen_layers", command=_OVERFIT,
    text="""Too much is frozen: what may learn isn't enough for one batch.

    Flagged: the batch is not learned as it is, and is when every weight asks for a gradient.

    Change: ``requires_grad_(True)`` at least for the last layers, and for every layer with random weights.
    """,
)  # fmt: skip
INPUT_SCALE = rule(
    "TRN012", "input_scale", command=_OVERFIT,
    text="""The inputs' scale keeps the model from learning.

    Flagged: the inputs hold NaN, or nothing but one value. Or their scale is odd (pixels of 0 to 255 that
    reach a layer with weights, images normalised twice, divided by 255 twice): a suspicion, and sure where
    the batch is not learned as it is, and is when each channel is brought to mean 0 and deviation 1.

    Change: scale pixels to 0 to 1 and normalise with the mean and deviation of the training data.
    """,
)  # fmt: skip
UNUSED_LAYER = rule(
    "TRN013", "unused_layer", command=_OVERFIT,
    text="""A layer has weights to learn, and the forward pass never calls it.

    Flagged: parameters that ask for a gradient, whose layer takes no part in the step.

    Change: call it in ``forward``, or take it out; several processes (DDP) fail with it as it is.
    """,
)  # fmt: skip
INVERTED_LOSS = rule(
    "TRN014", "inverted_loss", command=_OVERFIT,
    text="""The loss is lower for wrong predictions than for right ones.

    Flagged: the loss is given right, uninformed and wrong predictions in place of the model's, and those of
    other classes have the lowest loss: its sign is wrong, or what should grow is made small.

    Change: the sign (``-log_prob``, ``1 - dice``).
    """,
)  # fmt: skip
NONFINITE_GRADIENT = rule(
    "TRN020", "nonfinite_gradient", command=_GRADIENTS,
    text="""NaN or infinity appears in the step.

    Flagged: the first layer in execution order whose output isn't finite though its input is, or else the
    operation in the backward pass that returns NaN or infinity first, with its line. With a ``GradScaler``
    only what isn't finite at a scale of 1 as well: steps that the scaler skips are no fault.

    Change: an epsilon inside square roots, logarithms and divisions, ``torch.where`` on their inputs rather
    than outputs, losses that take logits, float32 for sums.
    """,
)  # fmt: skip
VANISHING_GRADIENT = rule(
    "TRN021", "vanishing_gradient", command=_GRADIENTS,
    text="""The gradient vanishes on its way to the first layers.

    Flagged: gradient times weight, which is about equal in all layers of a sound network, is over 10,000
    times smaller in the first layers than in the last, in each of several steps.

    Change: ReLU-like activations in place of sigmoid and tanh, normalisation, residual connections, an
    initialisation that keeps the variance.
    """,
)  # fmt: skip
EXPLODING_GRADIENT = rule(
    "TRN022", "exploding_gradient", command=_GRADIENTS,
    text="""The gradient grows on its way to the first layers, or is huge over all.

    Flagged: gradient times weight is over 10,000 times larger in the first layers than in the last, or the
    norm of the whole gradient is over a thousand times the norm of the weights.

    Change: normalisation, an initialisation that keeps the variance, scaled inputs and targets, clipping.
    """,
)  # fmt: skip
DEAD_GRADIENT = rule(
    "TRN023", "dead_gradient", command=_GRADIENTS,
    text="""A layer's gradient is zero, wholly or for most of its units.

    Flagged: in each of several steps the gradient of a layer is exactly zero, or zero for over nine tenths of
    its units, although the layer takes part.

    Change: look for dead ReLUs (a large negative bias, a learning rate that was too high), rounding and
    ``argmax``, and zero weights after it.
    """,
)  # fmt: skip
UPDATE_RATIO = rule(
    "TRN024", "update_ratio", command=_GRADIENTS,
    text="""A step changes the weights by far too much or next to nothing.

    Flagged: the norm of a step over the norm of the weights it changes is above 1 in some layer (above 2 in
    one step alone), or below one in ten million in all. About one in a thousand is usual.

    Change: the learning rate, by the factor that the finding names.
    """,
)  # fmt: skip
RATE_OUT_OF_RANGE = rule(
    "TRN030", "rate_out_of_range", command=_RATE,
    text="""The learning rate lies outside of the range in which the loss falls.

    Flagged: the optimizer's rate is above that at which the loss grew in the range test, or over a thousand
    times below where it falls steepest.

    Change: the rate that is suggested: a tenth of that of the lowest loss, or where it falls steepest.

    Reference: Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017.
    """,
)  # fmt: skip
RATE_FOR_BATCH = rule(
    "TRN031", "rate_for_batch", command=_RATE,
    text="""Learning rate and batch size don't fit each other.

    Flagged: the rate is far from what follows from a pair that is known to work: proportional to the batch
    size for SGD, to its square root for Adam and its kin. The pair is yours, or 0.1 at 256 samples (SGD with
    momentum) or 0.001 at 256 (Adam); with yours a factor of 3 is flagged, with these one of 30.

    Change: the rate, as the finding names it; with large batches warm up.

    Reference: Goyal et al., "Accurate, Large Minibatch SGD", 2017; Malladi et al., "On the SDEs and Scaling
    Rules for Adaptive Gradient Algorithms", NeurIPS 2022.
    """,
)  # fmt: skip
PROCESS_BATCH_NORM = rule(
    "TRN040", "process_batch_norm", command=_PROCESSES,
    text="""Batch norm normalises by the part of the batch that its process has.

    Flagged: loss and gradients of several processes differ from those of one with the same samples, and don't
    with batch norm in eval mode.

    Change: ``nn.SyncBatchNorm.convert_sync_batchnorm(model)`` where the part of a process is small (under 16
    or so); otherwise it is usual, and can be left (``--ignore TRN040``).
    """,
)  # fmt: skip
PROCESS_MEAN = rule(
    "TRN041", "process_mean", command=_PROCESSES,
    text="""The mean over processes isn't the mean over samples.

    Flagged: the gradients of several processes differ from those of one although no layer mixes samples: the
    parts have different sizes, or different numbers of targets that count (ignored pixels, class weights,
    boxes), or the loss is a sum, or compares samples with each other.

    Change: parts of equal size (``drop_last=True``), or a sum divided by the number over all processes times
    the number of processes; gather embeddings before a loss that compares samples.
    """,
)  # fmt: skip
PROCESS_RANDOM = rule(
    "TRN042", "process_random", command=_PROCESSES,
    text="""All processes draw the same random numbers.

    Flagged: after your set-up function ran in each process, their next random numbers are equal: dropout
    masks and augmentations repeat.

    Change: add the rank to the seed: ``torch.manual_seed(seed + rank)``.
    """,
)  # fmt: skip
PROCESS_STATE = rule(
    "TRN043", "process_state", command=_PROCESSES,
    text="""The processes' weights, gradients or buffers aren't the same.

    Flagged: after a step the gradients or weights of two processes differ, so that they train different
    models (the model isn't wrapped in ``DistributedDataParallel``, or changed after it was, or under
    ``no_sync``); or buffers differ that aren't batch norm's.

    Change: wrap the model after everything was replaced and loaded, call the wrapper and not the model inside
    it, keep ``broadcast_buffers=True``, and ``dist.all_reduce`` what buffers are updated with.
    """,
)  # fmt: skip
PROCESS_SAMPLER = rule(
    "TRN044", "process_sampler", command=_PROCESSES,
    text="""Two processes get the same samples, or some get none.

    Flagged: your loader gives samples to one process that another has as well, beyond what evening out the
    parts takes, or gives a process the same ones again, or the processes different numbers of batches, or the
    same order in two epochs although its ``DistributedSampler`` shuffles. A function of the loader that takes
    the epoch as third argument is called with 0 and 1.

    Change: ``DistributedSampler``, and ``sampler.set_epoch(epoch)`` at the start of each epoch.
    """,
)  # fmt: skip
PROCESS_UNUSED = rule(
    "TRN045", "process_unused", command=_PROCESSES,
    text="""Several processes fail because some weights take no part in the loss.

    Flagged: ``DistributedDataParallel`` raises in the second step, and doesn't with
    ``find_unused_parameters=True``. The parameters are named.

    Change: freeze or remove what isn't used, or ``find_unused_parameters=True``, which costs time.
    """,
)  # fmt: skip
PROCESS_DIFFERENCE = rule(
    "TRN046", "process_difference", command=_PROCESSES,
    text="""Several processes do something else than one with the same samples, and no known cause fits.

    Flagged: loss, gradients or buffers differ by more than sums in another order explain, or a process fails.

    Change: look for what depends on the rank, on the number of processes or on the order of samples.
    """,
)  # fmt: skip
