"""EPIC-KITCHENS action recognition in one package: TSN, TRN, MTRN and TSM, installed by pip.

    from epic_action_models import Predictor, load_checkpoint

torch.hub has the same public names, and a clone has them in the same modules, which are within the
package here (`epic_action_models.data.video`).
"""

if __package__:  # none where something imports this file for its own sake, as pytest may
    from .package_loader import install

    install(__spec__)  # so that the following find one another

    from .data.video import load_clip, open_frames
    from .epic.classes import fetch_class_names, read_class_names
    from .epic.metrics import epic_55_metrics, epic_100_metrics
    from .model_loader import load_checkpoint, save_checkpoint
    from .predictor import Predictor
    from .streaming import Stream
    from .trn import MTRN, TRN
    from .tsm import TSM
    from .tsn import TSN

    __all__ = [
        "MTRN",
        "TRN",
        "TSM",
        "TSN",
        "Predictor",
        "Stream",
        "epic_55_metrics",
        "epic_100_metrics",
        "fetch_class_names",
        "load_checkpoint",
        "load_clip",
        "open_frames",
        "read_class_names",
        "save_checkpoint",
    ]
