"""The code model that MLflow logs: a kgrec version that answers with the top items of users.

Input: a frame with the column `user`; parameter `k`. Output: a frame with user, item, title, score.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc import PythonModel, PythonModelContext

from kgrec.serving.recommend import Version, open_version


class Retriever(PythonModel):
    """Loads the version folder that was logged with the model and recommends from it."""

    version: Version

    def load_context(self, context: PythonModelContext) -> None:
        """Open the version; every byte is checked against its manifest."""
        self.version = open_version(Path(context.artifacts["version"]))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Return the top k items of each user, best first."""
        k = int((params or {}).get("k", 10))
        answer = self.version.recommend(model_input["user"].astype(str).tolist(), k=k)
        return pd.DataFrame(answer.to_dict(as_series=False))


mlflow.models.set_model(Retriever())
