"""Finders of names of persons in captions."""

import re
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from regen_train.detectors.weights import describe_model, find_model
from regen_train.pretrained import PretrainedFolder

_VERSION = 1
_OVERLAP = 64
"""Tokens that two pieces of a long text share, so that a name at the seam is whole in one of them."""
_PERSON = frozenset({"PER", "PERSON"})


@dataclass
class TransformersNames:
    """Names found by a token classifier of transformers; the default (MIT licence) was trained on CoNLL-2003 English.

    Args:
        pretrained: Hub id or folder of a model for `AutoModelForTokenClassification` with classes PER or PERSON.
        revision: Branch, tag or commit on the hub.
        threshold: Least score of a name. Low: a word too many costs a sentence, a name missed is learned.
    """

    pretrained: str = "dslim/bert-base-NER"
    revision: str | None = None
    threshold: float = 0.4
    _pipeline: Any = field(default=None, init=False, repr=False, compare=False)

    def setup(self, device: str) -> None:
        """Load the weights; see `regen_train.guard.NameFinder`.

        Raises:
            FileNotFoundError: The weights cannot be had; says what to do.
            ValueError: The model knows no class of persons.
        """
        from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

        folder = self._folder().path
        model = AutoModelForTokenClassification.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        known = {name.split("-")[-1].upper() for name in model.config.id2label.values()}
        if not known & _PERSON:
            raise ValueError(
                f"{self.pretrained} finds no names of persons: it has no class PER or PERSON, only "
                f"{', '.join(sorted(known))}; take another model, or SpacyNames"
            )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        # some tokenizers state no limit, and RoBERTa's kind keeps two places for itself
        longest = min(tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", 512) - 2)
        tokenizer.model_max_length = longest
        # words are never cut: the surest of their pieces decides
        self._pipeline = pipeline(
            "token-classification",
            model=model.eval(),
            tokenizer=tokenizer,
            device=device,
            aggregation_strategy="max",
            stride=min(_OVERLAP, longest // 4),
        )

    def identity(self) -> dict[str, Any]:
        """Return what decides the result; see `regen_train.guard.NameFinder`."""
        return {
            "finder": type(self).__name__,
            "version": _VERSION,
            **describe_model(self._folder()),
            "threshold": self.threshold,
        }

    def find(self, text: str) -> list[str]:
        """Return names as they stand in the text; see `regen_train.guard.NameFinder`."""
        found = self._pipeline(text)
        spans = [
            (entity["start"], entity["end"])
            for entity in found
            if entity["entity_group"].upper() in _PERSON and entity["score"] >= self.threshold
        ]
        return _whole_words(text, spans)

    def _folder(self) -> PretrainedFolder:
        return find_model(self.pretrained, self.revision, alternatives="SpacyNames")


@dataclass
class SpacyNames:
    """Names found by a pipeline of spaCy, such as en_core_web_sm (MIT licence).

    Args:
        model: Name of an installed pipeline package, or a folder with one.
    """

    model: str = "en_core_web_sm"
    _pipeline: Any = field(default=None, init=False, repr=False, compare=False)

    def setup(self, device: str) -> None:
        """Load the pipeline, on the CPU whatever the device; see `regen_train.guard.NameFinder`.

        Raises:
            ValueError: spaCy or the pipeline is not installed, or finds no names; says what to do.
        """
        try:
            spacy = import_module("spacy")  # never a dependency, so not known to type checkers
        except ImportError as error:
            raise ValueError(
                f"SpacyNames needs spaCy: `pip install spacy` and `python -m spacy download {self.model}`; "
                "or use TransformersNames"
            ) from error
        try:
            # a folder may name code of its own only through packages that are installed
            self._pipeline = spacy.load(self.model, exclude=["parser", "lemmatizer"])
        except OSError as error:
            raise ValueError(
                f"spaCy has no pipeline {self.model}: `python -m spacy download {self.model}`; or use TransformersNames"
            ) from error
        if "ner" not in self._pipeline.pipe_names:
            raise ValueError(f"the pipeline {self.model} finds no names: it has no part `ner`; take en_core_web_sm")

    def identity(self) -> dict[str, Any]:
        """Return what decides the result; see `regen_train.guard.NameFinder`. The version is known after `setup`."""
        if self._pipeline is None:
            self.setup("cpu")
        meta = self._pipeline.meta
        return {
            "finder": type(self).__name__,
            "version": _VERSION,
            "weights": f"{meta['lang']}_{meta['name']}",
            "revision": meta["version"],
        }

    def find(self, text: str) -> list[str]:
        """Return names as they stand in the text; see `regen_train.guard.NameFinder`."""
        entities = self._pipeline(text).ents
        spans = [(entity.start_char, entity.end_char) for entity in entities if entity.label_ in _PERSON]
        return _whole_words(text, spans)


def _whole_words(text: str, spans: list[tuple[int, int]]) -> list[str]:
    """Return what stands at the spans, each once, grown to whole words."""
    words = [match.span() for match in re.finditer(r"\w+", text)]
    names = []
    for start, end in spans:
        touched = [word for word in words if word[0] < end and word[1] > start]
        if touched:
            names.append(text[touched[0][0] : touched[-1][1]])
    return list(dict.fromkeys(names))
