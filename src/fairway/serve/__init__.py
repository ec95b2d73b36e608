"""A scoring service: one ASGI application over any scorers.

The application is made by `fairway.serve.app.build` from loaded models; ``fairway serve`` loads
them and runs it. Nothing here imports a backend.
"""
