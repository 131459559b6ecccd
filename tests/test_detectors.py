"""Detectors run for real, on tiny models of the real classes that are rigged to find something."""

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from jsonargparse import ArgumentParser
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from torch import Tensor

from regen_train.detectors import (
    RapidOcrText,
    SpacyNames,
    TorchvisionPeople,
    TransformersNames,
    TransformersPeople,
    YuNetFaces,
)
from regen_train.guard import Boxes, Detector, NameFinder

HEIGHT, WIDTH = 48, 64


def some_frames(count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, HEIGHT, WIDTH, 3), generator=generator, dtype=torch.uint8)


def same(one: list[Boxes], other: list[Boxes]) -> bool:
    return all(
        torch.allclose(a.boxes, b.boxes, atol=1e-3) and torch.allclose(a.scores, b.scores, atol=1e-4)
        for a, b in zip(one, other, strict=True)
    )


# --- people


@pytest.fixture(scope="module")
def detr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An RT-DETR v2 with random weights, sure that everything is a person and almost sure that it is a bicycle."""
    from transformers import RTDetrImageProcessor, RTDetrResNetConfig, RTDetrV2Config, RTDetrV2ForObjectDetection

    torch.manual_seed(0)
    backbone = RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], out_features=["stage2", "stage3", "stage4"]
    )
    config = RTDetrV2Config(
        backbone_config=backbone,
        encoder_hidden_dim=16,
        encoder_in_channels=[8, 8, 8],
        feat_strides=[8, 16, 32],
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        d_model=16,
        decoder_in_channels=[16, 16, 16],
        decoder_ffn_dim=16,
        decoder_layers=2,
        decoder_attention_heads=2,
        num_queries=5,
        id2label={0: "bicycle", 1: "Person", 2: "cat"},
        label2id={"bicycle": 0, "Person": 1, "cat": 2},
    )
    model = RTDetrV2ForObjectDetection(config)
    with torch.no_grad():
        for head in model.model.decoder.class_embed:
            head.weight.zero_()
            head.bias.copy_(torch.tensor([1.0, 2.0, -9.0]))
    folder = tmp_path_factory.mktemp("detr")
    model.save_pretrained(folder)
    RTDetrImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def test_people_of_transformers(detr: Path) -> None:
    detector = TransformersPeople(str(detr))
    people: Detector = detector
    people.setup("cpu")
    found = people.detect(some_frames())
    assert len(found) == 3
    for boxes in found:
        assert len(boxes) > 0
        assert boxes.boxes.shape == (len(boxes), 4)
        # sigmoid of the bias: no bicycle is taken for a person
        torch.testing.assert_close(boxes.scores, torch.full((len(boxes),), torch.tensor(2.0).sigmoid().item()))
        assert bool((boxes.boxes[:, 2:] >= boxes.boxes[:, :2]).all())
        assert boxes.boxes.max() > 1.5  # pixels, not shares
    assert same(found, people.detect(some_frames()))
    one_by_one = TransformersPeople(str(detr), batch_size=1)
    one_by_one.setup("cpu")
    assert same(found, one_by_one.detect(some_frames()))
    assert people.detect(some_frames(0)) == []


def test_other_classes_are_no_people(detr: Path) -> None:
    detector = TransformersPeople(str(detr), labels=("bicycle",))  # all that it finds are persons
    detector.setup("cpu")
    assert [len(boxes) for boxes in detector.detect(some_frames())] == [0, 0, 0]


def test_a_threshold_hides_what_is_less_sure(detr: Path) -> None:
    detector = TransformersPeople(str(detr), threshold=0.95)
    detector.setup("cpu")
    assert [len(boxes) for boxes in detector.detect(some_frames())] == [0, 0, 0]


def test_a_model_without_people_is_refused(detr: Path) -> None:
    with pytest.raises(
        ValueError, match=r"knows none of the labels pedestrian; it knows Person, bicycle, cat.*Torchvis"
    ):
        TransformersPeople(str(detr), labels=("pedestrian",)).setup("cpu")


@pytest.fixture(scope="module")
def faster_rcnn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Torchvision's own model with random weights, sure that everything is a person."""
    from torchvision.models.detection import fasterrcnn_resnet50_fpn_v2

    torch.manual_seed(0)
    model = fasterrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=91)
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.weight.zero_()
        model.roi_heads.box_predictor.cls_score.bias[1], model.roi_heads.box_predictor.cls_score.bias[2] = 9.0, 8.5
    path = tmp_path_factory.mktemp("rcnn") / "weights.safetensors"
    save_file(model.state_dict(), path)
    return path


def test_people_of_torchvision(faster_rcnn: Path) -> None:
    detector = TorchvisionPeople(faster_rcnn, short_side=16, threshold=0.2)
    people: Detector = detector
    people.setup("cpu")
    found = people.detect(some_frames(2))
    assert len(found) == 2
    for boxes in found:
        assert len(boxes) > 0
        assert torch.allclose(boxes.scores, torch.full((len(boxes),), 0.614), atol=5e-3)
        assert bool((boxes.boxes >= 0).all())
        assert bool((boxes.boxes <= WIDTH).all())
    assert same(found, people.detect(some_frames(2)))
    hidden = TorchvisionPeople(faster_rcnn, short_side=16, threshold=0.7)
    hidden.setup("cpu")
    assert [len(boxes) for boxes in hidden.detect(some_frames(1))] == [0]


def test_torchvision_reads_pth_and_refuses_others(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth holds no weights of fasterrcnn_resnet50_fpn_v2"):
        TorchvisionPeople(tmp_path / "other.pth").setup("cpu")
    with pytest.raises(FileNotFoundError, match=r"no weights of .*TransformersPeople"):
        TorchvisionPeople(tmp_path / "none.pth").setup("cpu")


def test_torchvision_says_what_to_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **kwargs: object) -> None:
        assert kwargs["weights_only"] is True
        assert kwargs["check_hash"] is True
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(FileNotFoundError, match=r"no route to host.*fetch https://.*dd69338a\.pth.*TransformersPeople"):
        TorchvisionPeople().setup("cpu")


# --- faces


def write_yunet(path: Path, *, free: bool, sure: float) -> Path:
    """Write a network with YuNet's inputs and outputs that sees a face where the picture is bright.

    Each stride's twelve maps are pools of the picture: the class and object scores are the brightness of the cell in
    0 to 1, boxes are centred in their cell and two cells large.
    """
    sides = ["height", "width"] if free else [640, 640]
    nodes, outputs = [], []
    constants = {"to_one": np.full((1, 3, 1, 1), sure / 3 / 255, dtype=np.float32)}
    for stride in (8, 16, 32):
        nodes.append(
            helper.make_node(
                "AveragePool", ["input"], [f"cell{stride}"], kernel_shape=[stride] * 2, strides=[stride] * 2
            )
        )
        nodes.append(helper.make_node("Conv", [f"cell{stride}", "to_one"], [f"bright{stride}"]))
        for kind, bias in (("cls", [0.0]), ("obj", [0.0]), ("bbox", [0.5, 0.5, 0.7, 0.7]), ("kps", [0.0] * 10)):
            width, name = len(bias), f"{kind}_{stride}"
            copy = 1.0 if kind in ("cls", "obj") else 0.0
            constants[f"w_{name}"] = np.full((width, 1, 1, 1), copy, dtype=np.float32)
            constants[f"b_{name}"] = np.array(bias, dtype=np.float32)
            constants[f"s_{name}"] = np.array([1, -1, width], dtype=np.int64)
            nodes.append(helper.make_node("Conv", [f"bright{stride}", f"w_{name}", f"b_{name}"], [f"map_{name}"]))
            nodes.append(helper.make_node("Transpose", [f"map_{name}"], [f"last_{name}"], perm=[0, 2, 3, 1]))
            nodes.append(helper.make_node("Reshape", [f"last_{name}", f"s_{name}"], [name]))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, None, width]))
    order = {kind: number for number, kind in enumerate(("cls", "obj", "bbox", "kps"))}
    outputs.sort(key=lambda value: (order[value.name.split("_")[0]], int(value.name.split("_")[1])))
    picture = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, *sides])
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "yunet", [picture], outputs, initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8), str(path))
    return path


def bright_spot(left: int, top: int, size: int) -> Tensor:
    frame = torch.zeros(1, 240, 320, 3, dtype=torch.uint8)
    frame[:, top : top + size, left : left + size] = 255
    return frame


@pytest.mark.parametrize("free", [True, False])
def test_faces_of_yunet(tmp_path: Path, free: bool) -> None:
    detector = YuNetFaces(write_yunet(tmp_path / "yunet.onnx", free=free, sure=1.0), long_sides=(320, 640))
    faces: Detector = detector
    faces.setup("cpu")
    dark, spot = torch.zeros(1, 240, 320, 3, dtype=torch.uint8), bright_spot(96, 160, 32)
    found = faces.detect(torch.cat([dark, spot]))
    assert len(found[0]) == 0
    assert found[0].boxes.shape == (0, 4)
    assert 0 < len(found[1]) < 60  # both sizes saw it, and neighbours were merged
    centres = (found[1].boxes[:, :2] + found[1].boxes[:, 2:]) / 2
    assert bool((centres > torch.tensor([95, 159])).all())
    assert bool((centres < torch.tensor([129, 193])).all())
    assert bool((found[1].scores > 0.9).all())
    assert same(found[1:], faces.detect(spot))


def test_small_faces_are_found_in_an_enlarged_picture(tmp_path: Path) -> None:
    path = write_yunet(tmp_path / "yunet.onnx", free=True, sure=1.0)
    counts = []
    for long_sides in ((320,), (640,)):
        detector = YuNetFaces(path, long_sides=long_sides)
        detector.setup("cpu")
        counts.append(len(detector.detect(bright_spot(100, 164, 5))[0]))
    assert counts == [0, 1]


def test_colours_reach_yunet_as_opencv_has_them(tmp_path: Path) -> None:
    """Blue, green, red; the tiny network weighs them alike, so the call is watched."""
    detector = YuNetFaces(write_yunet(tmp_path / "yunet.onnx", free=True, sure=1.0), long_sides=(64,))
    detector.setup("cpu")
    seen: list[np.ndarray] = []

    class Watch:
        setInputSize = staticmethod(lambda size: None)  # noqa: N815

        @staticmethod
        def detect(picture: np.ndarray) -> tuple[int, None]:
            seen.append(picture)
            return 1, None

    detector._detector = Watch
    frames = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    frames[..., 0] = 200
    assert len(detector.detect(frames)[0]) == 0
    assert seen[0][0, 0].tolist() == [0, 0, 200]


def test_what_is_no_yunet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "page.onnx").write_text("<html>not found</html>")
    with pytest.raises(ValueError, match=r"cannot read .*page\.onnx as a YuNet model"):
        YuNetFaces(tmp_path / "page.onnx").setup("cpu")
    with pytest.raises(FileNotFoundError, match=r"no YuNet model at .*hf download opencv/face_detection_yunet"):
        YuNetFaces(tmp_path / "none.onnx").identity()
    with pytest.raises(FileNotFoundError, match=r"cannot be downloaded; fetch it with .*hf download"):
        YuNetFaces().setup("cpu")


# --- text


def test_text_is_found_and_read() -> None:
    pytest.importorskip("rapidocr")
    detector = RapidOcrText()
    text: Detector = detector
    text.setup("cpu")
    pictures = np.full((2, 120, 320, 3), 60, dtype=np.uint8)
    cv2.putText(pictures[1], "JOHN DOE", (40, 80), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (255, 255, 255), 2, cv2.LINE_AA)
    found = text.detect(torch.from_numpy(pictures))
    assert len(found[0]) == 0
    assert found[1].labels == ("JOHN DOE",)
    left, top, right, bottom = found[1].boxes[0].tolist()
    assert 20 < left < 45
    assert 45 < top < 65
    assert 160 < right < 220
    assert 75 < bottom < 100
    assert found[1].scores[0] > 0.9
    assert text.identity()["revision"]


def test_a_missing_reader_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidocr", None)
    with pytest.raises(ValueError, match=r"pip install 'rapidocr>=3\.10' onnxruntime"):
        RapidOcrText().setup("cpu")


def test_a_reader_without_models_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    older = ModuleType("rapidocr")
    older.__file__ = str(tmp_path / "rapidocr" / "__init__.py")
    monkeypatch.setitem(sys.modules, "rapidocr", older)
    with pytest.raises(ValueError, match=r"rapidocr>=3\.10' onnxruntime.*\(this version would download them\)"):
        RapidOcrText().setup("cpu")


class _Result:
    def __init__(self, boxes: Any, scores: Any = (), txts: Any = None) -> None:
        self.boxes, self.scores, self.txts = boxes, scores, txts


@pytest.mark.parametrize(
    ("result", "labels"),
    [
        (_Result(None), ()),
        (_Result(np.zeros((0, 4, 2))), ()),
        (_Result([[[5, 2], [9, 3], [8, 7], [4, 6]]], [0.7], ("Hi",)), ("Hi",)),
        (_Result([[[5, 2], [9, 3], [8, 7], [4, 6]]], [0.7]), ("",)),
        (
            _Result([[[0, 0], [9, 0], [9, 9], [0, 9]], [[5, 2], [9, 3], [8, 7], [4, 6]]], [0.9, 0.7], ("I.", "Hi")),
            ("Hi",),
        ),
    ],
)
def test_readings_become_boxes(result: _Result, labels: tuple[str, ...]) -> None:
    detector = RapidOcrText()
    detector._reader = lambda picture: result
    boxes = detector.detect(some_frames(1))[0]
    assert boxes.labels == labels
    assert boxes.boxes.tolist() == [[4, 2, 9, 7]] * len(labels)
    torch.testing.assert_close(boxes.scores, torch.full((len(labels),), 0.7))


# --- names


@pytest.fixture(scope="module")
def ner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT whose layers let the word embeddings through; a few words are people or places."""
    from transformers import BertConfig, BertForTokenClassification, BertTokenizerFast

    folder = tmp_path_factory.mktemp("ner")
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "Maria",
        "Lop",
        "##ez",
        "John",
        "Berlin",
        "waves",
        "to",
        "in",
        ".",
    ]
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=False)
    tokenizer.save_pretrained(folder)
    labels = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC"}
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        id2label=labels,
        label2id={name: number for number, name in labels.items()},
    )
    torch.manual_seed(0)
    model = BertForTokenClassification(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "LayerNorm" not in name:
                weight.zero_()
        embeddings = model.bert.embeddings.word_embeddings.weight
        for word, axis in (("Maria", 1), ("Lop", 2), ("##ez", 2), ("John", 1), ("Berlin", 3)):
            embeddings[words.index(word), axis] = 9.0
        for label in (1, 2, 3):
            model.classifier.weight[label, label] = 3.0
        model.classifier.bias[0] = 2.0
    model.save_pretrained(folder)
    return folder


def test_names_of_transformers(ner: Path) -> None:
    finder = TransformersNames(str(ner))
    names: NameFinder = finder
    names.setup("cpu")
    assert names.find("Maria Lopez waves to John in Berlin.") == ["Maria Lopez", "John"]
    assert names.find("waves to Berlin.") == []
    assert names.find("") == []
    assert names.find("John waves to John.") == ["John"]
    assert names.find("waves in Berlin. " * 30 + "Maria Lopez waves.") == ["Maria Lopez"]  # far beyond one window
    for before in range(14, 30):  # wherever the seam of two windows falls
        assert names.find("waves " * before + "Maria Lopez" + " waves" * 20) == ["Maria Lopez"]
    surer = TransformersNames(str(ner), threshold=1.1)
    surer.setup("cpu")
    assert surer.find("Maria Lopez waves.") == []


def test_a_classifier_of_something_else_is_refused(ner: Path, tmp_path: Path) -> None:
    for path in ner.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((ner / "config.json").read_text())
    config["id2label"] = {"0": "O", "1": "B-DRUG", "2": "I-DRUG", "3": "B-GENE"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ValueError, match=r"no class PER or PERSON, only DRUG, GENE, O; take another model, or SpacyNames"
    ):
        TransformersNames(str(tmp_path)).setup("cpu")


def test_spacy_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(ValueError, match=r"pip install spacy.*spacy download en_core_web_sm.*TransformersNames"):
        SpacyNames().setup("cpu")


def test_names_of_spacy(tmp_path: Path) -> None:
    spacy = pytest.importorskip("spacy")
    pipeline = spacy.blank("en")
    ruler = pipeline.add_pipe("entity_ruler", name="ner")
    ruler.add_patterns([{"label": "PERSON", "pattern": "Maria Lopez"}, {"label": "GPE", "pattern": "Berlin"}])
    pipeline.to_disk(tmp_path / "pipeline")
    names: NameFinder = SpacyNames(str(tmp_path / "pipeline"))
    assert names.identity()["weights"] == "en_pipeline"
    assert names.find("Maria Lopez waves in Berlin.") == ["Maria Lopez"]
    with pytest.raises(ValueError, match="spaCy has no pipeline no_such"):
        SpacyNames("no_such").setup("cpu")


# --- all


def test_identities_are_plain_json_and_follow_the_settings(
    detr: Path, faster_rcnn: Path, ner: Path, tmp_path: Path
) -> None:
    yunet = write_yunet(tmp_path / "yunet.onnx", free=True, sure=1.0)
    makers: list[tuple[Callable[..., Any], dict[str, Any]]] = [
        (lambda **k: TransformersPeople(str(detr), **k), {"threshold": 0.9}),
        (lambda **k: TransformersPeople(str(detr), **k), {"labels": ("cat",)}),
        (lambda **k: TorchvisionPeople(faster_rcnn, **k), {"threshold": 0.9}),
        (lambda **k: TorchvisionPeople(faster_rcnn, **k), {"short_side": 320}),
        (lambda **k: YuNetFaces(yunet, **k), {"threshold": 0.9}),
        (lambda **k: YuNetFaces(yunet, **k), {"long_sides": (320,)}),
        (lambda **k: TransformersNames(str(ner), **k), {"threshold": 0.9}),
    ]
    for make, change in makers:
        before, after = make().identity(), make(**change).identity()
        assert json.loads(json.dumps(before)) == before
        assert before != after
        assert str(tmp_path) not in json.dumps(before)


@pytest.mark.parametrize(
    ("detector", "words"),
    [
        (TransformersPeople, "hf download PekingU/rtdetr_v2_r50vd`.*; or use TorchvisionPeople"),
        (TransformersNames, "hf download dslim/bert-base-NER`.*; or use SpacyNames"),
    ],
)
def test_weights_that_cannot_be_had_say_so(detector: Any, words: str) -> None:
    with pytest.raises(FileNotFoundError, match=words):
        detector().setup("cpu")


@pytest.mark.parametrize(
    "detector",
    [
        TransformersPeople(labels=("person", "rider")),
        TorchvisionPeople(Path("weights.pth")),
        YuNetFaces(Path("yunet.onnx"), long_sides=(320,)),
        RapidOcrText(0.4),
        TransformersNames(threshold=0.2),
        SpacyNames("de_core_news_sm"),
    ],
)
def test_detectors_travel_to_workers(detector: Any) -> None:
    assert pickle.loads(pickle.dumps(detector)) == detector  # noqa: S301


def test_detectors_are_named_on_a_command_line() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--people", type=Detector | None, default=None)
    parser.add_argument("--names", type=NameFinder | None, default=None)
    given = ["--people=regen_train.detectors.YuNetFaces", "--people.model=a.onnx", "--people.long_sides=[320]"]
    made = parser.instantiate(parser.parse_args([*given, "--names=regen_train.detectors.SpacyNames"]))
    assert made.people == YuNetFaces(Path("a.onnx"), long_sides=(320,))
    assert made.names == SpacyNames()


def test_a_batch_has_a_frame() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        TransformersPeople(batch_size=0).detect(some_frames(1))
