"""How the embedded model is made: data, autoencoder, denoiser, export, evaluation. See README.md."""
