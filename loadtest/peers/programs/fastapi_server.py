"""A minimal FastAPI application: float32 bytes in, float32 bytes out, one request at a time, no batching."""

from __future__ import annotations

import uvicorn
from fastapi import FastAPI, Request, Response
from served_model import served_model

MODEL = served_model()
run = MODEL.load()
app = FastAPI()


@app.post("/predict")
async def predict(request: Request) -> Response:
    batch = MODEL.row(await request.body())[None]
    return Response(run(batch).tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=MODEL.ports["http"], log_level="warning", access_log=False)
