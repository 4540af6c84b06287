"""Pretrained audio encoders of the Hugging Face Hub, and classifiers on top of them.

An encoder is loaded (`load_encoder`) and computes what is cached per clip (`encoded`). Frozen or
adapted (`adapt`), it becomes a classifier (`adapted`) with a head (`head`).
"""
