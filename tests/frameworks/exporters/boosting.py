"""Boosted trees: LightGBM and XGBoost by onnxmltools.

Expected answers are those of `predict` and `predict_proba`.
"""

from __future__ import annotations

import numpy as np
import onnx
from lightgbm import LGBMClassifier, LGBMRegressor
from onnxmltools import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from sklearn.datasets import load_iris
from writing import Writer
from xgboost import XGBClassifier, XGBRegressor

OPSET = 15
ROWS = slice(40, 120, 20)
X, kinds = load_iris(return_X_y=True)
X = X.astype(np.float32)
TYPES = [("features", FloatTensorType([None, 4]))]

writer = Writer(("lightgbm", "xgboost", "onnxmltools", "skl2onnx", "onnx", "numpy"))


def keep(name: str, how: str, converted: onnx.ModelProto, **expected: np.ndarray) -> None:
    writer.served(name, how).write_bytes(converted.SerializeToString())
    writer.case(name, {"features": X[ROWS]}, expected)


def classes(model: LGBMClassifier | XGBClassifier) -> dict[str, np.ndarray]:
    probabilities = model.predict_proba(X[ROWS]).astype(np.float32)
    return {"label": model.predict(X[ROWS]), "probabilities": probabilities}


lightgbm = LGBMClassifier(n_estimators=5, num_leaves=4, verbose=-1, n_jobs=1).fit(X, kinds)
converted = convert_lightgbm(lightgbm, initial_types=TYPES, target_opset=OPSET, zipmap=False)
how = "convert_lightgbm(LGBMClassifier, initial_types=[('features', FloatTensorType([None, 4]))], zipmap=False)"
keep("lightgbm_classifier", how, converted, **classes(lightgbm))
# The exporter says that there is one label, however many rows: put right, the model can be batched.
converted.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "N"
keep("lightgbm_classifier_mended", f"{how}, then output[0]'s dimension is made free", converted, **classes(lightgbm))
converted = convert_lightgbm(lightgbm, initial_types=TYPES, target_opset=OPSET)
path = writer.refused("lightgbm_classifier_zipmap", "convert_lightgbm(LGBMClassifier, initial_types=…)")
path.write_bytes(converted.SerializeToString())

regressor = LGBMRegressor(n_estimators=5, num_leaves=4, verbose=-1, n_jobs=1).fit(X, X[:, 3] * 2)
converted = convert_lightgbm(regressor, initial_types=TYPES, target_opset=OPSET)
expected = regressor.predict(X[ROWS]).astype(np.float32)[:, np.newaxis]
keep("lightgbm_regressor", "convert_lightgbm(LGBMRegressor, initial_types=…)", converted, variable=expected)

xgboost = XGBClassifier(n_estimators=5, max_depth=2, n_jobs=1).fit(X, kinds)
converted = convert_xgboost(xgboost, initial_types=TYPES, target_opset=OPSET)
keep("xgboost_classifier", "convert_xgboost(XGBClassifier, initial_types=…)", converted, **classes(xgboost))

trees = XGBRegressor(n_estimators=5, max_depth=2, n_jobs=1).fit(X, X[:, 3] * 2)
converted = convert_xgboost(trees, initial_types=TYPES, target_opset=OPSET)
expected = trees.predict(X[ROWS]).astype(np.float32)[:, np.newaxis]
keep("xgboost_regressor", "convert_xgboost(XGBRegressor, initial_types=…)", converted, variable=expected)
writer.finish()
