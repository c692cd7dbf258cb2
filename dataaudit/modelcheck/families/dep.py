"""DEP: what is deployed isn't what was trained: the model itself, and what images go through before it."""

from __future__ import annotations

from dataaudit.registry import rule

_PARITY = "model parity"
_PREPROCESSING = "model preprocessing"

OUTPUT_DIFFERENCE = rule(
    "DEP001", "output_difference", command=_PARITY,
    text="""The deployed model puts out something else than the trained one for the same input.

    Flagged: the largest difference, as a share of the largest output, is beyond what rounding in the
    deployed type explains: the limit comes from the type and from how much the model itself amplifies
    rounding, measured against double precision. The finding names the likely cause: a change of the input,
    output or mode that makes both equal, or the first operation that departs, with its node.

    Change: what the finding says; then compare again.
    """,
)  # fmt: skip
DECISION_FLIPS = rule(
    "DEP002", "decision_flips", command=_PARITY,
    text="""A version of lower precision decides otherwise more often than such a version should.

    Flagged: outputs are within what the type explains, and the share of samples with another class is above
    2 % beyond doubt (lower end of a 95 % Wilson interval), or accuracy differs by McNemar's exact test.

    Change: calibrate the quantisation with images of the deployment, keep the first and last layer in
    float, quantise channel by channel, or train with quantisation.
    """,
)  # fmt: skip
INPUT_MISMATCH = rule(
    "DEP003", "input_mismatch", command=_PARITY,
    text="""The deployed model takes another input than the trained one.

    Flagged: another number of inputs, axes, channels, layout, image size or type than what the trained
    model is given.

    Change: convert the input on the way, or export again with an example input of the right shape, and
    with dynamic axes where sizes vary.
    """,
)  # fmt: skip
BATCH_SIZE = rule(
    "DEP004", "batch_size", command=_PARITY,
    text="""The deployed model works with one batch size only, or mixes the samples of a batch.

    Flagged: a batch axis fixed to more than one sample; a batch axis that is said to be free, and fails or
    puts out something else for the same sample in a batch of another size.

    Change: export with ``dynamic_shapes={0: torch.export.Dim("batch")}`` (or ``dynamic_axes``), and write
    ``x.flatten(1)`` in place of a ``reshape`` that holds the batch size.
    """,
)  # fmt: skip
TRAIN_MODE = rule(
    "DEP005", "train_mode_export", command=_PARITY,
    text="""The model was exported in train mode.

    Flagged: dropout or batch norm in train mode in the graph, another output for the same input each time,
    or an output that equals that of the trained model in train mode.

    Change: call ``model.eval()`` before the export.
    """,
)  # fmt: skip
NONFINITE_OUTPUT = rule(
    "DEP006", "nonfinite_output", command=_PARITY,
    text="""The deployed model puts out NaN or infinity where the trained one doesn't.

    Flagged: such values in the output, or in a node between. The finding names the first node, and the
    largest value of the trained model there: half precision ends at 65,504.

    Change: keep that layer in float32, use bfloat16, or scale what goes into it.
    """,
)  # fmt: skip
OUTPUT_FORM = rule(
    "DEP007", "output_form", command=_PARITY,
    text="""The deployed model's output has another form: number, shape, order or an activation at the end.

    Flagged: another number or shape of outputs; or an output that equals the trained one's after softmax,
    sigmoid, a permutation of the classes or a transposition.

    Change: put out the same on both sides, or do once what is done twice: a softmax in the graph and one
    after it.
    """,
)  # fmt: skip
NOT_RUNNING = rule(
    "DEP008", "not_running", command=_PARITY,
    text="""The deployed model can't be loaded or run.

    Flagged: the runtime refuses the model, or an input that the trained model takes; with what it says.

    Change: the opset, operators and versions that the runtime supports, or the input's shape.
    """,
)  # fmt: skip
OTHER_WEIGHTS = rule(
    "DEP009", "other_weights", command=_PARITY,
    text="""The deployed model holds other weights than the trained one.

    Flagged: weights of the same name and shape with other values, beyond rounding.

    Change: export the checkpoint that you compare with; check which one was loaded, and whether its keys
    matched (``load_state_dict(strict=True)``).
    """,
)  # fmt: skip
COLOUR_ORDER = rule(
    "DEP010", "colour_order", command=_PREPROCESSING,
    text="""Training and deployment disagree on the order of the colours: RGB against BGR.

    Flagged: with the channels reversed one preprocessing gives what the other does.

    Change: ``cv2.cvtColor(image, cv2.COLOR_BGR2RGB)`` after ``cv2.imread``, and not twice.
    """,
)  # fmt: skip
VALUE_RANGE = rule(
    "DEP011", "value_range", command=_PREPROCESSING,
    text="""Training and deployment scale pixels to different ranges: 0 to 1, 0 to 255, -1 to 1.

    Flagged: one factor and shift, the same for all channels, makes one preprocessing the other.

    Change: divide by 255 once, on both sides.
    """,
)  # fmt: skip
NORMALISATION = rule(
    "DEP012", "normalisation", command=_PREPROCESSING,
    text="""Training and deployment normalise with different means and deviations, or one of them not at all.

    Flagged: a factor and shift for each channel makes one preprocessing the other. The finding gives the
    mean and deviation of each side.

    Change: the same mean and deviation in the same order of channels on both sides.
    """,
)  # fmt: skip
RESIZE_METHOD = rule(
    "DEP013", "resize_method", command=_PREPROCESSING,
    text="""Training and deployment resize with different methods.

    Flagged: same region and size, another interpolation or antialias. PIL widens its filter when it makes
    images smaller, OpenCV and torch without ``antialias=True`` don't.

    Change: the same library on both sides; else ``antialias=True`` in torch, or ``cv2.INTER_AREA`` when
    images become smaller.

    Reference: Parmar, Zhang and Zhu, "On Aliased Resizing and Surprising Subtleties in GAN Evaluation",
    CVPR 2022.
    """,
)  # fmt: skip
IMAGE_REGION = rule(
    "DEP014", "image_region", command=_PREPROCESSING,
    text="""Training and deployment show the model different parts of the image, or another shape of it.

    Flagged: a crop against a squeeze to a square, a letterbox, another size before the crop, or another size
    of the result.

    Change: the same steps and sizes on both sides.
    """,
)  # fmt: skip
ORIENTATION = rule(
    "DEP015", "orientation", command=_PREPROCESSING,
    text="""Training and deployment turn images differently: EXIF rotation, height against width, a mirror.

    Flagged: images turned by one side and not by the other, because of the orientation that a camera notes in
    the file, or of every image.

    Change: ``PIL.ImageOps.exif_transpose`` (or ``cv2.IMREAD_IGNORE_ORIENTATION``) on the side that lacks it.
    """,
)  # fmt: skip
LAYOUT = rule(
    "DEP016", "layout", command=_PREPROCESSING,
    text="""Training and deployment arrange axes differently, or use another type.

    Flagged: channels first against channels last, an axis of the batch that only one has, or another type of
    number.

    Change: ``permute(2, 0, 1)`` and ``unsqueeze(0)`` where the model expects them; the same type.
    """,
)  # fmt: skip
PREPROCESSING_DIFFERENCE = rule(
    "DEP017", "preprocessing_difference", command=_PREPROCESSING,
    text="""Training and deployment prepare images differently, and none of the known changes explains it.

    Flagged: the results differ by more than two levels of 255 on average, and no change of colour order,
    range, normalisation, resize, region or orientation makes them equal; or one side fails or is random.

    Change: save both results as images and look at them; leave out steps one by one.
    """,
)  # fmt: skip
