"""The schedulers of diffusers that the denoising loop cannot drive, and why."""

__all__ = ["UNSUITABLE_SCHEDULERS"]

_TOKENS = "its samples are tokens, not latents"
_NO_PREDICTION = "it does not say what the model is to predict (it has no `prediction_type`)"
UNSUITABLE_SCHEDULERS = {
    "AmusedScheduler": _TOKENS,
    "BlockRefinementScheduler": _TOKENS,
    "CMStochasticIterativeScheduler": f"{_NO_PREDICTION}; it is for consistency models",
    "CogVideoXDPMScheduler": "its `step` also takes the timestep before and the prediction before",
    "DDIMInverseScheduler": "it goes from an image to its noise, not from noise to an image",
    "DDPMWuerstchenScheduler": "it has timesteps between 0 and 1, and no `num_train_timesteps`",
    "DPMSolverMultistepInverseScheduler": "it goes from an image to its noise, not from noise to an image",
    "DiscreteDDIMScheduler": _TOKENS,
    "EntropyBoundScheduler": _TOKENS,
    "HeliosDMDScheduler": "it has several stages, of growing resolution, with timesteps of their own",
    "HeliosScheduler": "it has several stages, of growing resolution, with timesteps of their own",
    "IPNDMScheduler": _NO_PREDICTION,
    "KarrasVeScheduler": "it calls the model several times for a step, and has `step_correct` beside `step`",
    "LTXEulerAncestralRFScheduler": _NO_PREDICTION,
    "MiniMaxH3Scheduler": "its time runs from 0 to 1, and it expects the velocity with the opposite sign",
    "PiflowScheduler": "it takes several predictions from one call of a model that was distilled for it",
    "RFD4ProteinaScheduler": "it moves the atoms of a protein, not latents",
    "RePaintScheduler": "its `step` also takes an image and a mask",
    "SCMScheduler": "it expects a prediction of its own kind (`trigflow`)",
    "ScoreSdeVeScheduler": "it has `step_pred` and `step_correct` instead of `step`",
    "UnCLIPScheduler": "its `step` must be told the next timestep (`prev_timestep`)",
    "VQDiffusionScheduler": _TOKENS,
}
