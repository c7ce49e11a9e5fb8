"""Serving: durable jobs over HTTP. Imported by nothing but the command line."""
