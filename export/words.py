"""What the manifest's names mean, in words that a clinical engineer reads without a textbook.

Each sentence ends what "An answer is accepted by …", "Strangeness is …" or "Label sets are …" begins.
"""

SCORES = {
    "max_probability": "the probability of the top label",
    "margin": "how far the probability of the top label is ahead of the second",
    "entropy": "how much the probabilities are gathered on few labels (their entropy, negated)",
    "top_two": "the probabilities of the two top labels together",
    "max_logit": "the largest logit",
    "energy": "the logarithm of the summed exponentials of all logits (energy)",
    "gen": "how near to 0 or 1 the largest probabilities are (generalised entropy)",
}
UNKNOWN_METHODS = {
    "mahalanobis": "the distance of an input's embedding to the nearest label's mean (Mahalanobis)",
    "relative_mahalanobis": "that distance, less the one to all labels taken together (relative Mahalanobis)",
    "vim": "what of an embedding lies outside the space that known inputs span, against its logits (virtual-logit matching)",
    "nearest": "the distance to the nearest of the embeddings of known cases",
}
LABEL_SETS = {
    "lac": "all labels whose probability is over one threshold (least ambiguous sets)",
    "lac_by_class": "all labels whose probability is over a threshold of their own (class by class)",
    "raps": "the top labels until enough probability is gathered (regularised adaptive sets)",
}
PARITY = {
    "cases": "validation cases compared",
    "logit_difference_e9": "largest difference in a logit",
    "probability_difference_e9": "largest difference in a probability",
    "embedding_difference_e9": "largest difference in an embedding",
    "composition_difference_e9": "largest difference in a logit between a row alone and in company",
    "padding_difference_e9": "largest difference in a logit when what stands past a text's end changes",
    "close_calls": "cases whose top label differs, within the network's own margin",
    "agreement_e6": "cases with the same top label",
    "accuracy_drop_e6": "accuracy lost against the network",
    "worst_class_drop_e6": "accuracy lost by the label that loses most",
}


def parity(figures: dict[str, int]) -> list[tuple[str, str]]:
    """What was compared, and the figure as it is read. A key without words is shown by its own name."""
    return [(PARITY.get(name, name), _figure(name, value)) for name, value in figures.items()]


def _figure(name: str, value: int) -> str:
    if name.endswith("_e9"):
        return f"{value / 1e9:.1e}" if value else "0"
    return f"{value / 1e6:.2%}" if name.endswith("_e6") else f"{value:,}"
