"""Live sessions: a WebSocket of the HTTP process, led on to a worker that makes an avatar speak."""
