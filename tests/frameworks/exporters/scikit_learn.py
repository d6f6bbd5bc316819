"""scikit-learn by skl2onnx: classifiers with and without ZipMap, a regressor, and pipelines that begin with text.

Expected answers are those of `predict` and `predict_proba`.
"""

from __future__ import annotations

import warnings

import numpy as np
import onnx
from onnx import helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from writing import Writer

warnings.simplefilter("ignore", FutureWarning)
OPSET = {"": 18, "ai.onnx.ml": 3}
ROWS = slice(40, 120, 20)  # of more than one kind of flower

X, kinds = load_iris(return_X_y=True)
X = X.astype(np.float32)
writer = Writer(("scikit-learn", "skl2onnx", "onnx", "numpy"))


def convert(name: str, model: object, how: str, **arguments: object) -> None:
    path = writer.refused(name, how) if name.endswith("zipmap") else writer.served(name, how)
    path.write_bytes(to_onnx(model, target_opset=OPSET, **arguments).SerializeToString())


def classifiers() -> None:
    """One model three times: what ZipMap does is to be seen."""
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, kinds)
    probabilities = model.predict_proba(X[ROWS]).astype(np.float32)
    labels = model.predict(X[ROWS])
    plain = {"zipmap": False}
    convert("sklearn_classifier", model, f"to_onnx(pipeline, X, options={plain})", X=X[:1], options=plain)
    writer.case("sklearn_classifier", {"X": X[ROWS]}, {"label": labels, "probabilities": probabilities})

    convert("sklearn_classifier_zipmap", model, "to_onnx(pipeline, X)", X=X[:1])

    # For a file that is there already: the tensor that ZipMap takes apart becomes the output.
    mended = onnx.load(writer.refused("sklearn_classifier_zipmap"))
    (zipmap,) = (node for node in mended.graph.node if node.op_type == "ZipMap")
    (output,) = (output for output in mended.graph.output if output.name == zipmap.output[0])
    output.CopyFrom(helper.make_tensor_value_info(zipmap.input[0], onnx.TensorProto.FLOAT, ["N", 3]))
    mended.graph.node.remove(zipmap)
    onnx.save(mended, writer.served("sklearn_classifier_mended", "sklearn_classifier_zipmap without its ZipMap"))
    expected = {"output_label": labels, zipmap.input[0]: probabilities}
    writer.case("sklearn_classifier_mended", {"X": X[ROWS]}, expected)

    columns = {"zipmap": "columns"}
    convert("sklearn_classifier_columns", model, f"to_onnx(pipeline, X, options={columns})", X=X[:1], options=columns)
    outputs = {f"i{i}": np.ascontiguousarray(probabilities[:, i]) for i in range(3)}
    writer.case("sklearn_classifier_columns", {"X": X[ROWS]}, {"output_label": labels} | outputs)


def scores() -> None:
    """A support vector machine behind a projection: its scores are no probabilities, and its labels are text."""
    names = np.array(["setosa", "versicolor", "virginica"])[kinds]
    model = make_pipeline(PCA(2), SVC(decision_function_shape="ovr", max_iter=200)).fit(X[::4], names[::4])
    options = {"zipmap": False, "raw_scores": True}
    convert("sklearn_support_vectors", model, f"to_onnx(pipeline, X, options={options})", X=X[:1], options=options)
    expected = {"label": model.predict(X[ROWS]), "probabilities": model.decision_function(X[ROWS]).astype(np.float32)}
    writer.case("sklearn_support_vectors", {"X": X[ROWS]}, expected)


def numbers() -> None:
    """Trees that give a number, and a clustering."""
    forest = RandomForestRegressor(6, max_depth=4, random_state=0).fit(X[:, :3], X[:, 3])
    convert("sklearn_regressor", forest, "to_onnx(RandomForestRegressor, X)", X=X[:1, :3])
    expected = forest.predict(X[ROWS, :3]).astype(np.float32)[:, np.newaxis]
    writer.case("sklearn_regressor", {"X": np.ascontiguousarray(X[ROWS, :3])}, {"variable": expected})

    clusters = KMeans(3, random_state=0, n_init=2).fit(X)
    convert("sklearn_clusters", clusters, "to_onnx(KMeans, X)", X=X[:1])
    expected = {"label": clusters.predict(X[ROWS]).astype(np.int64), "scores": clusters.transform(X[ROWS])}
    writer.case("sklearn_clusters", {"X": X[ROWS]}, expected)


def texts() -> None:
    """A table of a text column and two numbers; and sentences, which the model itself takes apart into words."""
    towns = np.array(["Köln", "Bonn", "Ulm", "Bonn", "Köln", "Ulm", "Ulm", "Köln"])[:, np.newaxis]
    columns = np.hstack([towns.astype(object), X[40:120:10, :2].astype(object)])
    encoder = ColumnTransformer(
        [("town", OneHotEncoder(handle_unknown="ignore"), [0]), ("numbers", StandardScaler(), [1, 2])]
    )
    model = make_pipeline(encoder, LogisticRegression()).fit(columns, np.array(["no", "yes"] * 4))
    types = [("town", StringTensorType([None, 1])), ("numbers", FloatTensorType([None, 2]))]
    how = "to_onnx(pipeline, initial_types=[('town', StringTensorType([None, 1])), ('numbers', FloatTensorType([None, 2]))], options={'zipmap': False})"  # noqa: E501
    convert("sklearn_table", model, how, initial_types=types, options={"zipmap": False})
    x = {"town": np.array([["Ulm"], ["Köln"], ["nowhere"]]), "numbers": X[60:63, :2]}
    rows = np.hstack([x["town"].astype(object), x["numbers"].astype(object)])
    probabilities = model.predict_proba(rows).astype(np.float32)
    writer.case("sklearn_table", x, {"label": model.predict(rows), "probabilities": probabilities})

    sentences = ["a good film", "a bad film", "good acting and a good plot", "bad plot, bad acting"]
    words = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(sentences, [1, 0, 1, 0])
    types = [("text", StringTensorType([None, 1]))]
    # Letters are made small by the rules of a locale, which the machine that serves must have. Every one has this.
    options = {TfidfVectorizer: {"locale": "C.UTF-8"}, LogisticRegression: {"zipmap": False}}
    how = "to_onnx(pipeline, initial_types=…, options={TfidfVectorizer: {'locale': 'C.UTF-8'}, LogisticRegression: {'zipmap': False}})"  # noqa: E501
    convert("sklearn_sentences", words, how, initial_types=types, options=options)
    asked = ["Good good PLOT", "so bad!", ""]
    outputs = {"label": words.predict(asked), "probabilities": words.predict_proba(asked).astype(np.float32)}
    writer.case("sklearn_sentences", {"text": np.array(asked)[:, np.newaxis]}, outputs)


classifiers()
scores()
numbers()
texts()
writer.finish()
