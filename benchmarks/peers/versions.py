"""Says which versions the peers' environment has; answers nothing."""

from worker import serve

serve(("torch", "transformers", "tokenizers", "numpy"))
