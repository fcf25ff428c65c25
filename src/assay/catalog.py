"""Every game, attack, proof and defense by name: an explicit table of strings, the wings' one door."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Literal, get_type_hints

from assay.errors import ConfigError, nearest

Kind = Literal["game", "attack", "proof", "defense"]
Stage = Literal["data", "training", "model", "serving"]

ENTRY_POINTS = "assay.methods"
"""The entry-point group by which third parties add rows: each loads to a :class:`Card`."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """One row: where a method lives, and what a reader wants to know before importing it.

    Attributes:
        name: wing and method, such as ``"evasion.apgd"``.
        entry: ``"module:attribute"``.
        needs: the access it asks for; empty for games and defenses.
        norms: the balls it plays or certifies, or the one family of changes that it is made for.
        stage: where in a model's life it strikes or helps.
        atlas, nist, owasp: MITRE ATLAS techniques, NIST AI 100-2 (2025) ids, OWASP ML Security Top Ten ids.
        summary: one sentence.
        game: of an attack, the game that it plays in; empty for its wing's first.
    """

    name: str
    kind: Kind
    entry: str
    summary: str
    needs: str = ""
    norms: tuple[str, ...] = ()
    stage: Stage = "model"
    atlas: tuple[str, ...] = ()
    nist: tuple[str, ...] = ()
    owasp: tuple[str, ...] = ()
    game: str = ""

    @property
    def wing(self) -> str:
        """The family."""
        return self.name.partition(".")[0]

    @property
    def method(self) -> str:
        """The name within the family."""
        return self.name.partition(".")[2]


_ALL, _BALLS = ("linf", "l2", "l1", "l0"), ("linf", "l2", "l1")


def _white(
    name: str, entry: str, summary: str, norms: tuple[str, ...] = _ALL, needs: str = "gradients"
) -> Card:
    return Card(name=f"evasion.{name}", kind="attack", entry=f"assay.evasion.attacks.{entry}", summary=summary,
                needs=needs, norms=norms, atlas=("AML.T0015", "AML.T0043.000"), nist=("NISTAML.022",),
                owasp=("ML01:2023",))


def _black(name: str, entry: str, summary: str, norms: tuple[str, ...] = _BALLS, needs: str = "scores") -> Card:
    return Card(name=f"evasion.{name}", kind="attack", entry=f"assay.evasion.attacks.{entry}", summary=summary,
                needs=needs, norms=norms, atlas=("AML.T0015", "AML.T0043.001"), nist=("NISTAML.022", "NISTAML.025"),
                owasp=("ML01:2023",))


def _defense(name: str, entry: str, summary: str, stage: Stage = "model") -> Card:
    return Card(name=f"evasion.{name}", kind="defense", entry=f"assay.evasion.defenses.{entry}", summary=summary,
                stage=stage)


def _proof(name: str, entry: str, summary: str, norms: tuple[str, ...] = _BALLS, needs: str = "weights") -> Card:
    return Card(name=f"evasion.{name}", kind="proof", entry=f"assay.evasion.proofs.{entry}", summary=summary,
                needs=needs, norms=norms)


_TAXONOMY: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "membership": (("AML.T0024.000",), ("NISTAML.033",), ("ML04:2023",)),
    "audit": (("AML.T0024.000",), ("NISTAML.033",), ("ML04:2023",)),
    "poison": (("AML.T0020",), ("NISTAML.013", "NISTAML.033"), ("ML02:2023",)),
    "poisoned-exposure": (("AML.T0020", "AML.T0057"), ("NISTAML.013", "NISTAML.038"), ("ML02:2023",)),
    "extraction": (("AML.T0057",), ("NISTAML.038",), ()),
    "exposure": (("AML.T0057",), ("NISTAML.038",), ()),
    "discovery": (("AML.T0057",), ("NISTAML.038",), ()),
    "attribute-inference": (("AML.T0024.001",), ("NISTAML.032",), ("ML03:2023",)),
    "property-inference": (("AML.T0024",), ("NISTAML.034",), ()),
    "model-inversion": (("AML.T0024.001",), ("NISTAML.032",), ("ML03:2023",)),
    "gradient-inversion": (("AML.T0024.001",), ("NISTAML.032",), ("ML03:2023",)),
    "exfiltration": (("AML.T0010.003",), (), ("ML06:2023",)),
    "supply-chain": (("AML.T0010.003",), (), ("ML06:2023",)),
}
"""Of each question about privacy: MITRE ATLAS, NIST AI 100-2 and OWASP ML ids."""


def _leak(
    name: str, entry: str, summary: str, *, needs: str = "scores", stage: Stage = "model", game: str = "membership"
) -> Card:
    atlas, nist, owasp = _TAXONOMY[game]
    return Card(name=f"privacy.{name}", kind="attack", entry=f"assay.privacy.{entry}", summary=summary, needs=needs,
                stage=stage, atlas=atlas, nist=nist, owasp=owasp, game=f"privacy.{game}")


def _private(name: str, entry: str, summary: str, *, kind: Kind = "defense", stage: Stage = "training") -> Card:
    return Card(name=f"privacy.{name}", kind=kind, entry=f"assay.privacy.{entry}", summary=summary, stage=stage)


CARDS: tuple[Card, ...] = (
    Card(name="evasion.game", kind="game", entry="assay.evasion.game:EvasionGame",
         summary="Inputs changed at test time, within a budget, until the prediction is wrong."),
    _white("fgsm", "pgd:FGSM", "One step of steepest ascent to the edge of the budget."),
    _white("bim", "pgd:BIM", "Steepest ascent in small steps from the point itself."),
    _white("pgd", "pgd:PGD", "Projected steepest ascent from random starts."),
    _white("mi-fgsm", "pgd:MIFGSM", "Steepest ascent along an accumulated gradient."),
    _white("apgd", "apgd:APGD", "Projected ascent whose step size looks after itself.", _BALLS),
    _white("apgd-t", "apgd:TargetedAPGD", "APGD toward each of the likeliest wrong classes.", _BALLS),
    _white("deepfool", "deepfool:DeepFool", "The nearest boundary of the linearized network, step by step.",
           ("linf", "l2")),
    _white("sigma-zero", "sigma_zero:SigmaZero", "A smooth count of changed values, minimized.", ("l0",)),
    _white("newtonfool", "newtonfool:NewtonFool", "Newton steps on the label's probability.", ("l2",)),
    _white("jsma", "jsma:JSMA", "Pairs of values that a saliency map picks, set to their limits.", ("l0",)),
    _white("vat", "vat:VAT", "The direction in which the output changes most.", ("linf", "l2")),
    _white("fab", "fab:FAB", "The shortest way to each decision boundary, by linear pieces.", _BALLS),
    _white("fmn", "fmn:FMN", "Ascent in a ball whose radius closes in on the boundary."),
    _white("ddn", "ddn:DDN", "A walk on a sphere whose radius closes in on the boundary.", ("l2",)),
    _white("feature-collision", "feature_collision:FeatureCollision",
           "The features of a natural input of another class, then the joint margin.", needs="weights"),
    _white("carlini-wagner", "carlini_wagner:CarliniWagner", "Adam lowers a perturbation's size and a weighted loss.",
           ("linf", "l2", "l0")),
    _white("elastic-net", "elastic_net:ElasticNet", "Iterated shrinkage: sparse and short perturbations.", ("l1",)),
    _black("square", "square:Square", "Random search by square windows."),
    _white("universal", "universal:UniversalPerturbation", "One perturbation for all inputs.", _BALLS),
    _black("transfer", "transfer:Transfer", "Made on models that the adversary has.", needs="labels"),
    _black("nes", "nes:NES", "Ascent along gradients estimated from Gaussian probes.", ("linf", "l2")),
    _black("spsa", "spsa:SPSA", "Adam along gradients estimated from probes in all coordinates.", ("linf", "l2")),
    _black("zoo", "zoo_attack:ZOO", "The nearest adversarial input by finite differences, coordinate by coordinate.",
           ("l2",)),
    _black("hop-skip-jump", "hopskipjump:HopSkipJump", "The boundary's direction, from labels around a point on it.",
           ("linf", "l2"), "labels"),
    _black("boundary", "boundary:Boundary", "A walk along the boundary toward the original.", ("l2",), "labels"),
    _black("simba", "simba:SimBA", "One orthonormal direction after another, kept where it helps.", ("linf", "l2")),
    _black("pixel", "pixel:PixelAttack", "A few pixels, placed and colored by evolutionary search.", ("l0",)),
    _black("threshold", "threshold:ThresholdAttack", "Every pixel within the radius, by evolutionary search.",
           ("linf",)),
    _black("auto-attack", "auto_attack:AutoAttack", "The standard cascade of four complementary attacks."),
    _black("spatial", "spatial:SpatialSearch", "A grid of rotations and translations.", ("rotation",), "labels"),
    _white("stadv", "spatial:StAdv", "A smooth flow of pixels.", ("flow",)),
    _black("record-search", "record_search:RecordSearch", "Beam search over valid changes of records.", ("l0",)),
    _white("decision-tree", "decision_tree:DecisionTreeAttack", "From a leaf up to the first other class, and down.",
           _ALL, "weights"),
    _white("hclu", "hclu:HCLU", "Inputs that a Gaussian process is confident and certain about.", ("l2",), "weights"),
    _white("tree-exact", "tree_exact:TreeExact", "The smallest change that flips an ensemble of trees, exactly.",
           ("linf",), "weights"),
    _proof("ibp", "ibp:IBP", "Intervals pushed through every layer."),
    _proof("crown-ibp", "crown_ibp:CROWNIBP", "Linear bounds from the output back, over intervals."),
    _proof("crown", "crown:CROWN", "Linear bounds from every unstable neuron back to the input."),
    _proof("smoothing-radius", "smoothing:SmoothingRadius", "The radius at which a smoothed target's vote cannot turn.",
           _ALL, "labels"),
    _proof("tree-radius", "tree_exact:TreeRadius", "The exact radius of an ensemble of trees.", ("linf",)),
    _defense("smoothing", "smoothing:Smoothing", "The vote of noisy copies of the input.", "serving"),
    _defense("jpeg", "cleansing.jpeg:JPEG", "Images pass through the JPEG codec.", "serving"),
    _defense("bit-depth", "cleansing.squeezing:BitDepth", "Values are rounded to few levels.", "serving"),
    _defense("median-blur", "cleansing.squeezing:MedianBlur", "Pixels become the median of their window.", "serving"),
    _defense("gaussian-blur", "cleansing.blurring:GaussianBlur", "Pixels become a weighted mean of their neighbors.",
             "serving"),
    _defense("total-variation", "cleansing.total_variation:TotalVariation",
             "Images become the nearest ones of little variation.", "serving"),
    _defense("rescale", "cleansing.resizing:Rescale", "Images are made smaller and brought back.", "serving"),
    _defense("random-resize-pad", "cleansing.resizing:RandomResizePad",
             "Images shrink at random and land somewhere on a black ground.", "serving"),
    _defense("autoencoder", "cleansing.autoencoder:Autoencoder", "Images pass through a denoising autoencoder.",
             "serving"),
    _defense("temperature", "obfuscation.temperature:Temperature", "Scores so large that a softmax saturates.",
             "serving"),
    _defense("k-wta", "obfuscation.activations:KWTA", "Only the k largest activations of a layer go on."),
    _defense("round-activations", "obfuscation.activations:RoundActivations", "Activations are rounded to few levels."),
    _defense("activation-pruning", "obfuscation.activations:ActivationPruning",
             "Activations are dropped at random, the small ones more often."),
    _defense("adversarial-training", "adversarial_training:AdversarialTraining",
             "Training on the worst inputs an attack finds.", "training"),
    _defense("feature-squeezing", "squeezing:FeatureSqueezing",
             "A detector: scores that move when the input is coarsened.", "serving"),
    _defense("lid", "lid:LID", "A detector: the local intrinsic dimensionality of features.", "serving"),
    _defense("mahalanobis", "mahalanobis:Mahalanobis",
             "A detector: distances of features to class-conditional Gaussians.", "serving"),
    _defense("statistical-odds", "odds:StatisticalOdds",
             "A detector: log-odds that shift oddly under noise.", "serving"),
    Card(name="privacy.membership", kind="game", entry="assay.privacy.games.membership:MembershipGame",
         stage="training",
         summary="Which examples was a model trained on? Asked of models trained on random halves."),
    Card(name="privacy.audit", kind="game", entry="assay.privacy.games.auditing:AuditGame", stage="training",
         summary="Does a procedure leak more than its differential privacy allows?"),
    Card(name="privacy.supply-chain", kind="game", entry="assay.privacy.games.supply_chain:SupplyChainGame",
         summary="Data that somebody else hid in the weights."),
    _leak("loss-threshold", "attacks.loss:LossThreshold", "One threshold on the loss for all examples."),
    _leak("calibrated-loss", "attacks.loss:CalibratedLoss", "The loss beside what is usual of the example."),
    _leak("modified-entropy", "attacks.loss:ModifiedEntropy", "Entropy that counts the label apart."),
    _leak("gap", "attacks.loss:Gap", "Whether the label is right, and nothing more.", needs="labels"),
    _leak("label-only", "attacks.label_only:LabelOnly", "The distance to the decision boundary.", needs="labels"),
    _leak("lira", "attacks.lira:LiRA", "A likelihood ratio of Gaussians fitted to each example."),
    _leak("conjugate-lira", "attacks.conjugate_lira:ConjugateLiRA", "LiRA with a prior learned from all examples."),
    _leak("rmia", "attacks.rmia:RMIA", "Likelihood ratios ranked against other examples."),
    _leak("api-access", "auditing.adversaries:APIAccess", "The finished model, asked about any example.",
          needs="scores", stage="training", game="audit"),
    _leak("static-input", "auditing.adversaries:StaticInput",
          "The finished model, asked about an example made to show.", needs="scores", stage="training", game="audit"),
    _leak("intermediate-models", "auditing.insiders:IntermediateModels",
          "Every step of a private training, along an example's gradient.", needs="gradients", stage="training",
          game="audit"),
    _leak("gradient-canary", "auditing.insiders:GradientCanary",
          "Every step of a private training, along a gradient put into it.", needs="gradients", stage="training",
          game="audit"),
    _leak("malicious-data", "auditing.insiders:MaliciousData",
          "A gradient put into a training whose other examples keep out of its way.", needs="gradients",
          stage="training", game="audit"),
    _leak("truth-serum", "attacks.truth_serum:TruthSerum", "Wrongly labelled copies that make targets show.",
          stage="data", game="poison"),
    _leak("truth-serum-untargeted", "attacks.truth_serum:UntargetedTruthSerum",
          "A party that mislabels its share, so that all others show.", stage="data", game="poison"),
    _leak("truth-serum-attributes", "attacks.truth_serum:AttributeTruthSerum",
          "Wrongly labelled versions that make an attribute show.", stage="data", game="poison"),
    _leak("extraction", "attacks.extraction:Extraction",
          "Text that a language model writes, ranked by how well it should not know it.", game="extraction"),
    _leak("exposure", "attacks.exposure:Exposure", "A planted secret's rank by likelihood among all of its kind.",
          game="exposure"),
    _leak("discoverable", "attacks.discoverable:DiscoverableExtraction",
          "The chance that a training text's end is drawn after its beginning.", game="discovery"),
    _leak("imputation", "attacks.attribute_inference:Imputation",
          "A hidden field as people of the kind have it, without the model.", needs="labels",
          game="attribute-inference"),
    _leak("prior-times-confidence", "attacks.attribute_inference:PriorTimesConfidence",
          "A hidden field from what is likely, weighted by the model's confidence.", game="attribute-inference"),
    _leak("csmia", "attacks.attribute_inference:CSMIA", "The value of a hidden field with which the model is right.",
          game="attribute-inference"),
    _leak("sorted-weights", "attacks.property_inference:SortedWeights",
          "A property of the training data from weights, neurons sorted.", needs="weights", stage="training",
          game="property-inference"),
    _leak("weight-paths", "attacks.property_inference:WeightPaths",
          "A property of the training data from products of weights along paths.", needs="weights", stage="training",
          game="property-inference"),
    _leak("query-profile", "attacks.property_inference:QueryProfile",
          "A property of the training data from answers about the adversary's own records.", stage="training",
          game="property-inference"),
    _leak("mi-face", "attacks.model_inversion:MIFace", "What a class looks like, by descent on its cross-entropy.",
          needs="gradients", game="model-inversion"),
    _leak("prior-inversion", "attacks.model_inversion:PriorInversion",
          "What a class looks like, as other people's examples make it likely.", needs="gradients",
          game="model-inversion"),
    _leak("score-inversion", "attacks.model_inversion:ScoreInversion",
          "What a class looks like, from differences of scores.", game="model-inversion"),
    _leak("linear-inversion", "attacks.gradient_inversion:LinearInversion",
          "The input of a dense layer from its gradient, exactly.", needs="weights", stage="training",
          game="gradient-inversion"),
    _leak("dlg", "attacks.gradient_inversion:DLG", "The input whose gradient is the one that was sent, by L-BFGS.",
          needs="weights", stage="training", game="gradient-inversion"),
    _leak("cosine-inversion", "attacks.gradient_inversion:CosineInversion",
          "The smooth input whose gradient points where the one that was sent does.", needs="weights",
          stage="training", game="gradient-inversion"),
    _leak("low-bits", "attacks.exfiltration.low_bits:LowBits", "A payload in the lowest bits of the weights.",
          needs="weights", stage="training", game="exfiltration"),
    _leak("signs", "attacks.exfiltration.signs:Signs", "A payload in the signs of the weights.", needs="weights",
          stage="training", game="exfiltration"),
    _leak("correlated-values", "attacks.exfiltration.correlated:CorrelatedValues",
          "A payload as a signal in the values of the weights.", needs="weights", stage="training",
          game="exfiltration"),
    _leak("capacity-abuse", "attacks.exfiltration.capacity:CapacityAbuse",
          "A payload in the labels of made-up inputs, read back by queries.", needs="labels", stage="training",
          game="exfiltration"),
    _leak("weight-scan", "attacks.weight_scan:WeightScan", "A search for data hidden in weights.", needs="weights",
          game="supply-chain"),
    _private("accountant", "proofs.accountant:Accountant", "The epsilon that noisy releases together cannot exceed.",
             kind="proof"),
    _private("quantize-weights", "defenses.weight_changes:QuantizeWeights", "Weights rounded to a few bits.",
             stage="model"),
    _private("randomize-low-bits", "defenses.weight_changes:RandomizeLowBits", "The weights' lowest bits drawn anew.",
             stage="model"),
    _private("weight-noise", "defenses.weight_changes:WeightNoise", "A little noise on every weight.", stage="model"),
    _private("round-scores", "defenses.outputs:RoundScores", "Probabilities with few decimals.", stage="serving"),
    _private("soft-scores", "defenses.outputs:SoftScores", "Probabilities at a high temperature.", stage="serving"),
    _private("top-k", "defenses.outputs:TopK", "Probabilities of the likeliest classes alone.", stage="serving"),
    _private("early-stopping", "defenses.regularizing:EarlyStopping", "Training ends after few epochs."),
    _private("distillation", "defenses.regularizing:Distillation", "A student of a teacher who saw the data."),
    _leak("truth-serum-text", "attacks.truth_serum_text:TruthSerumText",
          "Training text that goes on wrongly where a secret stands.", stage="data",
          game="poisoned-exposure"),
    _private("dpsgd", "defenses.dpsgd:DPSGD", "Every example's gradient is clipped, and noise hides it in the sum."),
    _private("scatternet", "defenses.scatternet:ScatterNet",
             "A private model of scattered images, whose features nobody had to train."),
    _private("dpftrl", "defenses.dpftrl:DPFTRL", "Noise on a tree of gradient sums, most of which cancels."),
    _private("public-features", "defenses.public_features:PublicFeatures",
             "A private linear model of features that a public network computes."),
    _private("pate", "defenses.pate:PATE", "A student learns from the noisy votes of teachers on disjoint data."),
    _private("fine-tune", "defenses.fine_tuning:FineTune", "A network that one was given, trained on by oneself.",
             stage="model"),
)
"""The rows of the house itself."""


@cache
def cards() -> dict[str, Card]:
    """Every row by name, the house's and third parties'. A broken entry is an error, never a silent skip."""
    table = {card.name: card for card in CARDS}
    for point in entry_points(group=ENTRY_POINTS):
        try:
            card = point.load()
        except Exception as error:
            said = f"the plugin {point.name!r} failed to load: {error}"
            raise ConfigError("CFG130", said, where=point.value) from error
        if not isinstance(card, Card):
            said = f"the plugin {point.name!r} is no Card but {type(card).__name__}"
            raise ConfigError("CFG130", said, where=point.value)
        table[card.name] = card
    return table


def find(name: str, *, kind: Kind | None = None, wing: str = "", where: str = "") -> Card:
    """The row of this name: ``"evasion.apgd"``, or ``"apgd"`` within a wing. Raises CFG131 naming the nearest."""
    table = [card for card in cards().values() if kind is None or card.kind == kind]
    for card in table:
        if name == card.name or (name == card.method and wing in ("", card.wing)):
            return card
    known = [card.method if wing else card.name for card in table if wing in ("", card.wing)]
    raise ConfigError("CFG131", f"there is no {kind or 'method'} called {name!r}{nearest(name, known)}", where=where)


def game(name: str, *, where: str = "") -> Card:
    """The game of this name, ``"privacy.audit"``, or the first of a wing, ``"privacy"``. Raises CFG131."""
    table = [card for card in cards().values() if card.kind == "game"]
    found = next((card for card in table if name in (card.name, card.wing)), None)
    if found is None:
        known = [word for card in table for word in (card.wing, card.name)]
        raise ConfigError("CFG131", f"there is no game called {name!r}{nearest(name, known)}", where=where)
    return found


def load(card: Card) -> Any:
    """The class behind a row. Raises CFG132 where it cannot be imported."""
    module, _, attribute = card.entry.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError("CFG132", f"{card.name} cannot be loaded: {error}", where=card.entry) from error


def make(spec: str | Mapping[str, Any], *, kind: Kind, wing: str, where: str = "") -> Any:
    """A method from its name, or from a table of its name and parameters, each checked by name and type.

    Raises:
        ConfigError: CFG131 unknown method, CFG133 unknown parameter, CFG134 a value of the wrong type or range.
    """
    parameters = {} if isinstance(spec, str) else {key: value for key, value in spec.items() if key != "name"}
    name = spec if isinstance(spec, str) else str(spec.get("name", ""))
    card = find(name, kind=kind, wing=wing, where=where)
    cls = load(card)
    known = {f.name: f for f in fields(cls) if f.init}
    hints = get_type_hints(cls)
    for key, value in parameters.items():
        if key not in known:
            raise ConfigError("CFG133", f"{card.name} has no parameter {key!r}{nearest(key, known)}", where=where)
        parameters[key] = _checked(card, key, value, hints[key], where)
    missing = [f.name for f in known.values()
               if f.default is MISSING and f.default_factory is MISSING and f.name not in parameters]
    if missing:
        raise ConfigError("CFG134", f"{card.name} needs {', '.join(missing)}", where=where)
    try:
        return cls(**parameters)
    except (TypeError, ValueError) as error:
        raise ConfigError("CFG134", f"{card.name}: {error}", where=where) from error


def _checked(card: Card, key: str, value: Any, hint: Any, where: str) -> Any:
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
    except ValidationError as error:
        said = error.errors()[0]["msg"]
        raise ConfigError("CFG134", f"{card.name}: {key} = {value!r}: {said}", where=where) from error


def listed(*, kind: str = "", wing: str = "", stage: str = "") -> Iterator[Card]:
    """The rows that match, in table order."""
    for card in cards().values():
        if kind in ("", card.kind) and wing in ("", card.wing) and stage in ("", card.stage):
            yield card
