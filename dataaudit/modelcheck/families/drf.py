"""DRF: production is not what the model was trained on."""

from __future__ import annotations

from dataaudit.registry import rule

_COMMAND = "model drift"

PROPERTY_DRIFT = rule(
    "DRF001", "property_drift", command=_COMMAND,
    text="""The images of production look different: light, contrast, colour, sharpness, size or compression.

    Flagged: properties of the pixels and files whose distribution differs from the reference's by more than
    chance, by statistics of the Anderson-Darling kind whose p-values come from permutations. One finding
    for each aspect, with means, the share of images beyond what the reference has, and the images that show
    it.

    Change: look at the camera, the exposure, the preprocessing and the compression on the way; where
    production is right, add such images to the training data, or augment by what changed.
    """,
)  # fmt: skip
EMBEDDING_DRIFT = rule(
    "DRF002", "embedding_drift", command=_COMMAND,
    text="""The images of production show something else than those of the reference.

    Flagged: a classifier on the backbone's features tells images of production from images of the reference
    that it hasn't seen, better than it would by chance; the p-value comes from permutations, for each of
    which the classifier is fitted anew. The effect is the area under its curve: 0.5 is chance, 1 is certain.
    With ``--test mmd``: the maximum mean discrepancy of the features by Gaussian kernels as wide as half the
    median distance and the median distance, with a p-value of the same permutations.

    Change: look at the images that it is most sure of; collect and label such images.

    Reference: Lopez-Paz and Oquab, "Revisiting Classifier Two-Sample Tests", ICLR 2017; Gretton et al., "A
    Kernel Two-Sample Test", JMLR 2012.
    """,
)  # fmt: skip
CLASS_DRIFT = rule(
    "DRF003", "class_drift", command=_COMMAND,
    text="""The classes of production's labels have other shares than those of the reference.

    Flagged: a chi-square statistic whose p-value comes from permutations. The effect is the share of images
    that would have to change their class for the shares to be equal.

    Change: weigh or sample classes as production has them, check thresholds, and collect images of new
    classes.
    """,
)  # fmt: skip
PREDICTION_DRIFT = rule(
    "DRF004", "prediction_drift", command=_COMMAND,
    text="""Predicted classes have other shares, or another confidence, in production than in the reference.

    Flagged: by your model's predictions for both sides, or by a regression on the backbone's features that
    was fitted to other images of the reference. Needs no labels of production.

    Change: either the classes have other shares, or the images look different to the model: DRF001 and
    DRF002 say which; label some of production to know.

    Reference: Lipton, Wang and Smola, "Detecting and Correcting for Label Shift with Black Box Predictors",
    ICML 2018; Rabanser, Günnemann and Lipton, "Failing Loudly", NeurIPS 2019.
    """,
)  # fmt: skip
CONCEPT_DRIFT = rule(
    "DRF005", "concept_drift", command=_COMMAND,
    text="""Predictions that were right on the reference are wrong in production.

    Flagged: accuracy differs between two sets with labels, or changes along a stream of outcomes; then with
    the moment of the change and an interval for it, and whether it was sudden or gradual.

    Change: look at what changed at that moment; label recent images and train again, and check whether
    labels still mean the same.
    """,
)  # fmt: skip
OUTLIER_SHARE = rule(
    "DRF006", "outlier_share", command=_COMMAND,
    text="""A share of production is unlike anything in the reference.

    Flagged: more images of production than by chance lie further from one half of the reference than almost
    all images of its other half do.

    Change: look at them: another camera, something new, or files that don't belong there.

    Reference: Bates et al., "Testing for Outliers with Conformal p-values", Annals of Statistics 2023.
    """,
)  # fmt: skip
CHANGE_IN_TIME = rule(
    "DRF007", "change_in_time", command=_COMMAND,
    text="""Production itself changed along its time.

    Flagged: a property, or how much images look like the reference, differs between the images before and
    after some moment by more than chance; the p-value covers the search for the moment.

    Change: look at what happened then: a new camera, a season, a release of the software on the way.
    """,
)  # fmt: skip
