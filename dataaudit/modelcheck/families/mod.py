"""MOD: the model and its loss."""

from __future__ import annotations

from dataaudit.registry import rule

_DETERMINISM, _TRACE, _LOSS = "model determinism", "model trace", "model loss"

RANDOM_OUTPUT = rule(
    "MOD001", "random_output", command=_DETERMINISM,
    text="""The same input gives another output each time, because the model draws random numbers.

    Flagged: in eval mode, with weights, buffers and the model's own attributes put back, two seeds give
    different outputs and one seed gives the same output twice. The finding names the first module in
    execution order whose output differs for the same input, the operation that draws, and its line in your
    code.

    Change: switch dropout and stochastic depth off in eval mode (``if self.training``, ``F.dropout(...,
    training=self.training)``), and take noise out of ``forward``. Where it is meant, as in Monte Carlo
    dropout, leave the code out with ``--ignore MOD001``.
    """,
)  # fmt: skip
STATE_BETWEEN_CALLS = rule(
    "MOD002", "state_between_calls", command=_DETERMINISM,
    text="""What the model puts out depends on what it was given before.

    Flagged: in eval mode and with one seed, the second of two equal calls gives another output, and it
    doesn't when the model's state is put back in between. The finding names the module, and the buffers,
    weights and attributes that a forward pass changed.

    Change: update buffers only ``if self.training``, write ``x = x + y`` where ``x += y`` changes a
    parameter or buffer, and reset hidden states at the start of ``forward``.
    """,
)  # fmt: skip
UNINITIALISED_MEMORY = rule(
    "MOD003", "uninitialised_memory", command=_DETERMINISM,
    text="""Memory that nothing was written to reaches the output.

    Flagged: when PyTorch fills what ``torch.empty`` and its kin return with NaN, NaN appears in the output
    of a module that has none otherwise.

    Change: ``torch.zeros`` in place of ``torch.empty``, or write every element before it is read.
    """,
)  # fmt: skip
UNREPEATABLE_OPERATION = rule(
    "MOD004", "unrepeatable_operation", command=_DETERMINISM,
    text="""The same input, state and seed give another output.

    Flagged: two calls differ although everything that the model holds and PyTorch's, NumPy's and Python's
    random numbers were put back. What is left are kernels that add in another order each time, and what
    comes from outside: the clock, a generator of the model's own, a global variable, the order of a set.

    Change: ``torch.use_deterministic_algorithms(True)`` for kernels (the finding says whether it helps), a
    seeded generator, and no clock or global in ``forward``.
    """,
)  # fmt: skip
BATCH_DEPENDENT_OUTPUT = rule(
    "MOD005", "batch_dependent_output", command=_DETERMINISM,
    text="""What the model says about a sample depends on the other samples of its batch.

    Flagged: in eval mode a sample's output alone differs from its output in a batch by more than sums in
    another order explain. The finding names the first module where it departs.

    Change: normalise over channels or features and not over dimension 0, keep ``reshape`` and ``view`` from
    mixing samples, and let batch norm use its running statistics (``track_running_stats=True``,
    ``eval()``).
    """,
)  # fmt: skip
EVAL_NOT_REACHED = rule(
    "MOD006", "eval_not_reached", command=_DETERMINISM,
    text="""A part of the model stays in train mode where the model is put into eval mode.

    Flagged: a module whose ``training`` is still true after ``eval()``: its parent overrides ``train()``,
    or holds it where PyTorch doesn't look, such as a plain list.

    Change: hold modules in ``nn.ModuleList`` or ``nn.ModuleDict``, and call ``super().train(mode)`` in an own
    ``train``.
    """,
)  # fmt: skip
RUNNING_STATISTICS = rule(
    "MOD007", "running_statistics", command=_DETERMINISM,
    text="""Batch norm's running statistics don't fit the data, so that eval mode differs from train mode.

    Flagged: on real data, in a model that was trained, a batch norm whose running mean or variance is far
    from the batch's (a median shift of more than one standard deviation, or a ratio of variances beyond
    10), or one that holds NaN or a negative variance.

    Change: check that preprocessing is that of training; run a few hundred training images through the
    model in train mode to settle the statistics; a lower ``momentum`` for small batches, or group norm.
    """,
)  # fmt: skip
UNREGISTERED_LAYER = rule(
    "MOD008", "unregistered_layer", command=_DETERMINISM,
    text="""The model uses a layer that PyTorch doesn't know to be part of it.

    Flagged: a module or parameter in a plain list, tuple or dict of a module. It isn't among
    ``parameters()``, so that no optimizer trains it; ``state_dict()``, ``to()`` and ``eval()`` leave it
    out.

    Change: ``nn.ModuleList``, ``nn.ModuleDict`` or ``nn.ParameterList`` in place of the plain container.
    """,
)  # fmt: skip
INPUT_CHANGED = rule(
    "MOD009", "input_changed", command=_DETERMINISM,
    text="""The model changes the tensor that it is given.

    Flagged: after a call the caller's input holds other values than before. Whatever uses the batch
    afterwards, such as a reconstruction loss, a second model or a retry, sees the changed one.

    Change: ``x = x * 2`` in place of ``x *= 2``, and ``inplace=False`` in the first layer.
    """,
)  # fmt: skip
NONFINITE_ACTIVATION = rule(
    "MOD010", "nonfinite_activation", command=_TRACE,
    text="""A layer puts out NaN or infinity.

    Flagged: the first layer in execution order whose output holds NaN or infinity and whose inputs and
    weights don't; or the layer whose weights do. ``--pdb`` stops inside its ``forward``.

    Change: a small number under a division, logarithm or root; float32 for sums and softmax under half
    precision; and look at the weights, when those are what is broken.
    """,
)  # fmt: skip
CONSTANT_OUTPUT = rule(
    "MOD011", "constant_output", command=_TRACE,
    text="""What a layer puts out doesn't depend on the sample.

    Flagged: the model's output is the same for different samples. The finding names the first layer in
    execution order that puts out the same for each, such as a ReLU whose inputs are all below zero.

    Change: check the initialisation and scale of the inputs, a learning rate that killed the units, and
    weights that are all zero or were never loaded.
    """,
)  # fmt: skip
SOFTMAX_BEFORE_LOSS = rule(
    "MOD020", "activation_before_loss", command=_LOSS,
    text="""The model's output goes through softmax or sigmoid, and the loss does it again.

    Flagged: ``cross_entropy`` is given what a softmax put out, or ``binary_cross_entropy_with_logits`` what a
    sigmoid put out, by the graph of the computation; or, where there is none, by values: rows that are not
    negative and sum to 1. A loss of your own (focal, label smoothing, dice) is known by what it says of
    made-up predictions: it takes the softmax or sigmoid itself where it is less for large logits than for
    probabilities that are right. The gradient is then flat, and the loss can't come near 0.

    Change: give the loss the output before the softmax or sigmoid, and use those only to predict.
    """,
)  # fmt: skip
LOGITS_INTO_PROBABILITY_LOSS = rule(
    "MOD021", "logits_into_probability_loss", command=_LOSS,
    text="""The loss needs probabilities or their logarithms, and is given something else.

    Flagged: ``nll_loss`` whose input isn't log-probabilities (logits, or probabilities without the
    logarithm), ``binary_cross_entropy`` whose input lies outside 0 to 1, ``kl_div`` whose input isn't
    log-probabilities or whose target isn't what ``log_target`` says. A loss of your own is least for
    probabilities that are right, and clips what lies outside 0 to 1, can't take it, or takes more than 1 for
    better than right; and the output lies outside 0 to 1.

    Change: ``cross_entropy`` in place of ``nll_loss`` and ``binary_cross_entropy_with_logits`` in place of
    ``binary_cross_entropy``, both of which take logits; or ``log_softmax`` before ``nll_loss`` and
    ``kl_div``.
    """,
)  # fmt: skip
CLASS_AXIS = rule(
    "MOD022", "class_axis", command=_LOSS,
    text="""The classes are not on the axis where the loss looks for them.

    Flagged: a softmax along another axis than the classes'; an input of ``cross_entropy`` whose dimension 1
    isn't that of the classes, by its shape against the target's or by the number of classes; shapes that
    the loss refuses.

    Change: ``cross_entropy`` and ``nll_loss`` want (n, classes, ...) against (n, ...): ``output.movedim(-1,
    1)`` where the classes are last, and ``softmax(dim=1)``.
    """,
)  # fmt: skip
SILENT_BROADCAST = rule(
    "MOD023", "silent_broadcast", command=_LOSS,
    text="""Prediction and target have different shapes, and each prediction is compared with every target.

    Flagged: in a loss, or in the arithmetic of your own, two operands such as (n, 1) and (n,) are broadcast
    to a shape larger than both, such as (n, n).

    Change: ``prediction.squeeze(1)`` or ``target.unsqueeze(1)``, and an assertion that both shapes are equal.
    """,
)  # fmt: skip
TARGET_RANGE = rule(
    "MOD024", "target_range", command=_LOSS,
    text="""The target's type or values are not those that the loss expects.

    Flagged: class indices out of range (negative, or as large as the number of classes, as of labels that
    count from 1) or of a type that the loss refuses; targets of binary cross-entropy outside 0 to 1, such
    as -1 and 1 or 0 and 255; probabilities as targets that don't sum to 1; a target that takes part in the
    gradient; NaN.

    Change: what the finding says: another encoding, type or scale of the target.
    """,
)  # fmt: skip
TARGET_ENCODING = rule(
    "MOD025", "target_encoding", command=_LOSS,
    text="""One-hot where class indices belong, or the reverse.

    Flagged: ``cross_entropy`` given integers of the input's shape, or rows with several ones (multi-label)
    as class probabilities; ``nll_loss`` given one-hot rows; a loss that compares element by element given
    class indices.

    Change: ``target.argmax(1)`` for indices, ``one_hot(target, classes).float()`` for rows, and
    ``binary_cross_entropy_with_logits`` where a sample has several classes.
    """,
)  # fmt: skip
EVERYTHING_IGNORED = rule(
    "MOD026", "everything_ignored", command=_LOSS,
    text="""The loss leaves out every target, or nearly.

    Flagged: all targets, or more than 99 %, are ``ignore_index`` or of classes with weight 0; the mean over
    none is NaN. Also weights of 0 for more than half of the classes, and a loss that is 0 or has no gradient
    whatever the model says.

    Change: check ``ignore_index`` against the classes (0 is a class unless you keep it free), the mask, and
    the class weights.
    """,
)  # fmt: skip
SUMMED_LOSS = rule(
    "MOD027", "summed_loss", command=_LOSS,
    text="""The loss is a sum over the batch, or no single number.

    Flagged: the loss doubles when the batch is given twice, so that the step grows with the batch size; or
    the loss has more than one element (``reduction="none"``) and ``backward()`` refuses it.

    Change: ``reduction="mean"``, or divide by the number of samples; where a sum is meant, scale the
    learning rate with the batch size and leave the code out with ``--ignore MOD027``.
    """,
)  # fmt: skip
BOX_FORMAT = rule(
    "MOD028", "box_format", command=_LOSS,
    text="""Boxes are given in another format than the loss reads.

    Flagged: boxes read as corners (x1, y1, x2, y2) whose x2 or y2 lies below x1 or y1, as of (x, y, width,
    height) or (centre, size); boxes that reach outside the image in one reading and don't in another. Which
    format a loss of your own reads is found by moving both boxes: corners move with all four numbers, a
    size stays.

    Change: ``torchvision.ops.box_convert(boxes, in_fmt, "xyxy")``; the finding says which format fits.
    """,
)  # fmt: skip
BOX_UNITS = rule(
    "MOD029", "box_units", command=_LOSS,
    text="""Boxes are relative where pixels are expected, or the reverse.

    Flagged: target boxes that lie within 0 to 1 of a model that works in pixels; predicted and target boxes
    whose scales differ by more than 20 times.

    Change: multiply by (width, height, width, height), or divide by it.
    """,
)  # fmt: skip
WORSE_THAN_BASELINE = rule(
    "MOD030", "worse_than_baseline", command="model baseline",
    text="""The model is right less often than the dataset's baseline.

    Flagged: accuracy on the same samples is below that of a regression on a pretrained backbone's features
    (out of sample), by McNemar's exact test. The baseline gets right samples that the model doesn't: the data
    allow more than the model makes of them.

    Change: debug the model and its training: ``dataaudit model loss``, ``overfit``, ``curves``,
    ``preprocessing``; look at the samples that the baseline gets right.
    """,
)  # fmt: skip
NO_BETTER_THAN_BASELINE = rule(
    "MOD031", "no_better_than_baseline", command="model baseline",
    text="""The model is no better than the dataset's baseline.

    Flagged: accuracies differ by no more than chance, although two in a hundred samples or more are wrong.
    What both get wrong is more often due to the data: labels, duplicates, too few samples of a class.

    Change: look at the data first: ``dataaudit audit``; then at what the model adds.
    """,
)  # fmt: skip
RAISES = rule(
    "MOD040", "raises", command="model sanity",
    text="""The user's code raises in a pass or a step on the batch.

    Flagged: a check of the sanity suite couldn't run because the model, the loss or the step raised. The
    finding names the line; the other checks run all the same.

    Change: what the error says; ``dataaudit model trace`` shows how far a forward pass comes.
    """,
)  # fmt: skip
