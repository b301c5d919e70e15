"""The public names, of torch.hub and of the package."""

PUBLIC_NAMES = [
    "MTRN",
    "Predictor",
    "Stream",
    "TRN",
    "TSM",
    "TSN",
    "epic_100_metrics",
    "epic_55_metrics",
    "fetch_class_names",
    "load_checkpoint",
    "load_clip",
    "open_frames",
    "read_class_names",
    "save_checkpoint",
]
