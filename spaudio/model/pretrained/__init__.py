"""Pretrained audio encoders of the Hugging Face Hub, and classifiers on them.

An encoder is loaded (`load_encoder`) and computes what is cached per clip (`encoded`). Frozen or
adapted (`adapt`), it is a classifier (`adapted`) with a head (`head`).
"""
