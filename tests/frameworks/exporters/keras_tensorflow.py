"""Keras and TensorFlow: `model.export(format="onnx")` of Keras 3, and tf2onnx itself.

Expected answers are those of Keras' `predict`, and of TensorFlow.
"""

from __future__ import annotations

import keras
import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from writing import Writer

keras.utils.set_random_seed(3)
random = np.random.default_rng(3)
writer = Writer(("keras", "tensorflow-cpu", "tf2onnx", "onnx", "numpy"))


def convolutional() -> None:
    """A classifier of 8×8 pictures, channels last, as Keras has them."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="pixels"),
            keras.layers.Conv2D(4, 3, padding="same", activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(10, activation="softmax", name="scores"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(random.random((64, 8, 8, 1), np.float32), random.integers(0, 10, 64), verbose=0)  # statistics of the norm
    path = writer.served("keras_convolutional", 'keras.Model.export(path, format="onnx")')
    model.export(path, format="onnx", verbose=False)
    x = random.random((4, 8, 8, 1), np.float32)
    keep("keras_convolutional", [x], [model.predict(x, verbose=0)])


def recurrent() -> None:
    """Token numbers of any length through an embedding and an LSTM, and a second input: two free dimensions."""
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    numbers = keras.Input((2,), name="numbers")
    state = keras.layers.LSTM(6)(keras.layers.Embedding(20, 5)(tokens))
    joined = keras.layers.Concatenate()([state, numbers])
    model = keras.Model(
        [tokens, numbers],
        [keras.layers.Dense(3, name="kind")(joined), keras.layers.Dense(1, activation="sigmoid", name="risk")(joined)],
    )
    signature = [
        tf.TensorSpec((None, None), tf.int32, name="tokens"),
        tf.TensorSpec((None, 2), tf.float32, name="numbers"),
    ]
    function = tf.function(lambda tokens, numbers: model([tokens, numbers]), input_signature=signature)
    path = writer.served("keras_recurrent", "tf2onnx.convert.from_function(function, input_signature, opset=17)")
    tf2onnx.convert.from_function(function, input_signature=signature, opset=17, output_path=str(path))
    x = [random.integers(0, 20, (4, 7), np.int32), random.random((4, 2), np.float32)]
    keep("keras_recurrent", x, [np.asarray(y) for y in model.predict(x, verbose=0)])


def frozen_graph() -> None:
    """TensorFlow 1: a graph whose tensors are called `scope/name:0`."""
    weights = random.standard_normal((3, 2)).astype(np.float32)
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, 3), "serving/x")
        y = tf.identity(tf.nn.softmax(tf.matmul(x, weights)), "serving/scores")
        with tf.compat.v1.Session(graph=graph) as session:
            data = random.standard_normal((4, 3)).astype(np.float32)
            expected = session.run(y, {x: data})
        definition = graph.as_graph_def()
    path = writer.served(
        "tensorflow_frozen_graph", "tf2onnx.convert.from_graph_def(graph, input_names, output_names, opset=13)"
    )
    tf2onnx.convert.from_graph_def(
        definition,
        input_names=["serving/x:0"],
        output_names=["serving/scores:0"],
        opset=13,
        output_path=str(path),
    )
    keep("tensorflow_frozen_graph", [data], [expected])


def keep(name: str, inputs: list[np.ndarray], outputs: list[np.ndarray]) -> None:
    """A case under the names that the exporter gave to the tensors."""
    graph = onnx.load(writer.served(name)).graph
    names = [tensor.name for tensor in graph.input], [tensor.name for tensor in graph.output]
    writer.case(name, dict(zip(names[0], inputs, strict=True)), dict(zip(names[1], outputs, strict=True)))


convolutional()
recurrent()
frozen_graph()
writer.finish()
