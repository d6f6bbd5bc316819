"""Who computes. A backend turns a model file into a session that runs arrays; it knows no request and no queue."""
