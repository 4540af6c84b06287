"""Shared groups of settings, as YAML; `recipes/<name>/config.yaml` chooses among them."""
