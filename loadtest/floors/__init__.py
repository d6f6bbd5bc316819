"""Floor servers: the least that a transport can cost, measured with a constant answer and no model behind it."""
